"""A server on this machine that speaks to clients as the Gemini API does of Veo, and ModelArk of Seedance.

    with RemoteApi(faults={"submit": ["429", "lost"]}) as api:
        environment = api.environment()

It answers by its own reading of the documentation, refuses what that does not allow, and counts: every
submission that it accepted was paid for.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np

from pipeline import media

KEY = "a-key-that-no-message-may-show"
SIZES = {"480p": (864, 480), "720p": (1248, 704), "1080p": (1920, 1088)}
VEO_SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}

FAULTS = {
    "429": (429, "Quota exceeded"),
    "500": (500, "Internal error"),
    "503": (503, "The model is overloaded"),
    "403": (403, "Not allowed"),
}
"""Answers by their names. Done to the connection or the client are ``reset``, ``cut``, ``lost``, ``kill``."""


@cache
def clip(width: int, height: int, frames: int, fps: int) -> bytes:
    """Return an MP4 in which something moves."""
    pixels = np.full((frames, height, width, 3), 90, np.uint8)
    for index, frame in enumerate(pixels):
        frame[height // 4 : height // 2, 4 * index : 4 * index + width // 4] = (200, 60, 40)
    return media.encode(pixels, fps).data


@dataclass(slots=True, kw_only=True)
class Operation:
    """What was bought: when it is ``asked`` for the ``slow``-th time it is done, in the way of ``end``."""

    service: str
    name: str
    model: str
    seed: int
    prompt: str
    size: tuple[int, int]
    frames: int
    image: bool
    created: float = field(default_factory=time.time)
    asked: int = 0
    done: bool = False


@dataclass(slots=True)
class RemoteApi:
    """The server. ``faults`` lists what happens at the first, second ... request of a kind (``""``: nothing).

    Kinds: submit, poll, fetch, list. ``ends`` says by a prompt's first word how its operation ends: refused,
    failed, expired, never (or it is made). ``slow`` is how often an operation is looked up before it is
    done, ``expiring`` how many addresses of a video are no longer valid when they are used.
    """

    faults: Mapping[str, Sequence[str]] = field(default_factory=dict)
    slow: int = 2
    expiring: int = 0
    retry_after: str = "1"
    shape: Callable[[Operation], tuple[int, int, int, int]] = lambda made: (*made.size, made.frames, 24)
    elsewhere: str = ""  # where downloads of Veo's videos are redirected to
    operations: dict[str, Operation] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    keys: list[tuple[str, str | None]] = field(default_factory=list)  # path and key of every request
    most: int = 0  # operations that were unfinished at once
    early: int = 0  # submissions while told to wait
    process: int = 0  # whom ``kill`` kills
    _closed_until: float = 0.0
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
        handler = type("Handler", (_Handler,), {"api": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server
        self._server.shutdown()
        self._server.server_close()

    @property
    def uri(self) -> str:
        assert self._server
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, key: str = KEY) -> dict[str, str]:
        """Return the variables that make the generators come here, as fast as they like."""
        paths = {"GEMINI": "/v1beta", "ARK": "/api/v3"}
        return {
            name: value
            for service, path in paths.items()
            for name, value in (
                (f"{service}_API_KEY", key),
                (f"{service}_BASE_URL", self.uri + path),
                (f"{service}_PER_MINUTE", "60000"),
            )
        }

    @property
    def bought(self) -> Counter[int]:
        """How many operations were accepted of each seed."""
        return Counter(operation.seed for operation in self.operations.values())

    def fault(self, kind: str) -> str:
        """Return what happens to the next request of ``kind``."""
        with self._lock:
            self.counts[kind] += 1
            planned = self.faults.get(kind, ())
            fault = planned[self.counts[kind] - 1] if self.counts[kind] <= len(planned) else ""
            if kind == "submit":
                self.early += time.monotonic() < self._closed_until
                if fault == "429" and self.retry_after.isdigit():
                    self._closed_until = time.monotonic() + float(self.retry_after)
        return fault

    def accept(self, operation: Operation) -> str:
        """Start what was bought; return its name."""
        with self._lock:
            self.operations[operation.name] = operation
            unfinished = [made for made in self.operations.values() if not made.done]
            self.most = max(self.most, len(unfinished))
        return operation.name

    def look_up(self, operation: Operation) -> str | None:
        """Return how an operation has ended, None if it has not."""
        with self._lock:
            operation.asked += 1
            end = operation.prompt.partition(" ")[0]
            if end == "never" or operation.asked <= self.slow:
                return None
            operation.done = True
        return end if end in ("refused", "failed", "expired") else "made"

    def valid(self) -> bool:
        """Say whether the address of a video that is used now still opens it."""
        with self._lock:
            self.expiring -= 1
            return self.expiring < 0


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    api: RemoteApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.api.fault("submit")
        if fault in FAULTS:
            return self._fail(fault)
        if fault == "reset":
            return self._reset()
        answer = self._submitted(body)
        if fault == "kill":
            os.kill(self.api.process, signal.SIGKILL)
        if fault in ("lost", "kill"):
            return self._reset()
        return self._say(*answer)

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        kind = "fetch" if "download" in path else "list" if path.endswith("/tasks") else "poll"
        fault = self.api.fault(kind)
        if fault in FAULTS:
            return self._fail(fault)
        if fault == "reset":
            return self._reset()
        if kind == "fetch":
            return self._fetched(path, cut=fault == "cut")
        if kind == "list":
            return self._listed()
        return self._say(*(self._veo(path) if path.startswith("/v1beta/") else self._task(path)))

    def _submitted(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        path = urlsplit(self.path).path
        if veo := re.fullmatch(r"/v1beta/models/([\w.-]+):predictLongRunning", path):
            return self._submit_veo(veo[1], body)
        if path == "/api/v3/contents/generations/tasks":
            return self._submit_task(body)
        return _google(404, "NOT_FOUND", f"no such path: {path}")

    def _submit_veo(self, model: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if wrong := self._wrong_google_key():
            return wrong
        (instance,), given = body["instances"], dict(body["parameters"])
        size, length = VEO_SIZES.get(given.pop("resolution", "720p")), given.pop("durationSeconds", 8)
        seed, ratio = given.pop("seed", 0), given.pop("aspectRatio", "16:9")
        if size is None or length not in (4, 6, 8) or ratio != "16:9" or given or not 0 <= seed < 1 << 32:
            return _google(400, "INVALID_ARGUMENT", f"unsupported parameters {body['parameters']}")
        if instance["prompt"].startswith("unsafe"):
            return _google(400, "INVALID_ARGUMENT", "The prompt violates our usage guidelines.")
        image = instance.get("image", {})
        if image and not (image["mimeType"] == "image/jpeg" and image["bytesBase64Encoded"]):
            return _google(400, "INVALID_ARGUMENT", "unsupported image")
        made = Operation(
            service="veo",
            name=f"models/{model}/operations/{uuid.uuid4().hex[:12]}",
            model=model,
            seed=seed,
            prompt=instance["prompt"],
            size=size,
            frames=24 * length,
            image=bool(image),
        )
        return 200, {"name": self.api.accept(made)}

    def _submit_task(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if wrong := self._wrong_bearer():
            return wrong
        text, *images = body["content"]
        size, length, seed = SIZES.get(body["resolution"]), body["duration"], body["seed"]
        if size is None or length not in range(2, 13) or not -1 <= seed < 1 << 32 or body["ratio"] != "16:9":
            return _ark(400, "InvalidParameter", "One or more parameters are not valid. Request id: 0217")
        if body["execution_expires_after"] not in range(3600, 259201) or body["watermark"] is not False:
            return _ark(400, "InvalidParameter", "One or more parameters are not valid. Request id: 0217")
        if text["text"].startswith("unsafe"):
            said = "the input text may contain sensitive information. Request id: 021763"
            return _ark(400, "InputTextSensitiveContentDetected", f"The request failed because {said}")
        if any(image["role"] != "first_frame" for image in images):
            return _ark(400, "InvalidParameter", "unsupported image")
        made = Operation(
            service="ark",
            name=f"cgt-2026-{uuid.uuid4().hex[:5]}",
            model=body["model"],
            seed=seed,
            prompt=text["text"],
            size=size,
            frames=24 * length + 1,
            image=bool(images),
        )
        return 200, {"id": self.api.accept(made)}

    def _veo(self, path: str) -> tuple[int, dict[str, Any]]:
        name = path.removeprefix("/v1beta/")
        if wrong := self._wrong_google_key():
            return wrong
        if name not in self.api.operations:
            return _google(404, "NOT_FOUND", "Operation not found")
        made = self.api.operations[name]
        end = self.api.look_up(made)
        if end is None:
            return 200, {"name": name}
        if end == "failed":
            return 200, {"name": name, "done": True, "error": {"code": 13, "message": "Internal error"}}
        if end == "refused":
            reasons = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": ["a person was shown"]}
            return 200, {"name": name, "done": True, "response": {"generateVideoResponse": reasons}}
        uri = f"{self.api.uri}/v1beta/files/{made.name.replace('/', '~')}:download?alt=media"
        sample = {"generatedSamples": [{"video": {"uri": uri}}]}
        return 200, {"name": name, "done": True, "response": {"generateVideoResponse": sample}}

    def _task(self, path: str) -> tuple[int, dict[str, Any]]:
        if wrong := self._wrong_bearer():
            return wrong
        name = path.removeprefix("/api/v3/contents/generations/tasks/")
        if name not in self.api.operations:
            return _ark(404, "NotFound.task", "The specified task is not found. Request id: 0217")
        made = self.api.operations[name]
        end = self.api.look_up(made)
        said = _about(made)
        if end is None:
            return 200, {**said, "status": "running"}
        if end == "made":
            host = self.api.uri.replace("127.0.0.1", "localhost")  # not that of the tasks
            url = f"{host}/tos/download/{name}?X-Tos-Signature=secret"
            return 200, {**said, "status": "succeeded", "content": {"video_url": url}, "framespersecond": 24}
        code = {"refused": "OutputVideoSensitiveContentDetected", "failed": "InternalServiceError"}.get(end)
        error = {"code": code, "message": "The request failed. Request id: 021763"} if code else None
        return 200, {**said, "status": "expired" if end == "expired" else "failed", "error": error}

    def _listed(self) -> None:
        if wrong := self._wrong_bearer():
            return self._say(*wrong)
        query = parse_qs(urlsplit(self.path).query)
        page, size = int(query["page_num"][0]), int(query["page_size"][0])
        tasks = [made for made in self.api.operations.values() if made.service == "ark"]
        items = [_about(made) for made in tasks[(page - 1) * size : page * size]]
        return self._say(200, {"total": len(tasks), "items": items})

    def _fetched(self, path: str, *, cut: bool) -> None:
        name = path.rpartition("/")[2].removesuffix(":download").replace("~", "/")
        made = self.api.operations[name]
        veo = made.service == "veo"
        if path.startswith("/tos/"):
            carried = self.headers.get("Authorization") or self.headers.get("x-goog-api-key")
            self.api.keys.append((path, carried))
        elif wrong := self._wrong_google_key():
            return self._say(*wrong)
        if not self.api.valid():
            return self._say(*(_google(404, "NOT_FOUND", "File not found") if veo else (403, {})))
        if self.api.elsewhere:
            there = f"{self.api.elsewhere}/tos/download/{path.rpartition('/')[2]}"
            return self._say(302, {}, {"Location": there})
        data = clip(*self.api.shape(made))
        self.send_response_only(200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = True
        return None

    def _wrong_google_key(self) -> tuple[int, dict[str, Any]] | None:
        key = self.headers.get("x-goog-api-key")
        self.api.keys.append((self.path, key))
        if key == KEY:
            return None
        said = _google(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.")
        said[1]["error"]["details"] = [{"@type": "google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
        return said

    def _wrong_bearer(self) -> tuple[int, dict[str, Any]] | None:
        key = self.headers.get("Authorization")
        self.api.keys.append((self.path, key))
        if key == f"Bearer {KEY}":
            return None
        # The real one does not repeat the key; a proxy may.
        said = f"The API key {str(key).removeprefix('Bearer ')} is missing or invalid. Request id: 0217"
        return _ark(401, "AuthenticationError", said)

    def _fail(self, fault: str) -> None:
        status, message = FAULTS[fault]
        headers, details = {}, []
        if fault == "429":
            asked = self.api.retry_after
            if asked == "date":
                headers["Retry-After"] = formatdate(time.time() + 1, usegmt=True)
            elif asked.endswith("s"):
                details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": asked}]
            else:
                headers["Retry-After"] = asked
        error = {"code": status, "message": message, "status": "UNAVAILABLE", "details": details}
        self._say(status, {"error": error}, headers)

    def _say(self, status: int, said: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> None:
        data = json.dumps(said).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _reset(self) -> None:
        """End the connection as a machine that is gone: the client gets a reset, not a polite end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        os.close(self.connection.detach())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


def _about(made: Operation) -> dict[str, Any]:
    return {"id": made.name, "model": made.model, "seed": made.seed, "created_at": int(made.created)}


def _google(status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": status, "status": code, "message": message}}


def _ark(status: int, code: str, message: str) -> tuple[int, dict[str, Any]]:
    return status, {"error": {"code": code, "message": message, "param": "", "type": "BadRequest"}}
