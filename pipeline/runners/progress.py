"""What a build shows while it runs, and what it remembers of its speed."""

from __future__ import annotations

import hashlib
import json
import platform
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pipeline.config import Settings, to_json
from pipeline.dataset.manifest import PACKAGES, Manifest
from pipeline.runners import events, metrics
from pipeline.runners.base import Done, Outcome, Task, one_line
from pipeline.runners.events import Event, JsonLines, LogKind, without_secrets
from pipeline.runners.metrics import Meter
from pipeline.stages import Unit
from pipeline.storage import Store

FOLDER = "progress/"
"""One JSON file a driver: speed and failures, for people; no stage reads it."""

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal."""

SAVE_EVERY = 5.0


@dataclass(slots=True, kw_only=True)
class Speed:
    """Work done in one lane: units, rows, and the worker-seconds they took."""

    units: int = 0
    rows: int = 0
    seconds: float = 0.0


@dataclass(slots=True, kw_only=True)
class Failure:
    """A unit that failed on every attempt, and why."""

    unit: str
    cause: str


@dataclass(slots=True, kw_only=True)
class Diary:
    """What one driver has seen; ``lanes`` is keyed by ``stage/lane``. ``gc`` waits until it ``ended``."""

    started: float = field(default_factory=time.time)
    updated: float = field(default_factory=time.time)
    lanes: dict[str, Speed] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    ended: bool = False


@dataclass(slots=True)
class _Course:
    """How far one stage is in this build; ``done_before`` of ``total`` units were committed before it."""

    total: int = 0
    done_before: int = 0
    done: int = 0
    rows: int = 0
    started: float | None = None
    bar: TaskID | None = None

    @property
    def left(self) -> int:
        return self.total - self.done_before - self.done


class Display:
    """Shows live bars on a terminal and plain lines elsewhere; saves the diary now and then.

    Stages may be at work side by side: each has a bar of its own. With ``log`` json it writes events
    instead (see ``events``). Whatever it is told goes to Ray's metrics too, if this process has joined Ray.
    """

    def __init__(self, store: Store, console: Console | None = None, *, log: LogKind = "human") -> None:
        self.console = console or Console(stderr=True)
        self.diary = Diary()
        self._store, self._meter = store, Meter(store.uri)
        driver = uuid.uuid4().hex
        self._key = f"{FOLDER}{driver}.json"
        self._lines = JsonLines(self.console.file, driver) if log == "json" else None
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=self._lines is not None or not self.console.is_terminal,
        )
        self._courses: dict[str, _Course] = {}
        self._kept: dict[str, int] = {}
        self._quotas: dict[str, int] = {}
        self._staff = Counter[str]()
        self._last_line = self._last_save = time.monotonic()

    def __enter__(self) -> Self:
        self.save()
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        short = {name: quota - self._kept[name] for name, quota in self._quotas.items()}
        self._event(
            events.BuildEnded(
                seconds=round(time.time() - self.diary.started, 3),
                failures=len(self.diary.failures),
                kept=self._kept,
                short={name: count for name, count in short.items() if count > 0},
                error=without_secrets(one_line(error)) if error else None,
            )
        )
        self.diary.ended = True
        self.save()

    def started(self, settings: Settings) -> None:
        """Note what is built, by which versions of what."""
        self._event(
            events.BuildStarted(
                run=self._store.uri,
                settings=hashlib.sha256(to_json(settings)).hexdigest(),
                profile=settings.profile.name,
                runner=settings.profile.runner,
                categories=tuple(category.name for category in settings.categories),
                versions={
                    "python": platform.python_version(),
                    **{name: metadata.version(name) for name in PACKAGES},
                },
            )
        )

    def expect(self, stage: str, *, total: int, done: int) -> None:
        """Take ``total`` units more into account, of which ``done`` were committed before."""
        course = self._courses.setdefault(stage, _Course())
        course.total, course.done_before = course.total + total, course.done_before + done
        if course.bar is not None:
            self._bars.update(course.bar, total=course.total, completed=course.total - course.left)

    def begin(self, stage: str) -> None:
        """Show a stage whose first unit is about to be done; nothing if it is shown already."""
        course = self._courses[stage]
        if course.started is None:
            course.started = time.monotonic()
            completed = course.total - course.left
            course.bar = self._bars.add_task(stage, total=course.total, completed=completed, rate="")
            self._line(f"{stage}: {course.left} units to do, {course.done_before} done before")
            self._event(events.StageStarted(stage=stage, units=course.total, done=course.done_before))

    def end(self, stage: str) -> None:
        """Say what a stage came to whose units are all done or given up; expected again, it begins anew."""
        course = self._courses.pop(stage)
        took = time.monotonic() - (course.started or time.monotonic())
        done = course.done_before + course.done
        self._line(f"{stage}: {done} of {course.total} units done, {course.rows} rows in {took:.1f} s")
        self._event(
            events.StageEnded(
                stage=stage, units=course.total, done=done, rows=course.rows, seconds=round(took, 3)
            )
        )
        self._meter.record(metrics.UNITS_LEFT, 0, stage=stage)

    def advance(self, outcome: Outcome) -> None:
        """Count one unit."""
        unit, done = outcome.task.unit, outcome.done
        course = self._courses[unit.stage]
        if done.cause is None:
            speed = self.diary.lanes.setdefault(f"{unit.stage}/{unit.lane}", Speed())
            speed.units, speed.rows = speed.units + 1, speed.rows + done.rows
            speed.seconds += done.seconds
            course.done, course.rows = course.done + 1, course.rows + done.rows
        else:
            self.failed(unit, done.cause)
        if course.bar is not None:
            completed = course.done_before + course.done
            self._bars.update(course.bar, completed=completed, rate=_rate(course))
        self._meter.advance(outcome)
        self._meter.record(metrics.UNITS_LEFT, course.left, stage=unit.stage)
        self._now_and_then()

    def retried(self, task: Task, done: Done) -> None:
        """Note a task that failed and waits for another attempt."""
        cause = without_secrets(done.cause or "")
        self._event(events.UnitRetried(unit=task.unit.key, attempt=task.attempt, cause=cause))
        self._meter.retried(task, done.seconds)

    def counted(self, category: str, *, kept: int, quota: int) -> None:
        """Note how many pairs of a category are kept by now, of those wanted."""
        if self._kept.get(category, 0) < quota <= kept:
            self._event(events.QuotaReached(category=category, kept=kept, quota=quota))
        self._kept[category], self._quotas[category] = kept, quota
        self._meter.record(metrics.KEPT, kept, category=category)
        self._meter.record(metrics.QUOTA, quota, category=category)

    def staffed(self, staff: Mapping[str, int], *, idle: int) -> None:
        """Note how many workers have each stage open, by its folder, and how many have no task."""
        by_stage = Counter(dict.fromkeys(self._staff, 0))
        for folder, count in staff.items():
            by_stage[folder.partition("/")[0]] += count
        self._staff = by_stage
        for stage, count in by_stage.items():
            self._meter.record(metrics.WORKERS, count, stage=stage)
        self._meter.record(metrics.IDLE, idle)

    def shipped(self, manifest: Manifest, held_back: Sequence[str]) -> None:
        """Note what the manifest names, and which categories are not in it for their failures."""
        for category in held_back:
            self._event(events.CategoryHeldBack(category=category))
        pairs, sizes = Counter[str](), Counter[str]()
        shards = Counter(shard.category for shard in manifest.shards)
        for shard in manifest.shards:
            pairs[shard.category] += shard.pairs
            sizes[shard.category] += shard.bytes
        for name, count in shards.items():
            self._event(
                events.ShardsWritten(category=name, shards=count, pairs=pairs[name], bytes=sizes[name])
            )

    def failed(self, unit: Unit, cause: str) -> None:
        """Show and note a unit that failed for good."""
        cause = without_secrets(cause)
        self.diary.failures.append(Failure(unit=unit.key, cause=cause))
        self._event(events.UnitFailed(unit=unit.key, cause=cause))
        if self._lines is None:
            self.console.print(f"failed: {unit.key}: {cause}", style="red", markup=False)

    def save(self) -> None:
        """Write the diary."""
        self.diary.updated, self._last_save = time.time(), time.monotonic()
        self._store.replace(self._key, json.dumps(asdict(self.diary), sort_keys=True).encode())

    def _now_and_then(self) -> None:
        now = time.monotonic()
        if now - self._last_line > LINE_EVERY:
            for stage, course in self._courses.items():
                if course.started is not None and course.left:
                    self._progress(stage, course, now - course.started)
            self._last_line = now
        if now - self._last_save > SAVE_EVERY:
            self.save()

    def _progress(self, stage: str, course: _Course, took: float) -> None:
        left = course.left * took / max(1, course.done)
        done = course.total - course.left
        self._line(f"{stage}: {done}/{course.total} units, {_rate(course)}, about {left:.0f} s left")
        self._event(
            events.StageProgress(
                stage=stage,
                units=course.total,
                done=done,
                rows=course.rows,
                seconds=round(took, 3),
                seconds_left=round(left, 3),
            )
        )

    def _line(self, text: str) -> None:
        if self._lines is None and not self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False)

    def _event(self, event: Event) -> None:
        if self._lines is not None:
            self._lines.write(event)


def _rate(course: _Course) -> str:
    took = time.monotonic() - (course.started or 0.0)
    return f"{course.rows / max(1e-9, took):.1f} rows/s"


def read_diaries(store: Store) -> Iterator[Diary]:
    """Yield the diaries of all drivers that ever worked on the run."""
    for entry in store.list(FOLDER):
        yield read_diary(entry.key, store)


def read_diary(key: str, store: Store) -> Diary:
    """Return the diary of one driver."""
    given: dict[str, Any] = json.loads(store.get(key))
    return Diary(
        started=given["started"],
        updated=given["updated"],
        lanes={lane: Speed(**speed) for lane, speed in given["lanes"].items()},
        failures=[Failure(**failure) for failure in given["failures"]],
        ended=given.get("ended", False),
    )
