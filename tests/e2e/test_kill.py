"""Whatever is killed, and whenever: the same command finishes the run as if nothing had happened."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.world import Command, Fault, Project, built, dead, parts, shipped, tree, until, vipo

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two Ray nodes")]

WORKER_DIES = {
    "before its second medium": {"prefix": "media/", "nth": 2},
    "media stored, part not": {"prefix": "generate/"},
    "file written, name not": {"method": "_publish", "prefix": "generate/"},
    "part stored, driver not told": {"prefix": "judge/", "when": "after"},
    "tar stored, index not": {"method": "put_file", "prefix": "shard/", "when": "after"},
}
"""Where a worker meets SIGKILL."""

DRIVER_DIES = {
    "while prompts grow": {"prefix": "prompts/"},
    "in the middle of generate": {"prefix": "generate/", "nth": 5},
    "in the middle of judge": {"prefix": "judge/", "nth": 3},
    "between tar and index": {"prefix": "shard/", "nth": 2},
}
"""Where a worker is held while the driver and its whole group meet SIGKILL."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def held() -> Iterator[list[Fault]]:
    """Return a list of faults to release whatever becomes of the test."""
    faults: list[Fault] = []
    yield faults
    for fault in faults:
        fault.release()


def assert_undisturbed(run: Path, images_tree: dict[str, str], images_run: Path) -> None:
    assert tree(run) == images_tree
    pairs = [entry.pair_id for entry in shipped(run)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {entry.pair_id for entry in shipped(images_run)}


def assert_nothing_left(command: Command) -> None:
    until(lambda: not command.others(), f"these end: {command.others()}")


@pytest.mark.parametrize(
    ("runner", "where"),
    [
        *(("local", where) for where in WORKER_DIES),
        ("ray", "media stored, part not"),
        ("ray", "tar stored, index not"),
    ],
)
def test_a_build_outlives_a_worker(
    runner: str, where: str, images: Project, run: Path, images_tree: dict[str, str], images_run: Path
) -> None:
    fault = Fault(folder=run.with_name("fault"), **WORKER_DIES[where])  # type: ignore[arg-type]
    command = vipo(*images.build(run, "--runner", runner, "--workers", "2"), environment=fault.environment())
    assert fault.struck
    assert command.process.returncode == 0, command.errors
    assert_undisturbed(run, images_tree, images_run)
    assert_nothing_left(command)


@pytest.mark.parametrize(
    ("runner", "where"),
    [
        *(("local", where) for where in DRIVER_DIES),
        ("ray", "in the middle of generate"),
        ("ray", "between tar and index"),
    ],
)
def test_a_run_outlives_its_driver(
    runner: str,
    where: str,
    images: Project,
    run: Path,
    images_tree: dict[str, str],
    images_run: Path,
    held: list[Fault],
) -> None:
    fault = Fault(folder=run.with_name("fault"), act="hold", **DRIVER_DIES[where])  # type: ignore[arg-type]
    held.append(fault)
    given = images.build(run, "--runner", runner, "--workers", "2")
    command = Command(*given, environment=fault.environment())
    fault.held()
    command.kill(group=True)
    assert not (run / "manifest.json").exists()
    assert_nothing_left(command)
    before = tree(run)
    built(Command(*given))
    assert before.items() <= tree(run).items()
    assert_undisturbed(run, images_tree, images_run)


def test_a_worker_that_outlives_its_driver_ends_its_unit_beside_the_next_driver(
    images: Project, run: Path, images_tree: dict[str, str], images_run: Path, held: list[Fault]
) -> None:
    fault = Fault(folder=run.with_name("fault"), act="hold", prefix="judge/", nth=2)
    held.append(fault)
    command = Command(*images.build(run), environment=fault.environment())
    fault.held()
    command.kill()
    assert command.others()
    built(Command(*images.build(run)))
    fault.release()
    assert_nothing_left(command)
    assert "Traceback" not in command.errors
    assert_undisturbed(run, images_tree, images_run)


@pytest.mark.parametrize(("stage", "count"), [("prompts", 1), ("generate", 7), ("pair", 2), ("judge", 4)])
def test_a_run_outlives_its_driver_at_any_moment(
    stage: str,
    count: int,
    images: Project,
    run: Path,
    images_tree: dict[str, str],
    images_run: Path,
) -> None:
    command = Command(*images.build(run))
    until(lambda: len(parts(run, stage)) >= count, f"{stage} has {count} parts")
    command.kill(group=True)
    built(Command(*images.build(run)))
    assert_undisturbed(run, images_tree, images_run)


def test_a_run_outlives_its_driver_just_before_the_manifest(
    images: Project, run: Path, images_tree: dict[str, str], images_run: Path
) -> None:
    fault = Fault(folder=run.with_name("fault"), method="replace", prefix="manifest.json")
    command = vipo(*images.build(run), environment=fault.environment())
    assert command.process.returncode == -signal.SIGKILL
    assert not (run / "manifest.json").exists()
    built(Command(*images.build(run)))
    assert_undisturbed(run, images_tree, images_run)


def test_a_driver_can_be_killed_again_and_again(
    images: Project, run: Path, images_tree: dict[str, str], images_run: Path
) -> None:
    for stage, count in (("generate", 3), ("generate", 9), ("judge", 2), ("judge", 6)):
        command = Command(*images.build(run, "--workers", "2"))
        until(lambda s=stage, c=count: len(parts(run, s)) >= c, f"{stage} has {count} parts")  # type: ignore[misc]
        command.kill(group=True)
    built(Command(*images.build(run)))
    assert_undisturbed(run, images_tree, images_run)


def test_a_worker_that_dies_while_idle_is_replaced(
    images: Project, run: Path, images_tree: dict[str, str], images_run: Path, held: list[Fault]
) -> None:
    """The driver is held before it cuts shards, when its one worker has nothing to do."""
    fault = Fault(folder=run.with_name("fault"), act="hold", method="list", prefix="shard/")
    held.append(fault)
    command = Command(*images.build(run), environment=fault.environment())
    assert fault.held() == command.process.pid
    (worker,) = [pid for pid, line in command.others().items() if "spawn_main" in line]
    os.kill(worker, signal.SIGKILL)
    until(lambda: dead(worker), "the worker is dead")
    fault.release()
    built(command)
    assert_undisturbed(run, images_tree, images_run)


@pytest.mark.parametrize(
    ("runner", "signal_number"),
    [
        ("local", signal.SIGTERM),
        ("local", signal.SIGINT),
        ("ray", signal.SIGTERM),
        ("ray", signal.SIGINT),
    ],
)
def test_an_interrupted_build_says_so_in_a_line_and_leaves_nothing_behind(
    runner: str,
    signal_number: signal.Signals,
    images: Project,
    run: Path,
    images_tree: dict[str, str],
    images_run: Path,
    held: list[Fault],
) -> None:
    fault = Fault(folder=run.with_name("fault"), act="hold", prefix="generate/", nth=3)
    held.append(fault)
    given = images.build(run, "--runner", runner, "--workers", "2")
    command = Command(*given, environment=fault.environment())
    fault.held()
    # Ctrl-C reaches all that were started, a polite kill only the driver.
    (os.killpg if signal_number == signal.SIGINT else os.kill)(command.process.pid, signal_number)
    assert command.end() == 130
    assert_interrupted(command)
    built(Command(*images.build(run)))
    assert_undisturbed(run, images_tree, images_run)


def test_ctrl_c_is_for_the_driver_even_while_workers_import(
    images: Project, run: Path, images_tree: dict[str, str], images_run: Path
) -> None:
    command = Command(*images.build(run))
    until(lambda: any(map(_interrupt, _importing(command))), "a worker imports")
    built(command)
    assert "Traceback" not in command.errors
    assert_undisturbed(run, images_tree, images_run)


def _importing(command: Command) -> Iterator[int]:
    for pid, line in command.others().items():
        with contextlib.suppress(OSError):
            if "spawn_main" in line and "libarrow.so" in Path(f"/proc/{pid}/maps").read_text():
                yield pid


def _interrupt(pid: int) -> bool:
    os.kill(pid, signal.SIGINT)
    return True


def assert_interrupted(command: Command) -> None:
    said = [line for line in command.errors.splitlines() if " units " not in line]
    assert said == ["vipo: interrupted: run the same command again to go on"]
    assert_nothing_left(command)


def test_two_drivers_at_once_share_a_run(
    images: Project, run: Path, images_tree: dict[str, str], images_run: Path
) -> None:
    drivers = [Command(*images.build(run)) for _ in range(2)]
    for driver in drivers:
        built(driver)
    assert_undisturbed(run, images_tree, images_run)
