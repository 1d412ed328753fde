"""Talking to a service: what is tried again, how long it waits, and what never leaves this file: the key.

A lookup or a download is tried again whatever goes wrong. A submission costs money, so only what surely was
not accepted is: a connection that never came about, 429 and 503. After any other failure nobody here can
know (AnswerLostError).
"""

from __future__ import annotations

import email.utils
import json
import logging
import os
import random
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.errors import ItemError, WorkerError
from pipeline.generators.remote.dialect import Answer, Dialect, dig, listed

if TYPE_CHECKING:
    import httpx2

LARGEST = 256 << 20
"""Bytes of the largest answer that is read; a video of 12 s and 1080p has about 30 MB."""

PATIENCE = 600.0
"""Seconds: the longest wait that a service may ask for and get."""

BUSY = (429, 503)
REASON_LENGTH = 200
REQUEST_ID = re.compile(r"\s*\(?request[ _]id:?\s*[\w-]+\)?\.?", re.IGNORECASE)
ADDRESS = re.compile(r"https?://\S+")
KEY = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a worker waits, in seconds: nothing here changes a video, so none of it is part of a spec.

    ``attempts`` of one request, ``pause`` before the second, doubling up to ``longest``, half of it by
    chance. An operation is looked up every ``poll`` seconds, more and more rarely down to every
    ``slowest``, until ``deadline`` seconds after it was submitted. ``timeout`` is how long the service may
    be silent, ``window`` how long an intent without an operation may be that of a worker who submits it now.
    """

    attempts: int = 8
    pause: float = 2.0
    longest: float = 60.0
    poll: float = 10.0
    slowest: float = 60.0
    deadline: float = 4500.0  # above what ModelArk is told to give up after; Veo says 6 minutes at most
    timeout: float = 60.0
    window: float = 90.0


class StoppedError(Exception):
    """Whoever wanted the result is gone."""


class NotAcceptedError(Exception):
    """A submission surely was not accepted; ``wait`` is how long the service asks to be left alone."""

    def __init__(self, cause: str, wait: float | None = None) -> None:
        super().__init__(cause)
        self.wait = wait


class AnswerLostError(Exception):
    """A submission may have got through."""


class Wire:
    """Requests to one service with one key; for any number of threads."""

    def __init__(self, dialect: Dialect, pace: Pace) -> None:
        """Raise WorkerError if the environment has no usable key, address or quota."""
        import httpx2

        # It logs whole addresses, and those of videos are signed.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        self.dialect, self.pace, self.stop = dialect, pace, threading.Event()
        self._key = _key(f"{dialect.variable}_API_KEY")
        self._address = os.environ.get(f"{dialect.variable}_BASE_URL", dialect.address).rstrip("/")
        self._home = _home(self._address, f"{dialect.variable}_BASE_URL")
        # No connection is used twice: on one that the service has just closed, a submission would be lost.
        self._client = httpx2.Client(
            timeout=pace.timeout,
            limits=httpx2.Limits(max_keepalive_connections=0),
            event_hooks={"request": [self._sign]},
        )
        self._gap = 60 / _number(f"{dialect.variable}_PER_MINUTE", dialect.per_minute)
        self._lock, self._free_at = threading.Lock(), 0.0

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def wait(self, seconds: float) -> None:
        """Wait. Raises StoppedError if nobody wants the result any more."""
        if self.stop.wait(seconds):
            raise StoppedError

    def queue(self) -> None:
        """Wait for this worker's turn to submit."""
        with self._lock:
            at = max(time.monotonic(), self._free_at)
            self._free_at = at + self._gap
        self.wait(at - time.monotonic())

    def rest(self, attempt: int, cause: str, asked: float | None = None) -> None:
        """Wait after a failed attempt, the first being 0. Raises WorkerError after the last."""
        if attempt + 1 >= self.pace.attempts or (asked or 0) > PATIENCE:
            raise WorkerError(
                f"{self.dialect.name}: {cause}: what is bought is noted; run the same command again later"
            )
        if asked is not None:
            with self._lock:  # the others need not ask first
                self._free_at = max(self._free_at, time.monotonic() + asked)
        usual = min(self.pace.longest, self.pace.pause * 2**attempt)
        self.wait((asked or 0) + usual * random.uniform(0.5, 1))  # noqa: S311

    def get(self, address: str) -> Answer:
        """Look up a path, or fetch an address, until there is an answer that is no passing failure."""
        import httpx2

        for attempt in range(self.pace.attempts):
            try:
                answer = self._send("GET", address)
            except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
                raise ItemError("the service names no usable address of the video") from None
            except httpx2.RequestError as error:
                self.rest(attempt, f"no answer ({type(error).__name__})")
            else:
                if answer.status < 500 and answer.status not in (408, *BUSY):
                    return answer
                self.rest(attempt, self.said(answer), answer.wait)
        raise AssertionError("rest() raises after the last attempt")

    def post(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Submit once. Raises NotAcceptedError, AnswerLostError."""
        import httpx2

        try:
            answer = self._send("POST", path, body)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            raise NotAcceptedError(f"no connection ({type(error).__name__})") from None
        except (httpx2.RequestError, ItemError) as error:
            raise AnswerLostError(f"no answer ({type(error).__name__})") from None
        if answer.status in BUSY:
            raise NotAcceptedError(self.said(answer), answer.wait)
        if answer.status >= 500 or answer.status == 408:
            raise AnswerLostError(self.said(answer))
        return answer

    def said(self, answer: Answer) -> str:
        """Return the service's own reason in one line that holds no key, address or number of a request."""
        code = dig(answer.json, "error", "status") or dig(answer.json, "error", "code")
        message = dig(answer.json, "error", "message") or ""
        return self.clean(f"{code or f'HTTP {answer.status}'}: {message}").rstrip(":. ")

    def clean(self, line: str) -> str:
        """Return what a service said without key, addresses and request numbers, at most 200 characters."""
        line = " ".join(ADDRESS.sub("<address>", REQUEST_ID.sub("", line)).split())
        return line.replace(self._key, "<key>")[:REASON_LENGTH]  # last: what is left could join to a key

    def _send(self, method: str, address: str, body: Mapping[str, Any] | None = None) -> Answer:
        url = address if "://" in address else f"{self._address}/{address}"
        follow = method == "GET"
        with self._client.stream(method, url, json=body, follow_redirects=follow) as response:
            data = bytearray()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > LARGEST:
                    raise ItemError(f"the service's answer is over {LARGEST >> 20} MiB: refused")
            said = _json(bytes(data)) if "json" in response.headers.get("content-type", "") else None
            return Answer(
                status=response.status_code,
                body=bytes(data),
                wait=_wait(response.headers.get("retry-after"), said),
                json=said,
            )

    def _sign(self, request: httpx2.Request) -> None:
        """Add the key, also on redirects, where the host is the service's own; elsewhere take it away."""
        name, value = self.dialect.header(self._key)
        url, domain = request.url, self.dialect.domain
        home = (url.scheme, url.host, url.port) == (self._home.scheme, self._home.host, self._home.port)
        if home or (domain and url.scheme == "https" and url.host.endswith(domain)):
            request.headers[name] = value
        else:
            request.headers.pop(name, None)


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not KEY.fullmatch(key):
        problem = "holds characters that no key has" if key else "is not set"
        raise WorkerError(f"{variable} {problem} where the worker runs: export it, then run the same command")
    return key


def _home(address: str, variable: str) -> httpx2.URL:
    import httpx2

    try:
        home = httpx2.URL(address)
    except httpx2.InvalidURL:
        home = httpx2.URL()
    if home.scheme not in ("http", "https") or not home.host:
        raise WorkerError(f"{variable} is no http:// or https:// address: mend it")
    return home


def _number(variable: str, usual: float) -> float:
    given = os.environ.get(variable, "")
    try:
        number = float(given or usual)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise WorkerError(f"{variable} = {given!r} is no number of requests above 0: mend it")
    return number


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _wait(header: str | None, said: Any) -> float | None:
    """Return the seconds of Retry-After (a number or a date), or of google.rpc.RetryInfo in the body."""
    delays = [str(dig(detail, "retryDelay")) for detail in listed(said, "error", "details")]
    given = header or next((delay for delay in delays if delay != "None"), None)
    if given is None:
        return None
    try:
        return max(0.0, float(given.removesuffix("s")))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(given).timestamp() - time.time())
    except ValueError:
        return None
