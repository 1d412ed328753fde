"""Which server gets the next request: room at each, rest for those that fail, an end when all do."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

from pipeline.errors import WorkerError
from pipeline.judges.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How hard servers are pressed and how long they are waited for, in seconds. Answers stay the same.

    ``in_flight`` requests at a time go to each url, each with ``timeout``. ``opening`` is waited for the
    first url to be there. The worker gives up when no url has answered anything for ``patience``. A request
    that a server took ``attempts`` times and never answered is given up. A url that failed ``trip`` times in
    a row rests for ``rest``, doubled each time up to ``longest``; so does a request before its next try.
    """

    in_flight: int = 32
    timeout: float = 120.0
    opening: float = 30.0
    patience: float = 300.0
    attempts: int = 6
    trip: int = 3
    rest: float = 0.5
    longest: float = 15.0

    def pause(self, turn: int) -> float:
        """Return how long to wait the ``turn``-th time in a row, jittered: not all come back at once."""
        longest = min(self.longest, self.rest * 2.0 ** min(turn - 1, 30))
        return longest * random.uniform(0.5, 1)  # noqa: S311 no secret


@dataclass(slots=True)
class Site:
    """One url and how it is doing. After a rest one request at a time goes there until one is answered."""

    url: str
    in_flight: int = 0
    failures: int = 0
    rests: int = 0
    tripped_at: float = -math.inf
    rests_until: float = -math.inf
    uploads: Uploads = field(default_factory=Uploads)


class Sites:
    """The urls; used within one event loop."""

    def __init__(self, urls: Sequence[str], limits: Limits) -> None:
        self.all = [Site(url) for url in urls]
        self._limits = limits
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._failing_since: float | None = None
        self._lost: WorkerError | None = None

    def ranked(self, near: str) -> list[Site]:
        """Return the sites in the order in which requests of one ``near`` try them (rendezvous hashing)."""
        return sorted(self.all, key=lambda site: blake2b(f"{near} {site.url}".encode()).digest())

    async def place(self, ranked: Sequence[Site]) -> Site:
        """Wait for room and take it, at the first of ``ranked`` that has some.

        Raises WorkerError when no site has answered for too long.
        """
        while self._lost is None:
            now = time.monotonic()
            for site in ranked:
                if now >= site.rests_until and site.in_flight < (1 if site.rests else self._limits.in_flight):
                    site.in_flight += 1
                    return site
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                self._wake(1)  # the turn may have come just now
                raise
        raise self._lost

    def leave(self, site: Site) -> None:
        """Give a place back."""
        site.in_flight -= 1
        self._wake(1)

    def answered(self, site: Site) -> None:
        """Note an answer: whatever was wrong is over."""
        self._failing_since = None
        site.failures = 0
        if site.rests:
            site.rests = 0
            self._wake(self._limits.in_flight)

    def failed(self, site: Site, began: float, cause: str) -> None:
        """Note that a request which ``began`` then got no answer."""
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since > self._limits.patience:
            self._lost = WorkerError(
                f"no answer for {self._limits.patience:g} s, last {cause}: mend that server"
            )
            self._wake(len(self._waiting))
        if began < site.tripped_at:
            return  # sent before it was known to be ill: nothing new
        site.failures += 1
        site.uploads.lost()
        if site.rests or site.failures >= self._limits.trip:
            site.rests += 1
            site.tripped_at = now
            self.rest(site, self._limits.pause(site.rests))

    def excused(self) -> None:
        """Note that what failed is held against a request, not against the sites."""
        self._failing_since = None

    def rest(self, site: Site, seconds: float) -> None:
        """Send nothing to a site for so long."""
        until = time.monotonic() + min(seconds, self._limits.patience)
        site.rests_until = max(site.rests_until, until)
        loop = asyncio.get_running_loop()
        # A loop's clock may be a tick early, and nobody would wake those who wait once more.
        loop.call_at(site.rests_until + 0.001, self._wake, self._limits.in_flight)

    def _wake(self, most: int) -> None:
        while self._waiting and most > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                most -= 1
