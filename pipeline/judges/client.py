"""A client of one served model: many requests under way at a time, their results in order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Thread
from typing import Any, TypeVar

from pipeline.errors import WorkerError
from pipeline.judges.sites import Limits
from pipeline.judges.transport import Body, Transport

DECODERS = 2
"""Videos decoded at a time: each fills memory with all its frames."""

UNOPENED = "judge was asked before open(): call open() once in the worker"
T = TypeVar("T")


class Client:
    """Asks for ``model`` at ``urls``; coroutines run in an event loop of a thread of its own."""

    def __init__(self, model: str, urls: Sequence[str], limits: Limits | None = None) -> None:
        self._model, self._urls, self._limits = model, tuple(urls), limits or Limits()
        self._window = 4 * self._limits.in_flight * len(urls)  # one that waits must not make all wait
        self._loop = _Loop()
        self._transport: Transport | None = None

    def open(self) -> None:
        """Wait until a server is there and check what it serves.

        Raises WorkerError if there is none or a wrong one, ConfigError for what is no url or no key.
        """
        self._loop.start()
        try:
            self._transport = Transport(self._urls, self._limits)
            self._loop.submit(self._transport.open(self._model)).result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop what is in flight and close the connections."""
        self._loop.stop(self._transport.close() if self._transport else None)
        self._transport = None

    def ordered(self, work: Iterable[Coroutine[Any, Any, T]]) -> Iterator[T]:
        """Yield the result of each, in order, while later ones are under way already."""
        pending: deque[Future[T]] = deque()
        try:
            for each in work:
                pending.append(self._loop.submit(each))
                while len(pending) >= self._window or (pending and pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()

    async def post(self, body: Body, media: frozenset[str], near: str) -> Any:
        """Return the reply to a chat completion, as ``Transport.post``."""
        if self._transport is None:
            raise WorkerError(UNOPENED)
        return await self._transport.post(body, media, near)


class _Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(DECODERS))
        self._thread = Thread(target=self._loop.run_forever, name="judge", daemon=True)
        self._thread.start()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        if self._loop is None:
            work.close()
            raise WorkerError(UNOPENED)
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def stop(self, last: Coroutine[Any, Any, None] | None) -> None:
        """Cancel every task, run ``last``, and end the thread."""
        if self._loop is None or self._thread is None:
            return
        self.submit(_ended(last)).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None


async def _ended(last: Coroutine[Any, Any, None] | None) -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    if last is not None:
        await last
    await asyncio.get_running_loop().shutdown_default_executor()
