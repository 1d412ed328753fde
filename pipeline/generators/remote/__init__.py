"""Generators that others run: a paid service is asked, waited for, and paid once for each request.

Refused unless a profile opts in twice (``permit``): what such services make carries their terms, and costs.

One thread an item, so that ``spec.batch`` operations are in flight at once in each worker: submit, note,
look up until it is done, fetch. Results leave in the order of the requests, still encoded while they wait
for their turn; a video of 8 s is half a gigabyte once decoded.

A request that was submitted before is never submitted again: its operation is looked up, and its result
fetched anew. Between a submission and its note lies a window of about one answer's time in which a worker
can die, or the answer be lost. An intent without an operation is what remains of it: where the service can
tell which of its operations that was (ModelArk, by seed), it is taken up; where it cannot (Gemini API), the
item becomes a row that says it may have been paid. So do a result that has expired, and an operation that
is not done at its deadline. None is bought a second time.

What is about one item becomes its ItemError. What is about the account or the service at large (wrong key,
no rights, quota used up, no answer after all attempts) is a WorkerError: the unit is not committed, and the
next run takes up all that was bought.
"""

from __future__ import annotations

import random
import re
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipeline.config import Profile
from pipeline.errors import ConfigError, CorruptError, ItemError, MediaError, StorageError, WorkerError
from pipeline.generators.base import GeneratorSpec, Rendered, Request
from pipeline.generators.remote.ark import Ark
from pipeline.generators.remote.dialect import Answer, Dialect, checked
from pipeline.generators.remote.gemini import Gemini
from pipeline.generators.remote.notes import Note, Notes, cap, price
from pipeline.generators.remote.wire import AnswerLostError, NotAcceptedError, Pace, Wire
from pipeline.storage import Store

DIALECTS: dict[str, type[Dialect]] = {"gemini": Gemini, "ark": Ark}
"""What ``spec.options["service"]`` can be."""

GONE = (403, 404, 410)
"""How a signed address, or a file that is kept for days only, says that its time is over."""

GROWTH = 1.5
"""From one look-up of an operation to the next."""

WAITING = 2
"""Finished items that may wait for an unfinished one before them, as a multiple of those in flight."""

OPERATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-/]{0,299}")
"""Names of operations become paths; nothing in them may lead elsewhere."""


def permit(spec: GeneratorSpec, profile: Profile) -> None:
    """Refuse a paid service that the profile does not ask for twice: by licence and by money.

    Raises ConfigError.
    """
    if spec.family != "remote":
        return
    if profile.licence_profile != "research":
        raise ConfigError(
            f"profile {profile.name}: {spec.name} is a service under terms of its own: set licence_profile = "
            '"research", or take it out of the category'
        )
    if cap(profile.budget) < price(spec):
        raise ConfigError(
            f"profile {profile.name}: budget = {profile.budget:g} US dollars does not pay for one item of "
            f"{spec.name} at {spec.dollars:g}: raise it, or take the generator out of the category"
        )


class RemoteGenerator:
    """One row of a service; ``budget`` is the run's, in US dollars (0: only what is bought already)."""

    def __init__(self, spec: GeneratorSpec, budget: float, pace: Pace | None = None) -> None:
        self._spec, self._budget, self._pace = spec, budget, pace or Pace()
        self._dialect = DIALECTS[str(spec.options["service"])]()

    def open(self, store: Store) -> None:
        """Find key and notes. Raises WorkerError if the environment has no key."""
        self._wire = Wire(self._dialect, self._pace)
        self._notes = Notes(store, self._spec, self._budget)

    def generate(self, requests: Iterable[Request]) -> Iterator[Rendered | ItemError]:
        """Yield a video for each request, in order, or why there is none."""
        self._wire.stop.clear()
        threads = ThreadPoolExecutor(self._spec.batch)
        waiting: deque[tuple[Request, Future[bytes]]] = deque()
        try:
            for request in requests:
                waiting.append((request, threads.submit(self._video, request)))
                if len(waiting) >= WAITING * self._spec.batch:
                    yield self._rendered(*waiting.popleft())
            while waiting:
                yield self._rendered(*waiting.popleft())
        finally:
            # A submission in the air is waited for, since it must be noted; all else ends at once.
            self._wire.stop.set()
            threads.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Close all connections."""
        self._wire.close()

    def _rendered(self, request: Request, video: Future[bytes]) -> Rendered | ItemError:
        try:
            return Rendered(frames=checked(video.result(), request.size))
        except ItemError as error:
            return error
        except (WorkerError, StorageError, CorruptError, MemoryError):
            raise
        except MediaError as error:
            return ItemError(f"what the service made is no video: {error}")
        except Exception as error:  # noqa: BLE001 whatever one item breaks is that item's error
            return ItemError(self._wire.clean(f"{type(error).__name__}: {error}"))

    def _video(self, request: Request) -> bytes:
        """Buy a video, or find what was bought; return it as the service encoded it."""
        note = self._notes.find(request.id)
        if note and note.operation is None:
            note = self._from_another(request, note.since)
        if note is None:
            note = self._submit(request)
        try:
            return self._fetch(str(note.operation), note.since)
        except ItemError as error:
            raise ItemError(self._wire.clean(str(error))) from error

    def _submit(self, request: Request) -> Note:
        path, body = self._dialect.order(self._spec, request)
        for attempt in range(self._pace.attempts):
            self._wire.queue()
            since = time.time()
            try:
                free = self._notes.reserve(request.id)
                note = self._order(request, path, body) if free else self._from_another(request, since)
            except NotAcceptedError as error:
                self._wire.rest(attempt, str(error), error.wait)
            else:
                if note:
                    return note
                self._wire.rest(attempt, "another worker submits it, and is refused")
        raise AssertionError("rest() raises after the last attempt")

    def _order(self, request: Request, path: str, body: Mapping[str, Any]) -> Note:
        """Submit once what is reserved; the intent goes only if the service surely did not accept it."""
        since = time.time()
        try:
            answer = self._wire.post(path, body)
        except AnswerLostError:
            return self._lost(request, since)
        except NotAcceptedError:
            self._notes.release(request.id)
            raise
        if answer.status >= 300:
            self._notes.release(request.id)
            raise self._refusal(answer)
        return self._noted(request, self._dialect.operation(answer.json), since) or self._lost(request, since)

    def _from_another(self, request: Request, since: float) -> Note | None:
        """Wait for the worker that may be submitting; None if it took its intent back."""
        until = min(since, time.time()) + self._pace.window
        while time.time() < until:
            self._wire.wait(min(1.0, self._pace.poll))
            note = self._notes.find(request.id)
            if note is None or note.operation:
                return note
        return self._lost(request, since)

    def _lost(self, request: Request, since: float) -> Note:
        """Find the operation of an intent whose worker or answer is gone. Raises ItemError."""
        self._wire.wait(self._pace.poll)  # a new operation may not be listed at once
        note = self._noted(request, self._dialect.find(self._json, self._spec, request, since), since)
        if note is None:
            raise ItemError(
                f"it may have been paid: its submission was cut off, and {self._dialect.name} does not say "
                "what became of it; it is not bought again"
            )
        return note

    def _noted(self, request: Request, operation: str | None, since: float) -> Note | None:
        if operation is None or not OPERATION.fullmatch(operation) or ".." in operation:
            return None
        try:
            self._notes.bought(request.id, operation, since)
        except StorageError as error:
            raise StorageError(f"{operation} is paid for and could not be noted: {error}") from error
        return Note(since=since, operation=operation)

    def _refusal(self, answer: Answer) -> ItemError | WorkerError:
        said = self._wire.said(answer)
        if answer.status < 400 or self._dialect.unfit(answer):
            return WorkerError(
                f"{self._dialect.name}: {said}: check {self._dialect.variable}_API_KEY and what its account "
                "may do, then run the same command"
            )
        return ItemError(f"{self._dialect.name} refuses it: {said}")

    def _json(self, path: str) -> Any:
        answer = self._wire.get(path)
        if answer.status >= 300:
            raise self._refusal(answer)
        return answer.json

    def _fetch(self, operation: str, since: float) -> bytes:
        for _ in range(2):  # the second time with the address of a new look-up
            answer = self._wire.get(self._finished(operation, since))
            if answer.status < 300:
                return answer.body
            if answer.status not in GONE:
                raise self._refusal(answer)
        raise ItemError(f"its video can no longer be fetched ({answer.status}); it is not bought again")

    def _finished(self, operation: str, since: float) -> str:
        """Look an operation up until it is done; return the address of its video."""
        pause = self._pace.poll
        while True:
            answer = self._wire.get(self._dialect.path(operation))
            if answer.status == 404 and time.time() > since + self._pace.window:
                raise ItemError("the service no longer knows the operation; it is not bought again")
            if answer.status >= 300 and answer.status != 404:
                raise self._refusal(answer)
            address = self._dialect.result(answer.json)
            if address:
                return address
            if time.time() > since + self._pace.deadline:
                limit = f"{self._pace.deadline:.0f} s after it was submitted"
                raise ItemError(f"the operation is not done {limit}; it may have been paid")
            self._wire.wait(pause * random.uniform(0.75, 1.25))  # noqa: S311
            pause = min(self._pace.slowest, pause * GROWTH)
