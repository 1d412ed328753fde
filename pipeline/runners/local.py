"""Workers as processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pipeline.runners.base import Bench, Done, Need, Task, Worker
from pipeline.stages import Resources, Stage

CONTEXT = multiprocessing.get_context("spawn")
"""A fresh interpreter each: forking a process that has threads (rich, boto3) can deadlock."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Process(Worker):
    process: BaseProcess
    channel: Connection


class LocalWorkers:
    """Up to ``count`` processes, started when there is work; one that dies is replaced."""

    def __init__(self, uri: str, count: int) -> None:
        self._uri, self._count = uri, count
        self._workers: list[_Process] = []

    def hire(self, needs: Mapping[Resources, Need]) -> None:
        """Start as many processes as there are tasks left."""
        wanted = sum(need.tasks for need in needs.values())
        while len(self._workers) < min(self._count, wanted):
            self._spawn()

    def idle(self) -> Sequence[Worker]:
        """Return the processes that have no task."""
        return [worker for worker in self._workers if worker.task is None]

    def staff(self) -> Mapping[str, int]:
        """Return how many processes have each stage open, by its folder."""
        return Counter(worker.open for worker in self._workers)

    def start(self, worker: Worker, task: Task) -> bool:
        """Give ``task`` to an idle process; False if it has died by now."""
        if not isinstance(worker, _Process):
            raise TypeError(f"{worker}: not a process of this runner")
        stage = None if worker.stages.get(task.stage.folder) is task.stage else task.stage
        try:
            worker.channel.send((task.stage.folder, stage, task.unit))
        except OSError:
            self._bury(worker)
            return False
        worker.task, worker.open = task, task.stage.folder
        worker.stages[worker.open] = task.stage
        return True

    def wait(self) -> list[tuple[Task, Done]]:
        """Wait until a process answers or dies."""
        busy = {worker.channel: worker for worker in self._workers if worker.task}
        ended: list[tuple[Task, Done]] = []
        for channel in wait(list(busy)) if busy else ():  # none: the last one died before its task began
            worker = busy[channel]  # type: ignore[index]
            task, worker.task = worker.task, None
            if task:
                ended.append((task, self._answer(worker)))
        return ended

    def close(self) -> None:
        """End every process; one in the middle of a unit drops it, the next build does it again."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.channel.close()
        self._workers.clear()

    def _spawn(self) -> None:
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_serve, args=(there, self._uri), daemon=True)
        with _ctrl_c_blocked():
            process.start()
        there.close()
        self._workers.append(_Process(process=process, channel=here))

    def _answer(self, worker: _Process) -> Done:
        try:
            answer: Done = worker.channel.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return Done(cause=f"worker process died (exit code {worker.process.exitcode})")
        return answer

    def _bury(self, worker: _Process) -> None:
        self._workers.remove(worker)
        worker.process.kill()
        worker.process.join()
        worker.channel.close()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """A process started here never gets SIGINT: Ctrl-C reaches the whole group, the driver ends the rest."""
    resource_tracker.ensure_running()  # starting it later would unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(channel: Connection, uri: str) -> None:
    """Do units until the driver closes the channel; if it was killed, the unit in hand is still committed."""
    bench = Bench(uri)
    stages: dict[str, Stage] = {}
    while True:
        try:
            folder, stage, unit = channel.recv()
        except (EOFError, OSError):
            return
        if stage is not None:
            stages[folder] = stage
        done = bench.do(stages[folder], unit)
        try:
            channel.send(done)
        except OSError:
            return
