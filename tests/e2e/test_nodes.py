"""Machines that go away, clocks that lie, disks that fill up: the build ends as if nothing had happened."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.runners.progress import read_diaries
from pipeline.storage import open_store
from tests.e2e.nodes import TwoNodes
from tests.e2e.world import Command, Fault, Project, built, dead, parts, shipped, tree, until, vipo

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two Ray nodes")]

CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static long off(void) { const char *days = getenv("VIPO_DAYS_OFF"); return days ? atol(days) * 86400 : 0; }

int clock_gettime(clockid_t id, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec += off();
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int result = real(now, zone);
    now->tv_sec += off();
    return result;
}

time_t time(time_t *now) {
    struct timespec here;
    clock_gettime(CLOCK_REALTIME, &here);
    if (now) *now = here.tv_sec;
    return here.tv_sec;
}
"""
"""A wall clock that is off by VIPO_DAYS_OFF, for every library of a process."""


@pytest.fixture
def nodes() -> Iterator[TwoNodes]:
    with TwoNodes() as started:
        yield started


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def on(nodes: TwoNodes, project: Project, run: Path) -> Command:
    """Start a driver that wants a worker on each node."""
    given = ("--runner", "ray", "--workers", "2", "--address", nodes.address)
    return Command(*project.build(run, *given), environment=nodes.environment)


def lose(nodes: TwoNodes) -> None:
    """Lose the second node; its workers must end by themselves."""
    assert nodes.second
    workers = nodes.second.workers()
    assert workers
    assert nodes.lose_second()
    until(lambda: all(map(dead, workers)), "the workers of a lost node end")


def test_a_build_goes_on_with_the_actors_that_are_left(
    images: Project, images_tree: dict[str, str], nodes: TwoNodes, run: Path, tmp_path: Path
) -> None:
    """The second node's raylet dies while its worker is in the middle of a unit; nobody replaces the node."""
    fault = Fault(folder=tmp_path / "fault", act="hold", prefix="generate/")
    nodes.start_head()
    nodes.start_second(fault.environment())
    command = on(nodes, images, run)
    worker = fault.held()
    assert nodes.second
    assert worker in nodes.second.workers()
    lose(nodes)
    assert dead(worker)
    built(command)
    assert tree(run) == images_tree


def test_a_node_that_replaces_a_lost_one_is_used(
    images: Project, images_tree: dict[str, str], nodes: TwoNodes, run: Path, tmp_path: Path
) -> None:
    """The head's worker is held in a later stage until the new node has a worker."""
    lost = Fault(folder=tmp_path / "lost", act="hold", prefix="generate/")
    late = Fault(folder=tmp_path / "late", act="hold", prefix="judge/")
    nodes.start_head(late.environment())
    nodes.start_second(lost.environment())
    command = on(nodes, images, run)
    lost.held()
    lose(nodes)
    late.held()
    nodes.start_second()
    until(lambda: nodes.second and nodes.second.workers(), "the new node has a worker")
    judged = len(parts(run, "judge"))
    until(lambda: len(parts(run, "judge")) > judged, "the new node's worker makes parts")
    late.release()
    built(command)
    assert tree(run) == images_tree


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) to build the lying clock with")
    folder = tmp_path_factory.mktemp("clock")
    (folder / "clock.c").write_text(CLOCK)
    library = folder / "clock.so"
    given = ["-shared", "-fPIC", "-o", str(library), str(folder / "clock.c"), "-ldl"]
    subprocess.run([compiler, *given], check=True, timeout=60)
    return library


def began(run: Path) -> float:
    (diary,) = read_diaries(open_store(str(run)))
    return diary.started


def test_a_clock_that_is_years_off_changes_no_byte(
    clock: Path, both: Project, both_run: Path, run: Path
) -> None:
    wrong = {"LD_PRELOAD": str(clock), "VIPO_DAYS_OFF": "-4000"}
    built(Command(*both.build(run), environment=wrong))
    assert abs(began(run) - began(both_run) + 4000 * 86400) < 86400, "the clock was not off"
    assert tree(run) == tree(both_run)


def test_workers_whose_clocks_disagree_with_the_driver_change_no_byte(
    clock: Path, images: Project, images_tree: dict[str, str], nodes: TwoNodes, run: Path
) -> None:
    nodes.start_head()
    nodes.start_second({"LD_PRELOAD": str(clock), "VIPO_DAYS_OFF": "5"})
    built(on(nodes, images, run))
    assert tree(run) == images_tree


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Return a file system that is too small for the run and can be made larger (``remount``)."""
    mounted = tmp_path / "tiny"
    mounted.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1100k", "tiny", str(mounted)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def assert_one_line(command: Command, *said: str) -> None:
    """The command ended with 1; of what it said, the last line is its one error, and nothing is a trace."""
    assert command.process.returncode == 1
    lines = command.errors.splitlines()
    errors = [line for line in lines if line.startswith("vipo: ")]
    assert errors == lines[-1:], command.errors
    assert all(word in errors[0] for word in said), errors
    assert "Traceback" not in command.errors


def test_a_full_disk_ends_a_build_in_a_line_and_space_lets_it_go_on(
    images: Project, images_tree: dict[str, str], tiny_disk: Path
) -> None:
    run = tiny_disk / "run"
    command = vipo(*images.build(run))
    assert_one_line(command)
    assert "No space left on device" in command.errors
    assert not list((run / ".tmp").iterdir())
    whole = tree(run)
    if whole.pop("manifest.json", None):  # there may have been room for one that names nothing
        assert shipped(run) == []
    assert whole
    assert whole.items() <= images_tree.items()
    remount(tiny_disk, "size=64m")
    built(Command(*images.build(run)))
    assert tree(run) == images_tree


def test_a_store_that_becomes_read_only_is_named_in_a_line(
    images: Project, images_tree: dict[str, str], tiny_disk: Path, tmp_path: Path
) -> None:
    remount(tiny_disk, "size=64m")
    run = tiny_disk / "run"
    fault = Fault(folder=tmp_path / "fault", act="hold", prefix="generate/", nth=3)
    command = Command(*images.build(run), environment=fault.environment())
    fault.held()
    remount(tiny_disk, "ro")
    fault.release()
    command.end()
    assert_one_line(command, "Read-only file system", str(run))
    assert tree(run).items() <= images_tree.items()
    assert_one_line(vipo(*images.build(run)), "Read-only file system", str(run))
    remount(tiny_disk, "rw")
    built(Command(*images.build(run)))
    assert tree(run) == images_tree


def test_verify_and_status_need_no_right_to_write(
    images: Project, images_run: Path, images_tree: dict[str, str], tiny_disk: Path
) -> None:
    del images
    remount(tiny_disk, "size=64m")
    run = tiny_disk / "run"
    shutil.copytree(images_run, run)
    remount(tiny_disk, "ro")
    for name in ("verify", "status"):
        command = vipo(name, "--run", str(run))
        assert command.process.returncode == 0, command.errors
    assert_one_line(vipo("report", "--run", str(run)), "Read-only file system")
    assert tree(run) == images_tree
