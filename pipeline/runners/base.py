"""Units to workers: what a worker does with one, and who tries again when it fails."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.errors import WorkerError
from pipeline.stages import Stage, Unit, commit
from pipeline.storage import Store, open_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A unit with the stage that does it; ``attempt`` counts from 1."""

    stage: Stage
    unit: Unit
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of a unit: ``rows`` committed in ``seconds``, or the ``cause`` of its failure."""

    rows: int = 0
    seconds: float = 0.0
    cause: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A task that will not be tried again: done, or failed on every attempt."""

    task: Task
    done: Done


class Workers(Protocol):
    """Processes or actors that do one task at a time each."""

    def start(self, task: Task) -> bool:
        """Give ``task`` to a free worker; False if none is free now."""

    def wait(self) -> list[tuple[Task, Done]]:
        """Wait until a task ends or a worker comes or goes; return the tasks that ended, maybe none."""

    def close(self) -> None:
        """End every worker."""


def run(workers: Workers, tasks: Iterable[Task], *, attempts: int) -> Iterator[Outcome]:
    """Yield each task's outcome as it comes; a task that fails is tried again at the end of the queue."""
    queue, running = deque(tasks), 0
    while queue or running:
        while queue and workers.start(queue[0]):
            queue.popleft()
            running += 1
        for task, done in workers.wait():
            running -= 1
            if done.cause is not None and task.attempt < attempts:
                queue.append(replace(task, attempt=task.attempt + 1))
            else:
                yield Outcome(task=task, done=done)


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
        return Done(rows=table.num_rows, seconds=time.monotonic() - started)

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
