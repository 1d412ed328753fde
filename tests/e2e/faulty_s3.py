"""An HTTP proxy on this machine that stands before an S3 server and does to its clients what networks do.

    with FaultyS3("http://127.0.0.1:9000", seed=7, rates={"slow_down": 0.2, "lost_answer": 0.1}) as s3:
        run(environment=s3.uri_environment())
    print(s3.counts)

What happens to a request follows from the seed, its method and path, and how often that was asked for
before: not from the order in which requests come.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

SLOWNESS = 0.1
"""Seconds that a delayed request waits."""

STREAK = 3
"""Faults in a row that one request can meet, unless every one is to meet them."""

LONGEST = 300.0
"""Seconds a client or the server may be silent."""

CONDITION = "If-None-Match"
HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding"}


@dataclass(slots=True, kw_only=True)
class Request:
    """One request of a client, its body read unless a fault came first."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def writes(self) -> bool:
        return self.method == "PUT" and int(self.headers.get("Content-Length", 0)) > 0

    @property
    def reads(self) -> bool:
        """Whether it asks for an object, not for a listing."""
        return self.method == "GET" and "/" in urlsplit(self.path).path.strip("/")


@dataclass(slots=True, kw_only=True)
class Answer:
    """What the server answered, or the proxy in its place."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


def always(request: Request) -> bool:
    del request
    return True


APPLIES: dict[str, Callable[[Request], bool]] = {
    "delay": always,
    "error": always,  # 500 InternalError
    "slow_down": always,  # 503 SlowDown
    "reset": always,  # connection reset before the server hears of it
    "lost_answer": always,  # connection reset after the server has done it
    "broken_body": lambda request: request.writes,  # reset in the middle of an upload or of one part of it
    "flipped_bit": lambda request: request.writes,  # one bit of what is uploaded
    "truncated": lambda request: request.reads,  # the body of the answer ends early
    "conflict": lambda request: CONDITION in request.headers,  # 409: another writer is at the key
    "refused_condition": lambda request: CONDITION in request.headers,  # 501: an old store
    "ignored_condition": lambda request: CONDITION in request.headers,  # an old store that does not say so
}
"""The faults, and which requests each can strike."""

INVENTED = {
    "error": (500, "InternalError"),
    "slow_down": (503, "SlowDown"),
    "conflict": (409, "ConditionalRequestConflict"),
    "refused_condition": (501, "NotImplemented"),
}
"""Answers that the server never gave."""


class FaultyS3:
    """The proxy; ``rates`` are the shares of the requests that each kind of fault strikes, if it can.

    ``counts`` says how often each fault struck, and under "requests" how many requests came.
    """

    def __init__(self, upstream: str, seed: int, rates: Mapping[str, float]) -> None:
        unknown = rates.keys() - APPLIES.keys()
        if unknown:
            raise ValueError(f"no such faults: {sorted(unknown)}")
        self.counts: Counter[str] = Counter()
        self._upstream, self._seed, self._rates = urlsplit(upstream).netloc, seed, dict(rates)
        self._asked: Counter[str] = Counter()
        self._streaks: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = self._listen(0)
        self._up = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def uri_environment(self) -> dict[str, str]:
        """Return the variables that make boto3 come here."""
        return {"AWS_ENDPOINT_URL_S3": self.uri}

    def outage(self, seconds: float) -> None:
        """Refuse connections, and reset those that are open, for a while."""
        port = self._server.server_address[1]
        self._stop()
        time.sleep(seconds)
        self._server, self._up = self._listen(port), True

    def fault(self, request: Request) -> tuple[str | None, random.Random]:
        """Choose what happens to a request, and the chance by which the rest of it goes."""
        where = f"{request.method} {_without_upload(request.path)}"
        with self._lock:
            self._asked[where] += 1
            chance = random.Random(f"{self._seed} {where} {self._asked[where]}")
            kind = self._chosen(request, chance.random(), spent=self._streaks[where] == STREAK)
            self._streaks[where] = self._streaks[where] + 1 if kind else 0
            self.counts.update(["requests", *([kind] if kind else [])])
        return kind, chance

    def _chosen(self, request: Request, drawn: float, *, spent: bool) -> str | None:
        for kind, rate in self._rates.items():
            if APPLIES[kind](request):
                if drawn < rate and (rate == 1 or not spent):
                    return kind
                drawn -= rate
        return None

    def forward(self, request: Request) -> Answer:
        """Return the server's answer."""
        connection = http.client.HTTPConnection(self._upstream, timeout=LONGEST)
        try:
            headers = {
                name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP
            }
            connection.request(request.method, request.path, request.body or None, headers)
            response = connection.getresponse()
            kept = [item for item in response.getheaders() if item[0].lower() not in HOP_BY_HOP]
            return Answer(status=response.status, headers=kept, body=response.read())
        finally:
            connection.close()

    @property
    def up(self) -> bool:
        return self._up

    def _listen(self, port: int) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"proxy": self})
        server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    def _stop(self) -> None:
        self._up = False
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    proxy: FaultyS3
    protocol_version = "HTTP/1.1"
    timeout = LONGEST
    disable_nagle_algorithm = True

    def do_any(self) -> None:
        """Serve one request."""
        request = Request(method=self.command, path=self.path, headers=dict(self.headers.items()))
        kind, chance = self.proxy.fault(request) if self.proxy.up else ("reset", random.Random(0))
        length = int(self.headers.get("Content-Length", 0))
        if kind == "broken_body":
            self.rfile.read(chance.randrange(length))
            return self._reset()
        request.body = self.rfile.read(length)
        if kind == "delay":
            time.sleep(SLOWNESS)
        if kind == "reset":
            return self._reset()
        if kind == "flipped_bit":
            request.body = _flip(request.body, chance)
        if kind == "ignored_condition":
            del request.headers[CONDITION]
        answer = _invented(request, kind) if kind in INVENTED else self.proxy.forward(request)
        if kind == "lost_answer":
            return self._reset()
        return self._send(answer, chance.randrange(max(1, len(answer.body))) if kind == "truncated" else None)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = do_any  # noqa: N815

    def _send(self, answer: Answer, cut: int | None) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if "content-length" not in {name.lower() for name, _ in answer.headers}:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[:cut])
        self.close_connection = self.close_connection or cut is not None

    def _reset(self) -> None:
        """End the connection as a machine that is gone: the client gets a reset, not a polite end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _flip(body: bytes, chance: random.Random) -> bytes:
    where = chance.randrange(len(body))
    return body[:where] + bytes([body[where] ^ 1 << chance.randrange(8)]) + body[where + 1 :]


def _invented(request: Request, kind: str) -> Answer:
    status, code = INVENTED[kind]
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the proxy</Message></Error>"
    headers = [("Content-Type", "application/xml")]
    return Answer(status=status, headers=headers, body=b"" if request.method == "HEAD" else text.encode())


def _without_upload(path: str) -> str:
    """Return a path without the name that the server gave to an upload: it is another in every run."""
    parts = urlsplit(path)
    given = sorted(
        (name, value)
        for name, value in parse_qs(parts.query, keep_blank_values=True).items()
        if name != "uploadId"
    )
    return f"{parts.path} {given}"
