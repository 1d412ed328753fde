"""Does anything that dies leave a trace in the dataset? One small build, killed some two hundred times.

    make chaos            or            python -m tests.bench.chaos --seed 1 --kills 200

Builds images and videos on two Ray nodes of this machine, half of the kills over a folder, half over an
S3-compatible server behind a proxy that injects faults. Which kind of process is killed, after which
number of parts and how long after it, is drawn from the seed; what that process is doing then is not.
Every part, medium, shard, index and the manifest must be those of an undisturbed build by one local
worker. Exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline import api
from pipeline.stages import ORDER
from pipeline.storage import open_store
from tests.bench.tally.sitecustomize import LEDGER
from tests.e2e.faulty_s3 import FaultyS3
from tests.e2e.nodes import TwoNodes, merged
from tests.e2e.s3_servers import JUICEFS, juicefs, logged_in, make_bucket, moto
from tests.e2e.world import IMAGES, PROFILE, VIDEOS, Command, Project, shipped, tree

SHARES = {"worker": 0.68, "driver": 0.17, "notice": 0.08, "node": 0.06, "cluster": 0.01}
MEANING = {
    "worker": "SIGKILL of a worker",
    "driver": "SIGKILL of the driver",
    "notice": "SIGTERM to the driver",
    "node": "SIGKILL of the second node's raylet",
    "cluster": "SIGKILL of the head's raylet and of the driver",
}

PLACES = ("a folder", "S3")

REPLACED_AFTER = 3.0
"""Seconds until a lost node is replaced."""

LATEST = 0.06
"""Seconds after a part within which the process dies: a unit takes about as long."""

LAST_PARTS = 8
"""Parts before the end without kills: each must find a build at work."""

GIVEN_UP = 20
"""Drivers in a row that may end without a new part."""

FAULTS = {
    "delay": 0.02,
    "error": 0.01,
    "slow_down": 0.01,
    "reset": 0.01,
    "lost_answer": 0.01,
    "broken_body": 0.03,
    "flipped_bit": 0.03,
    "truncated": 0.01,
    "conflict": 0.02,
}
"""Share of the requests that meet each kind of fault, if it can strike them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A kill: once ``after`` parts exist, ``delay`` seconds later; ``which`` in [0, 1) picks the victim."""

    kind: str
    after: int
    delay: float
    which: float


@dataclass(slots=True, kw_only=True)
class Course:
    """What happened to one build, disturbed or not."""

    started: float = field(default_factory=time.perf_counter)
    ended: float = 0.0
    starts: int = 0
    refusals: list[str] = field(default_factory=list)
    struck: list[tuple[Event, float, int]] = field(default_factory=list)
    begun: Counter[str] = field(default_factory=Counter)
    dropped: int = 0

    @property
    def seconds(self) -> float:
        return self.ended - self.started

    @property
    def again(self) -> int:
        """Units that were begun once more."""
        return sum(count - 1 for count in self.begun.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--quota", type=int, default=40, help="image pairs")
    parser.add_argument("--on", choices=PLACES, help="all kills here (default: half on each)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="vipo-chaos-", dir="/tmp") as folder:
        sys.exit(_main(Path(folder), given))


def _main(folder: Path, given: argparse.Namespace) -> int:
    project = small_project(folder / "project", given.quota)
    started = time.perf_counter()
    expected = _reference(project, folder / "reference")
    total = sum(1 for key in expected if key.endswith(".parquet"))
    print(f"undisturbed, one local worker: {time.perf_counter() - started:.1f} s, {total} parts", flush=True)
    wrong: list[str] = []
    places = [given.on] if given.on else list(PLACES)
    for number, where in enumerate(places):
        with _place(where, folder, given.seed + number) as (runs, environment, faults):
            calm = build(project, f"{runs}/calm", [], folder / "ledger", {})
            left, storms = given.kills // len(places), 0
            while left:  # a fast machine ends a build before the last of its kills
                events = plan(given.seed + number + 100 * storms, left, total)
                run = f"{runs}/storm-{storms}"
                storm = build(project, run, events, folder / "ledger", environment)
                _table(where, calm, storm, total, faults)
                wrong += [f"{run}: {line}" for line in _differences(run, expected, folder / "reference")]
                if not storm.struck:
                    wrong.append(f"{run}: no kill struck, {left} were to come")
                    break
                left, storms = left - len(storm.struck), storms + 1
                faults.clear()
    print("\n".join(wrong) or "Every byte is that of the undisturbed build; verify is green.", flush=True)
    return 1 if wrong else 0


def small_project(folder: Path, quota: int) -> Project:
    """Write a project of many short units; a unit may lose any number of workers."""
    profile = PROFILE.replace("attempts = 2", "attempts = 1000").replace("bucket_size = 2", "bucket_size = 1")
    images = IMAGES.replace("quota = 12", f"quota = {quota}")
    return Project.write(folder, images, VIDEOS.replace("quota = 2", "quota = 6"), profile=profile)


def plan(seed: int, kills: int, parts: int) -> list[Event]:
    """Draw the kills of one build that has ``parts`` parts."""
    draw = random.Random(seed)
    kinds = [kind for kind, share in SHARES.items() for _ in range(max(1, round(share * kills)))]
    kinds = (kinds + ["worker"] * kills)[:kills] if len(kinds) < kills else kinds[len(kinds) - kills :]
    draw.shuffle(kinds)
    after = sorted(draw.choices(range(1, parts - LAST_PARTS), k=kills))
    return [
        Event(kind=kind, after=count, delay=draw.uniform(0, LATEST), which=draw.random())
        for kind, count in zip(kinds, after, strict=True)
    ]


@contextmanager
def _place(where: str, folder: Path, seed: int) -> Iterator[tuple[str, dict[str, str], Counter[str]]]:
    """Give a place for runs, the environment in which it is faulty, and the faults injected so far."""
    if where == PLACES[0]:
        yield str(folder), {}, Counter()
        return
    server = juicefs(folder / "server") if JUICEFS.exists() else moto()
    # On stderr the proxy tells of every client that went away.
    with (
        server as address,
        logged_in(address),
        redirect_stderr(StringIO()),
        FaultyS3(address, seed, FAULTS) as proxy,
    ):
        print(f"S3 server: {'JuiceFS gateway' if JUICEFS.exists() else 'moto'}", flush=True)
        make_bucket(address, "vipo")
        # This process looks on from behind the proxy.
        yield "s3://vipo", proxy.uri_environment(), proxy.counts


def build(
    project: Project, run: str, events: list[Event], ledger: Path, environment: dict[str, str]
) -> Course:
    """Build ``run`` on two nodes while ``events`` strike; start drivers until one ends well."""
    ledger.write_text("")
    tally = {LEDGER: str(ledger), "PYTHONPATH": str(Path(__file__).parent / "tally")}
    with TwoNodes(merged(tally, environment)) as nodes:
        nodes.start_head()
        nodes.start_second()
        course = _Storm(project, run, nodes, events).weather()
    for line in ledger.read_text().splitlines():
        word, _, key = line.partition(" ")
        if word == "begun":
            course.begun[key] += 1
        course.dropped += word == "dropped"
    return course


class _Storm:
    def __init__(self, project: Project, run: str, nodes: TwoNodes, events: list[Event]) -> None:
        self._project, self._run, self._nodes = project, run, nodes
        self._events = list(reversed(events))
        self._store = open_store(run)
        self._course = Course()
        self._lost_at: float | None = None
        self._fruitless = self._parts_then = 0

    def weather(self) -> Course:
        """Start drivers until one ends well; strike on the way."""
        driver = self._start()
        while driver.process.poll() != 0:
            if driver.process.poll() is not None:
                self._note_end(driver)
                driver = self._start()
            self._replace_node()
            if self._events and self._parts() >= self._events[-1].after:
                self._strike(driver)
            time.sleep(0.02)
        self._course.ended = time.perf_counter()
        return self._course

    def _start(self) -> Command:
        self._course.starts += 1
        given = ("--runner", "ray", "--workers", "2", "--address", self._nodes.address)
        return Command(*self._project.build(self._run, *given), environment=self._nodes.environment)

    def _parts(self) -> int:
        return sum(
            entry.key.endswith(".parquet") for stage in ORDER for entry in self._store.list(f"{stage.name}/")
        )

    def _note_end(self, driver: Command) -> None:
        """Keep what a driver said that ended by itself. Raises RuntimeError if none gets anywhere."""
        if driver.process.returncode == 1:
            self._course.refusals += driver.errors.splitlines()[-1:]
        parts = self._parts()
        self._fruitless = self._fruitless + 1 if parts == self._parts_then else 0
        self._parts_then = parts
        if self._fruitless > GIVEN_UP:
            raise RuntimeError(f"{GIVEN_UP} drivers in a row made no part; the last one: {driver.errors}")

    def _strike(self, driver: Command) -> None:
        """Do the next event if its victim is there; else it stays the next."""
        event = self._events[-1]
        time.sleep(event.delay)
        if getattr(self, f"_kill_{event.kind}")(driver, event):
            self._events.pop()
            self._course.struck.append((event, time.perf_counter(), self._parts()))

    def _kill_worker(self, driver: Command, event: Event) -> bool:
        del driver
        found = self._nodes.workers()
        return bool(found) and _signal(found[int(event.which * len(found))], signal.SIGKILL)

    def _kill_driver(self, driver: Command, event: Event) -> bool:
        del event
        if driver.process.poll() is not None:
            return False
        driver.kill()
        return True

    def _kill_notice(self, driver: Command, event: Event) -> bool:
        del event
        if driver.process.poll() is not None:
            return False
        driver.process.terminate()
        driver.end()
        return True

    def _kill_node(self, driver: Command, event: Event) -> bool:
        del driver, event
        if not self._nodes.lose_second():
            return False
        self._lost_at = time.perf_counter()
        return True

    def _kill_cluster(self, driver: Command, event: Event) -> bool:
        del event
        if driver.process.poll() is None:
            driver.kill()
        self._nodes.lose_all()
        self._nodes.start_head()
        self._lost_at = time.perf_counter()
        return True

    def _replace_node(self) -> None:
        if self._lost_at is not None and time.perf_counter() - self._lost_at > REPLACED_AFTER:
            self._nodes.start_second()
            self._lost_at = None


def _signal(pid: int, number: int) -> bool:
    """Send a signal; False if the process has just gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _reference(project: Project, run: Path) -> dict[str, str]:
    made = api.build(project.settings(), str(run), console=Console(file=StringIO()))
    assert not made.failures, made.failures
    assert not made.short, made.short
    return tree(run)


def _differences(run: str, expected: dict[str, str], reference: Path) -> Iterator[str]:
    """Yield a line for everything in ``run`` that is not as it must be."""
    found = tree(run)
    for what, keys in (
        ("lost", expected.keys() - found.keys()),
        ("too much", found.keys() - expected.keys()),
        ("different", {key for key in expected.keys() & found.keys() if expected[key] != found[key]}),
    ):
        yield from (f"{what}: {key}" for key in sorted(keys))
    pairs = Counter(entry.pair_id for entry in shipped(run))
    yield from (f"pair {pair} is there {count} times" for pair, count in pairs.items() if count > 1)
    wanted = {entry.pair_id for entry in shipped(reference)}
    yield from (f"pair {pair} is lost or new" for pair in sorted(wanted ^ pairs.keys()))
    verified = api.verify(run).pairs
    if verified != len(wanted):
        yield f"verify counts {verified} pairs, not {len(wanted)}"


def _lost_by_kind(calm: Course, storm: Course, parts: int) -> dict[str, list[float]]:
    """Seconds from each kill to the next beyond what the parts made meanwhile take undisturbed."""
    each = calm.seconds / parts
    ends = [*((moment, count) for _, moment, count in storm.struck[1:]), (storm.ended, parts)]
    lost: dict[str, list[float]] = {kind: [] for kind in SHARES}
    for (event, moment, count), (until, then) in zip(storm.struck, ends, strict=True):
        lost[event.kind].append(until - moment - (then - count) * each)
    return lost


def _table(where: str, calm: Course, storm: Course, parts: int, faults: Counter[str]) -> None:
    table = Table("event", "times", "seconds lost each: mean", "median", title=f"On {where}")
    for kind, each in _lost_by_kind(calm, storm, parts).items():
        if each:
            mean, middle = statistics.mean(each), statistics.median(each)
            table.add_row(MEANING[kind], str(len(each)), f"{mean:.2f}", f"{middle:.2f}")
    faults.pop("requests", None)
    for kind, count in sorted(faults.items()):
        table.add_row(f"storage: {kind}", str(count), "", "")
    console = Console(width=110)
    console.print(table)
    kills, lost = len(storm.struck), storm.seconds - calm.seconds
    console.print(
        f"undisturbed on two nodes {calm.seconds:.1f} s; with {kills} kills and {sum(faults.values())} "
        f"storage faults {storm.seconds:.1f} s: {lost / max(1, kills):.2f} s lost a kill. "
        f"{storm.starts} drivers. {parts} parts: {storm.again} units begun again, "
        f"{storm.dropped} parts done twice (the second dropped).",
        highlight=False,
    )
    for said, count in Counter(storm.refusals).most_common(5):
        console.print(f"{count} drivers ended by themselves: {said}", markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
