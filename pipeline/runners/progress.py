"""What a build shows while it runs, and what it remembers of its speed."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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

from pipeline.runners.base import Outcome
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


class Display:
    """Shows live bars on a terminal and plain lines elsewhere; saves the diary now and then."""

    def __init__(self, store: Store, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.diary = Diary()
        self._store = store
        self._key = f"{FOLDER}{uuid.uuid4().hex}.json"
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._stage, self._total, self._done, self._rows = "", 0, 0, 0
        self._stage_started = self._last_line = self._last_save = time.monotonic()

    def __enter__(self) -> Self:
        self.save()
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        self.diary.ended = True
        self.save()

    @contextmanager
    def stage(self, name: str, *, total: int, done: int) -> Iterator[None]:
        """Show one stage with ``done`` of ``total`` units committed before it began."""
        self._stage, self._total, self._done, self._rows = name, total, done, 0
        self._stage_started = self._last_line = time.monotonic()
        self._bar = self._bars.add_task(name, total=total, completed=done, rate="")
        self._line(f"{name}: {total - done} units to do, {done} done before")
        yield
        took = time.monotonic() - self._stage_started
        self._line(f"{name}: {self._done} of {total} units done, {self._rows} rows in {took:.1f} s")

    def advance(self, outcome: Outcome) -> None:
        """Count one unit."""
        unit, done = outcome.task.unit, outcome.done
        if done.cause is None:
            speed = self.diary.lanes.setdefault(f"{unit.stage}/{unit.lane}", Speed())
            speed.units, speed.rows = speed.units + 1, speed.rows + done.rows
            speed.seconds += done.seconds
            self._done, self._rows = self._done + 1, self._rows + done.rows
        else:
            self.failed(unit, done.cause)
        rate = f"{self._rows / max(1e-9, time.monotonic() - self._stage_started):.1f} rows/s"
        if self._bar is not None:
            self._bars.update(self._bar, completed=self._done, rate=rate)
        self._now_and_then(rate)

    def failed(self, unit: Unit, cause: str) -> None:
        """Show and note a unit that failed for good."""
        self.diary.failures.append(Failure(unit=unit.key, cause=cause))
        self.console.print(f"failed: {unit.key}: {cause}", style="red", markup=False)

    def save(self) -> None:
        """Write the diary."""
        self.diary.updated, self._last_save = time.time(), time.monotonic()
        self._store.replace(self._key, json.dumps(asdict(self.diary), sort_keys=True).encode())

    def _now_and_then(self, rate: str) -> None:
        now = time.monotonic()
        if now - self._last_line > LINE_EVERY:
            left = (self._total - self._done) * (now - self._stage_started) / max(1, self._done)
            self._line(f"{self._stage}: {self._done}/{self._total} units, {rate}, about {left:.0f} s left")
            self._last_line = now
        if now - self._last_save > SAVE_EVERY:
            self.save()

    def _line(self, text: str) -> None:
        if not self.console.is_terminal:
            self.console.print(text, markup=False, highlight=False)


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
