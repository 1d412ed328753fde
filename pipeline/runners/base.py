"""Units to workers: what a worker does with one, and who tries again when it fails."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.errors import WorkerError
from pipeline.runners.metrics import counts
from pipeline.stages import Resources, Stage, Unit, commit
from pipeline.storage import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A unit with the stage that does it; ``attempt`` counts from 1."""

    stage: Stage
    unit: Unit
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a unit: ``rows`` committed in ``seconds``, or the ``cause`` of its failure.

    ``counts`` says of the rows what ``metrics.counts`` does.
    """

    rows: int = 0
    seconds: float = 0.0
    cause: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A task that will not be tried again: done, or failed on every attempt."""

    task: Task
    done: Done


@dataclass(slots=True, kw_only=True, eq=False)
class Worker:
    """A process or an actor: the task in hand, and the folder of the stage that it was last given.

    ``resources`` None: it does tasks of any. ``stages`` are those that it was sent, by their folders.
    """

    resources: Resources | None = None
    task: Task | None = None
    open: str = ""
    stages: dict[str, Stage] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Need:
    """What is left to do for workers of one kind: tasks, and the worker-seconds that they will take."""

    tasks: int = 0
    seconds: float = 0.0


class Workers(Protocol):
    """Processes or actors that do one task at a time each."""

    def hire(self, needs: Mapping[Resources, Need]) -> None:
        """Have as many workers of each kind as there is work for, within what the machines have."""

    def idle(self) -> Sequence[Worker]:
        """Return the workers that could start a task now."""

    def staff(self) -> Mapping[str, int]:
        """Return how many workers have each stage open, by its folder."""

    def start(self, worker: Worker, task: Task) -> bool:
        """Give ``task`` to an idle worker; False if it has died by now."""

    def wait(self) -> list[tuple[Task, Done]]:
        """Wait until a task ends or a worker comes or goes; return the tasks that ended, maybe none."""

    def close(self) -> None:
        """End every worker."""


class Bench:
    """A worker's place of work: the store, and the one stage that it has open."""

    def __init__(self, uri: str) -> None:
        self.store: Store = open_store(uri)
        self._open: Stage | None = None

    def do(self, stage: Stage, unit: Unit) -> Done:
        """Process and commit a unit; a part that is there already counts as done."""
        started = time.monotonic()
        if self.store.size(unit.key) is not None:
            return Done()
        try:
            table = self._opened(stage).process(unit, self.store)
            commit(unit, table, self.store)
        except Exception as error:  # noqa: BLE001 the driver decides whether to try again
            if isinstance(error, WorkerError):  # what is unfit (a server given up) is opened anew
                self._close()
            return Done(seconds=time.monotonic() - started, cause=one_line(error))
        took = time.monotonic() - started
        return Done(rows=table.num_rows, seconds=took, counts=counts(table))

    def _opened(self, stage: Stage) -> Stage:
        """Keep a stage open between its units: weights are loaded once a worker, not once a unit."""
        current = self._open
        if current and (current.name, current.lane, current.fingerprint) == (
            stage.name,
            stage.lane,
            stage.fingerprint,
        ):
            return current
        self._close()
        stage.open(self.store)
        self._open = stage
        return stage

    def _close(self) -> None:
        current, self._open = self._open, None
        if current:
            current.close()


def one_line(error: BaseException) -> str:
    """Return an error as one line with its type."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
