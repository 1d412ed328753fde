"""Which media a server has already, so that they need not be sent, decoded and prepared again.

vLLM keeps what it has prepared by ``uuid``, and takes a medium that is named but not sent. A medium is asked
about several times, in both orders and against every rival; to decode and prepare it is most of what a
request costs outside the GPU.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

HELD = 128
"""Media that a server is believed to hold: 25 MB each at 1024 x 1024 px, and vLLM's cache has 4 GiB."""

MISSES = 4
"""Wrong beliefs in a row after which a server is taken to hold nothing: its cache is off or shared out."""


class Uploads:
    """What one server holds. ``holds`` says whether it is of a kind that holds anything."""

    def __init__(self) -> None:
        self.holds = False
        self._held: OrderedDict[str, None] = OrderedDict()
        self._sending: dict[str, asyncio.Future[None]] = {}
        self._misses = 0

    def held(self, media: frozenset[str]) -> frozenset[str]:
        """Return those of ``media`` that need only be named."""
        return media & self._held.keys() if self.holds else frozenset()

    def answered(self, media: frozenset[str], named: frozenset[str]) -> None:
        """Note that the server answered about ``media`` of which some were only ``named``."""
        self._misses = 0 if named else self._misses
        for sha256 in media:
            self._held[sha256] = None
            self._held.move_to_end(sha256)
        while len(self._held) > HELD:
            self._held.popitem(last=False)

    def missed(self) -> None:
        """Note that it refused what was only named."""
        self._misses += 1
        self.holds = self.holds and self._misses < MISSES
        self.lost()

    def lost(self) -> None:
        """Note that it may have been started anew."""
        self._held.clear()

    @asynccontextmanager
    async def turn(self, media: frozenset[str]) -> AsyncIterator[None]:
        """Wait while another request is the first to bring one of ``media``."""
        while self.holds and (others := [self._sending[each] for each in media if each in self._sending]):
            await asyncio.wait(others)
        first = media - self._held.keys() if self.holds else frozenset()
        done = asyncio.get_running_loop().create_future()
        self._sending |= dict.fromkeys(first, done)
        try:
            yield
        finally:
            for each in first:
                del self._sending[each]
            done.set_result(None)
