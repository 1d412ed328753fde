"""Requests to servers that speak the OpenAI protocol: tried again until they are answered or refused.

httpx2 rather than the ``openai`` client, which is built on it: that one copies, checks and serialises the
whole body, megabytes of base64 in it (tests/bench/client.py measures both), and its own retries know neither
of other servers nor of when to give up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.errors import ConfigError, ItemError, WorkerError
from pipeline.judges.sites import Limits, Site, Sites
from pipeline.judges.untrusted import printable

if TYPE_CHECKING:
    import httpx2

KEY = "VIPO_JUDGE_KEY"
"""The environment variable that holds the key of the servers; no message shows it."""

REFUSALS = (400, 413, 415, 422)
"""Of the codes below 500 these say that the request is at fault; most others that the server is."""

BUSY = (408, 425, 429, 502, 503, 504)
"""The server has no room or is not there behind its proxy, whatever the request."""

IDLE = 3.0
"""Seconds that a connection is kept unused; uvicorn, under vLLM, hangs up after 5."""

CONNECT = 10.0
"""Seconds in which a server must take a connection, and say what it serves."""

LONGEST_REASON = 300

Body = Callable[[frozenset[str]], bytes]
"""Makes the body of a request, with the media that need only be named."""


class _Fault(Exception):  # noqa: N818 it never leaves this module
    """The request got no answer, but another try may. It is ``taken`` if the server had it before that."""

    def __init__(self, cause: str, *, taken: bool, after: float | None = None) -> None:
        super().__init__(cause)
        self.taken, self.after = taken, after


class Transport:
    """The servers at ``urls``; used within one event loop. Raises ConfigError for no url or no key."""

    def __init__(self, urls: Sequence[str], limits: Limits) -> None:
        self._key = os.environ.get(KEY, "").strip()
        if not (self._key.isascii() and self._key.isprintable()):
            raise ConfigError(f"{KEY} holds characters that a key cannot have: set it again")
        self._limits = limits
        self._sites = Sites([_checked(url) for url in urls], limits)
        # One each: a client looks through all its connections at every request.
        self._http = {site.url: _client(self._key, limits.in_flight) for site in self._sites.all}

    async def open(self, model: str) -> None:
        """Wait until a url is there; check that every one that is serves ``model``. Raises WorkerError."""
        until = time.monotonic() + self._limits.opening
        for turn in count(1):
            found = await asyncio.gather(*(self._trouble(site, model) for site in self._sites.all))
            if None in found:
                return
            left = until - time.monotonic()
            if left <= 0:
                raise WorkerError(
                    f"{found[0]}, for {self._limits.opening:g} s: start a server of {model} there, "
                    "or mend the url in the profile's endpoints"
                )
            await asyncio.sleep(min(left, self._limits.pause(turn)))

    async def close(self) -> None:
        """Close every connection."""
        for client in self._http.values():
            await client.aclose()

    async def post(self, body: Body, media: frozenset[str], near: str) -> Any:
        """Return the reply to a chat completion about ``media``; ``body`` is made when its turn has come.

        Requests of one ``near`` go to one url while it has room: its caches hold their media.
        Raises ItemError if this request cannot be answered, WorkerError if none can.
        """
        ranked, failures = self._sites.ranked(near), 0
        async with ranked[0].uploads.turn(media):
            for turn in count(1):
                try:
                    return await self._once(ranked, body, media)
                except _Fault as caught:
                    fault = caught
                failures += fault.taken
                if failures >= self._limits.attempts:
                    self._sites.excused()
                    raise ItemError(f"failed {failures} times: {fault}")
                if fault.after is None:
                    await asyncio.sleep(self._limits.pause(turn))
                ranked.append(ranked.pop(0))
        raise AssertionError  # count() has no end

    async def _once(self, ranked: Sequence[Site], body: Body, media: frozenset[str]) -> Any:
        """Send to the first site with room, and note what came of it."""
        site = await self._sites.place(ranked)
        began = time.monotonic()
        try:
            reply = await self._answer(site, body, media)
        except _Fault as fault:
            self._sites.failed(site, began, str(fault))
            if fault.after is not None:
                self._sites.rest(site, fault.after)
            raise
        except ItemError:  # it works, and says no
            self._sites.answered(site)
            raise
        else:
            self._sites.answered(site)
            return reply
        finally:
            self._sites.leave(site)

    async def _answer(self, site: Site, body: Body, media: frozenset[str]) -> Any:
        """Send, without the media that the server holds; if it refuses that, with all of them."""
        named = site.uploads.held(media)
        try:
            reply = await self._send(site, body(named))
        except ItemError:
            if not named:
                raise
            site.uploads.missed()
            named = frozenset()
            reply = await self._send(site, body(named))
        site.uploads.answered(media, named)
        return reply

    async def _send(self, site: Site, body: bytes) -> Any:
        response = await self._http_call(site, "chat/completions", body, seconds=self._limits.timeout)
        match response.status_code:
            case 200:
                return self._json(site, response)
            case code if code in REFUSALS:
                raise ItemError(f"refused: {self._reason(response)}")
            case code if code in BUSY or code >= 500:
                raise _Fault(
                    f"{_shown(site.url)}: HTTP {code}, {self._reason(response)}",
                    taken=code not in BUSY,
                    after=_after(response),
                )
        raise self._wrong(site, response)

    async def _http_call(
        self, site: Site, path: str, body: bytes | None = None, *, seconds: float
    ) -> httpx2.Response:
        """Send; whatever the network does is a fault."""
        import httpx2

        method = "GET" if body is None else "POST"
        try:
            async with asyncio.timeout(seconds):
                return await self._http[site.url].request(method, f"{site.url}/{path}", content=body)
        except TimeoutError:
            cause = f"{_shown(site.url)}: no answer within {seconds:g} s"
            raise _Fault(cause, taken=True) from None
        except httpx2.HTTPError as error:
            cause = f"{_shown(site.url)}: {_root(error)}"
            unsent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
            raise _Fault(cause, taken=not unsent) from error

    async def _trouble(self, site: Site, model: str) -> str | None:
        """Return why a site is not to be reached, or None. Raises WorkerError if it serves something else."""
        try:
            response = await self._http_call(site, "models", seconds=CONNECT)
            if response.status_code in BUSY or response.status_code >= 500:
                return f"{_shown(site.url)}: HTTP {response.status_code}, {self._reason(response)}"
            if response.status_code != 200:
                raise self._wrong(site, response)
            rows = {str(row["id"]): row for row in self._json(site, response)["data"]}
        except _Fault as fault:
            return str(fault)
        except (LookupError, TypeError, AttributeError):
            raise WorkerError(f"{_shown(site.url)} lists no models: such a url ends in /v1") from None
        if model not in rows:
            raise WorkerError(
                f"{_shown(site.url)} serves {printable(', '.join(rows))[:200]}, not {model}: mend the url in "
                f"the profile's endpoints, or start vLLM with --served-model-name {model}"
            )
        site.uploads.holds = rows[model].get("owned_by") == "vllm"
        return None

    def _wrong(self, site: Site, response: httpx2.Response) -> WorkerError:
        """Return what is wrong with a server that no other request will change."""
        code = response.status_code
        remedy = f"set {KEY}" if code in (401, 403) else "such a url ends in /v1 and serves the judge's model"
        return WorkerError(f"{_shown(site.url)}: HTTP {code}, {self._reason(response)}: {remedy}")

    def _reason(self, response: httpx2.Response) -> str:
        """Return what a server says in one line: the message of an error, else the text."""
        text = self._text(response)
        with contextlib.suppress(ValueError, RecursionError):
            text = _message(json.loads(text))
        return printable(text)[:LONGEST_REASON] or "no reason given"

    def _json(self, site: Site, response: httpx2.Response) -> Any:
        try:
            return json.loads(self._text(response))
        except (ValueError, RecursionError):
            cause = f"{_shown(site.url)}: the reply is cut off or no JSON"
            raise _Fault(cause, taken=True) from None

    def _text(self, response: httpx2.Response) -> str:
        """Return the body without the key, which some servers repeat."""
        text = response.content.decode(errors="replace")
        return text.replace(self._key, "***") if self._key else text


def _client(key: str, most: int) -> httpx2.AsyncClient:
    import httpx2

    headers = {"content-type": "application/json", "user-agent": "vipo"}
    return httpx2.AsyncClient(
        headers=headers | ({"authorization": f"Bearer {key}"} if key else {}),
        timeout=httpx2.Timeout(None, connect=CONNECT),  # the whole request has its own
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=most, keepalive_expiry=IDLE),
        mounts={"all://127.0.0.1": None, "all://localhost": None},  # a proxy cannot reach this machine's own
    )


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        sound = False
    if not sound or "@" in url:
        raise ConfigError(
            f"endpoint {_shown(url)!r} is no url of the kind http://host:8000/v1; a key goes into {KEY}"
        )
    return url.rstrip("/")


def _shown(url: str) -> str:
    """Return a url without what may be secret in it."""
    return url.split("@")[-1].split("?")[0]


def _root(error: BaseException) -> str:
    """Return what lies at the bottom of an error, such as "Connection refused"."""
    while below := error.__cause__ or error.__context__:
        error = below
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)
    return printable(str(error))[:LONGEST_REASON].rstrip(".") or type(error).__name__


def _message(found: Any) -> str:
    """Return what the JSON of an error says, in any of the usual places."""
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return str(found)


def _after(response: httpx2.Response) -> float | None:
    """Return the seconds of Retry-After; a date, which HTTP also allows, counts as none."""
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
