"""Workers as processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from pipeline.runners.base import Bench, Done, Task

CONTEXT = multiprocessing.get_context("spawn")
"""A fresh interpreter each: forking a process that has threads (rich, boto3) can deadlock."""


@dataclass(slots=True, kw_only=True)
class _Worker:
    process: BaseProcess
    channel: Connection
    task: Task | None = None


class LocalWorkers:
    """Up to ``count`` processes, started when there is work; one that dies is replaced."""

    def __init__(self, uri: str, count: int) -> None:
        self._uri, self._count = uri, count
        self._workers: list[_Worker] = []

    def start(self, task: Task) -> bool:
        """Give ``task`` to a free process; False if none is free now."""
        while worker := self._free():
            try:
                worker.channel.send((task.stage, task.unit))
            except OSError:  # it died while idle
                self._bury(worker)
            else:
                worker.task = task
                return True
        return False

    def wait(self) -> list[tuple[Task, Done]]:
        """Wait until a process answers or dies."""
        busy = {worker.channel: worker for worker in self._workers if worker.task}
        ended: list[tuple[Task, Done]] = []
        for channel in wait(list(busy)):
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

    def _free(self) -> _Worker | None:
        idle = next((worker for worker in self._workers if worker.task is None), None)
        return idle or (self._spawn() if len(self._workers) < self._count else None)

    def _spawn(self) -> _Worker:
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_serve, args=(there, self._uri), daemon=True)
        with _ctrl_c_blocked():
            process.start()
        there.close()
        worker = _Worker(process=process, channel=here)
        self._workers.append(worker)
        return worker

    def _answer(self, worker: _Worker) -> Done:
        try:
            answer: Done = worker.channel.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return Done(cause=f"worker process died (exit code {worker.process.exitcode})")
        return answer

    def _bury(self, worker: _Worker) -> None:
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
    while True:
        try:
            stage, unit = channel.recv()
        except (EOFError, OSError):
            return
        done = bench.do(stage, unit)
        try:
            channel.send(done)
        except OSError:
            return
