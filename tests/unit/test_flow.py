"""What the driver gives out next: what waits for nothing, and as few changes of stage as fairness allows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Settings
from pipeline.runners.base import Task, Worker
from pipeline.runners.flow import Flow
from pipeline.stages import ORDER, lanes
from pipeline.storage import Store, open_store
from tests.e2e.world import Project

BUCKETS = 12


@dataclass(slots=True)
class Build:
    """A build in which nothing is made: ``given`` are the tasks in the order in which workers got them."""

    settings: Settings
    store: Store
    given: list[Task] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)

    def run(self, flow: Flow, *, workers: int, draw: Random, failing: float = 0.0) -> None:
        """Give out all tasks; they end in any order, a share of them badly."""
        for task in self.tasks():
            flow.add(task, [need.key for need in task.stage.needs(task.unit)])
        done: set[str] = set()
        crew = [Worker() for _ in range(workers)]
        while True:
            for worker in (worker for worker in crew if worker.task is None):
                worker.task = flow.next(worker, Counter(each.open for each in crew))
                if worker.task:
                    assert {need.key for need in worker.task.stage.needs(worker.task.unit)} <= done
                    self.given.append(worker.task)
                    worker.open = worker.task.stage.folder
            busy = [worker for worker in crew if worker.task]
            if not busy:
                return
            ended = draw.choice(busy)
            assert ended.task
            task, ended.task = ended.task, None
            if draw.random() < failing:
                self.failed.update(flow.failed(task, lambda _: False))
            else:
                flow.done(task, seconds=draw.random())
                done.add(task.unit.key)

    def tasks(self) -> list[Task]:
        every = [lanes(category, self.settings, buckets=BUCKETS) for category in self.settings.categories]
        stages = [stage for lane in every for stage in lane.all[:-1]]
        return [Task(stage=stage, unit=unit) for stage in stages for unit in stage.units(self.store)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return open_store(str(tmp_path_factory.mktemp("run")))


@given(
    overlap=st.booleans(),
    workers=st.integers(1, 9),
    seed=st.integers(0, 1 << 30),
    failing=st.sampled_from([0.0, 0.02, 0.2, 1.0]),
)
def test_every_task_is_given_out_once_unless_it_needs_one_that_failed(
    both: Project, store: Store, overlap: bool, workers: int, seed: int, failing: float
) -> None:
    build, flow = Build(both.settings(), store), Flow(overlap=overlap)
    build.run(flow, workers=workers, draw=Random(seed), failing=failing)
    every, out = {task.unit.key for task in build.tasks()}, [task.unit.key for task in build.given]
    assert len(out) == len(set(out))
    assert set(out) | build.failed == every
    assert failing or not build.failed
    assert flow.floor() == len(ORDER)
    assert not any(flow.left(category.name) for category in build.settings.categories)


@given(workers=st.integers(1, 9), seed=st.integers(0, 1 << 30))
def test_one_stage_at_a_time_never_goes_back(both: Project, store: Store, workers: int, seed: int) -> None:
    build = Build(both.settings(), store)
    build.run(Flow(overlap=False), workers=workers, draw=Random(seed))
    ranks = [(ORDER.index(type(task.stage)), task.stage.wave) for task in build.given]
    assert ranks == sorted(ranks)


def test_with_overlap_judges_label_what_is_there_while_generators_are_at_work(
    both: Project, store: Store
) -> None:
    build = Build(both.settings(), store)
    build.run(Flow(overlap=True), workers=6, draw=Random(0))
    names = [task.stage.name for task in build.given]
    assert names.index("judge") < len(names) - 1 - names[::-1].index("generate")


@pytest.mark.parametrize("overlap", [False, True])
def test_a_worker_alone_opens_each_stage_once(images: Project, store: Store, overlap: bool) -> None:
    build = Build(images.settings(), store)
    build.run(Flow(overlap=overlap), workers=1, draw=Random(0))
    folders = [task.stage.folder for task in build.given]
    opened = 1 + sum(one != other for one, other in pairwise(folders))
    assert opened == len(set(folders))


def test_workers_spread_over_the_stages_that_have_work(both: Project, store: Store) -> None:
    build = Build(both.settings(), store)
    generators = {
        stage.folder
        for category in build.settings.categories
        for stage in lanes(category, build.settings, buckets=BUCKETS).generate
    }
    build.run(Flow(overlap=False), workers=len(generators), draw=Random(0))
    first = [task.stage.folder for task in build.given if task.stage.name == "generate"][: len(generators)]
    assert set(first) == generators


def test_a_task_that_failed_comes_after_those_that_have_not_been_tried(images: Project, store: Store) -> None:
    build, flow, worker = Build(images.settings(), store), Flow(overlap=False), Worker()
    stage = lanes(build.settings.categories[0], build.settings, buckets=BUCKETS).pair
    for unit in stage.units(store):
        flow.add(Task(stage=stage, unit=unit), ())
    first = flow.next(worker, {})
    assert first
    flow.retry(Task(stage=stage, unit=first.unit, attempt=2))
    order = [task.unit.bucket for _ in range(BUCKETS) if (task := flow.next(worker, {}))]
    assert order == [*range(1, BUCKETS), 0]
