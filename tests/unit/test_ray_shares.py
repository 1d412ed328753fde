"""How many actors of each kind a cluster gets, by the work that waits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.runners.base import Need
from pipeline.runners.ray import Capacity, capacities, shares
from pipeline.stages import Resources

CPU = Resources()
GENERATOR = Resources(gpus=1)
JUDGE = Resources(gpus=8)


def node(gpus: float, *types: str, cpus: float = 16) -> Capacity:
    return Capacity(accelerators=frozenset(types), cpus=cpus, gpus=gpus)


def test_gpus_go_where_the_work_is() -> None:
    needs = {
        GENERATOR: Need(tasks=1000, seconds=3000),
        Resources(cpus=2, gpus=1): Need(tasks=1000, seconds=1000),
    }
    assert list(shares(needs, [node(8), node(8)]).values()) == [12, 4]


def test_types_of_gpu_that_nobody_else_may_use_are_not_shared() -> None:
    judge, generator = Resources(gpus=1, accelerator="H100"), Resources(gpus=1, accelerator="L40S")
    needs = {judge: Need(tasks=99, seconds=1), generator: Need(tasks=99, seconds=1e6)}
    assert shares(needs, [node(4, "H100"), node(8, "L40S")]) == {judge: 4, generator: 8}


def test_what_fits_nowhere_waits_with_one_actor() -> None:
    assert shares({JUDGE: Need(tasks=9, seconds=9)}, [node(0)]) == {JUDGE: 1}


def test_actors_without_gpu_leave_the_cpus_of_those_with() -> None:
    needs = {GENERATOR: Need(tasks=99, seconds=99), CPU: Need(tasks=99, seconds=9)}
    assert shares(needs, [node(4, cpus=16)]) == {GENERATOR: 4, CPU: 12}


def test_a_number_of_workers_is_wanted_whatever_the_cluster_has_now() -> None:
    assert shares({GENERATOR: Need(tasks=99, seconds=9)}, [node(0)], most=32) == {GENERATOR: 32}


@given(
    needs=st.dictionaries(
        st.builds(
            Resources,
            cpus=st.sampled_from([1.0, 2.0]),
            gpus=st.sampled_from([0.0, 1.0, 4.0]),
            accelerator=st.sampled_from([None, "A", "B"]),
        ),
        st.builds(Need, tasks=st.integers(1, 500), seconds=st.floats(0, 1e6)),
        min_size=1,
    ),
    machines=st.lists(
        st.builds(
            Capacity,
            accelerators=st.frozensets(st.sampled_from(["A", "B"])),
            cpus=st.floats(0, 64),
            gpus=st.sampled_from([0.0, 1.0, 8.0]),
        )
    ),
    most=st.integers(0, 40),
)
def test_every_kind_has_an_actor_and_none_more_than_tasks(
    needs: dict[Resources, Need], machines: list[Capacity], most: int
) -> None:
    targets = shares(needs, machines, most)
    assert targets.keys() == needs.keys()
    assert all(1 <= targets[kind] <= need.tasks for kind, need in needs.items())


def test_only_living_nodes_count() -> None:
    nodes = [
        {"Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "accelerator_type:H100": 1.0}},
        {"Alive": False, "Resources": {"CPU": 8.0}},
        {"Alive": True, "Resources": {}},
    ]
    assert capacities(nodes) == [node(2, "H100", cpus=8), node(0, cpus=0)]
