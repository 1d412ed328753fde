"""Workers as processes of this machine."""

from __future__ import annotations

import multiprocessing
import signal
from dataclasses import dataclass
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
        worker = next((worker for worker in self._workers if worker.task is None), None)
        if worker is None:
            if len(self._workers) == self._count:
                return False
            worker = self._spawn()
        try:
            worker.channel.send((task.stage, task.unit))
        except OSError:  # it died while idle: wait() will bury it
            self._bury(worker)
            return False
        worker.task = task
        return True

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

    def _spawn(self) -> _Worker:
        here, there = CONTEXT.Pipe()
        process = CONTEXT.Process(target=_serve, args=(there, self._uri), daemon=True)
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


def _serve(channel: Connection, uri: str) -> None:
    """Do units until the driver closes the channel; if it was killed, the unit in hand is still committed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the driver ends us
    bench = Bench(uri)
    while True:
        try:
            stage, unit = channel.recv()
        except EOFError:
            return
        done = bench.do(stage, unit)
        try:
            channel.send(done)
        except OSError:
            return
