"""A server that speaks the OpenAI protocol as vLLM does, prefers one medium to another, and can misbehave.

    with OpenAIServer(faults=["500", "slow", "reset"]) as server:
        judge = EndpointJudge(spec, (server.url,))

What it prefers follows from the SHA-256 of the media alone: ``preference`` says it, whatever happened on the
way. ``python -m tests.e2e.openai_server PORT`` answers every request alike without reading it, as fast as it
can: what remains is what the client costs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import math
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

FAULTS = ("429", "500", "503", "slow", "truncated", "garbled", "reset", "hang up")
TIE = 0.5
NEVER = -9999.0
"""What vLLM gives a token that the constraint rules out."""


def preference(first: str, second: str) -> tuple[float, float, float]:
    """Return the probabilities of A, B and C for two SHA-256 digests."""
    ahead = 4 * (_level(first) - _level(second))
    weights = [math.exp(logit) for logit in (ahead, -ahead, TIE)]
    a, b, c = (weight / sum(weights) for weight in weights)
    return a, b, c


def p_yes(medium: str, question: str) -> float:
    """Return the probability of yes to a question about one SHA-256 digest."""
    return _level(hashlib.sha256(f"{medium} {question}".encode()).hexdigest())


def _level(digest: str) -> float:
    return int(digest[:8], 16) / 0xFFFFFFFF


class OpenAIServer:
    """Serves ``model`` in a thread. ``faults`` befall the first chat requests, one each.

    ``refused`` says with which status it refuses which media. It is known as ``vllm`` or not, and ``holds``
    media that were sent, so that it takes them by their uuid, or does not. ``reply`` stands in for every
    completion, or makes one, or an error, of a request; ``prefers`` for what it says of two media.
    ``answered`` counts what got an answer, by what was asked; ``sent`` how often the bytes of a medium came;
    ``at_once`` is the most requests that were there.
    """

    def __init__(
        self,
        model: str = "judge",
        *,
        faults: Iterable[str] = (),
        refused: Mapping[str, int] | None = None,
        vllm: bool = True,
        holds: bool = True,
        reply: Mapping[str, Any] | Callable[[dict[str, Any]], Mapping[str, Any]] | None = None,
        prefers: Callable[[str, str], tuple[float, float, float]] = preference,
    ) -> None:
        self.model, self.vllm, self.holds, self.reply = model, vllm, holds, reply
        self.refused, self.prefers = dict(refused or {}), prefers
        self.faults = deque(faults)
        self.answered: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.statuses: Counter[int | str] = Counter()
        self.at_once = 0
        self._held: set[str] = set()
        self._now = 0
        self._port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connections: set[socket.socket] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, at the port of the last time if there was one; what was held is forgotten."""
        ready = threading.Event()
        self._held.clear()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Close the port and break every connection, whatever is under way on it."""
        if self._loop and self._thread:
            with contextlib.suppress(RuntimeError):  # it has stopped by itself
                self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()
            self._loop = self._thread = None

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        with socket.create_server(("127.0.0.1", self._port), backlog=100) as listening:
            listening.setblocking(False)
            self._port = listening.getsockname()[1]
            self._loop.add_reader(listening, self._accept, listening)
            ready.set()
            await self._ended.wait()
            self._loop.remove_reader(listening)
        # All of them, even one that was taken just now and that no task has seen yet.
        for connection in self._connections:
            with contextlib.suppress(OSError):  # its client was faster
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def _accept(self, listening: socket.socket) -> None:
        """Take a connection: asyncio's own server would lose sight of some when it ends."""
        connection, _ = listening.accept()
        self._connections.add(connection)
        task = asyncio.get_running_loop().create_task(self._talk(connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection, limit=1 << 24)
        try:
            while True:
                head, body = await read_request(reader)
                await self._handle(head, body, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _handle(
        self, head: Sequence[str], body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.headers.append(dict(line.lower().split(": ", 1) for line in head[1:]))
        if head[0].startswith("GET /v1/models "):
            owner = "vllm" if self.vllm else "someone"
            _answer(writer, 200, {"object": "list", "data": [{"id": self.model, "owned_by": owner}]})
            return
        if not head[0].startswith("POST /v1/chat/completions "):
            _answer(writer, 404, {"detail": "Not Found"})
            return
        self._now += 1
        self.at_once = max(self.at_once, self._now)
        try:
            await self._chat(body, reader, writer)
        finally:
            self._now -= 1

    async def _chat(self, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            await asyncio.sleep(0)  # others may come in the meantime
        if self.faults and (fault := self.faults.popleft()) != "none":
            self.statuses[fault] += 1
            await self._misbehave(fault, body, reader, writer)
            return
        status, reply = self._reply(json.loads(body))
        self.statuses[status] += 1
        _answer(writer, status, reply)

    async def _misbehave(
        self, fault: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        reply = json.dumps(self._completed(json.loads(body))).encode()
        match fault:
            case "429":
                _answer(writer, 429, {"error": {"message": "too many requests"}}, "retry-after: 0.01\r\n")
            case "500" | "503":
                _answer(writer, int(fault), {"error": {"message": "engine\nfell over"}})
            case "slow":
                await reader.read()  # until the client has had enough
            case "truncated":
                writer.write(_head(200, len(reply)) + reply[: len(reply) // 2])
                await writer.drain()
                writer.close()
            case "garbled":
                writer.write(_head(200, len(reply) // 2) + reply[: len(reply) // 2])
            case "reset":
                writer.write(_head(200, len(reply)) + reply[: len(reply) // 2])
                await writer.drain()
                _reset(writer)
            case "hang up":
                writer.close()
            case _:
                _answer(writer, int(fault), {"error": {"message": f"fault {fault}"}})

    def _reply(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Answer as vLLM does: a refusal in words, or a completion."""
        self.bodies.append(body)
        named = [part for part in parts(body) if part["type"] != "text"]
        for part in named:
            source = part[part["type"]]
            if source is None and part["uuid"] not in self._held:
                return 400, {
                    "error": {"message": "Cache miss for image at index 0 but data is not provided."}
                }
            if source is not None:
                data = base64.b64decode(source["url"].partition(";base64,")[2], validate=True)
                if hashlib.sha256(data).hexdigest() != part["uuid"]:
                    return 400, {"error": {"message": "uuid is not the SHA-256 of the medium"}}
                self.sent[part["uuid"]] += 1
        for part in named:
            if status := self.refused.get(part["uuid"], self.refused.get("all")):
                return status, {"error": {"message": "Failed to load image:\n cannot identify image file"}}
        if self.holds:
            self._held |= {part["uuid"] for part in named}
        self.answered[asked(body)] += 1
        made = self._completed(body)
        return (400 if "error" in made else 200), made

    def _completed(self, body: dict[str, Any]) -> Mapping[str, Any]:
        if self.reply is None:
            return self._completion(body)
        return self.reply(body) if callable(self.reply) else self.reply

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        media = [part["uuid"] for part in parts(body) if part["type"] != "text"]
        choices = body.get("structured_outputs", {}).get("choice")
        if choices is None:
            return completion("A has <|im_end|> fewer\x07 flaws than B.")
        half = len(media) // 2
        if choices[:2] == ["A", "B"]:
            weights = dict(
                zip(choices, self.prefers(_together(media[:half]), _together(media[half:])), strict=True)
            )
        else:
            yes = p_yes(_together(media), parts(body)[-1]["text"].split("\n")[0])
            weights = {"Yes": yes * 0.75, "yes": yes * 0.25, "no": 1 - yes}
        likeliest = max(weights, key=lambda label: weights[label])
        return completion(likeliest, {**{label: math.log(w) for label, w in weights.items()}, "ll": NEVER})


def asked(body: Mapping[str, Any]) -> str:
    """Return what tells requests apart, however their media came."""
    plain = json.loads(json.dumps(body))
    for part in parts(plain):
        part.pop(part["type"] if part["type"] != "text" else "", None)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def parts(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of all messages that have parts."""
    lists = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    return [part for each in lists for part in each]


def completion(text: str, logprobs: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Return a chat completion of one token, or of a text without log-probabilities."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None}
    if logprobs is not None:
        top = [{"token": token, "logprob": value, "bytes": None} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": logprobs[text], "top_logprobs": top}]}
    return {"object": "chat.completion", "choices": [choice]}


async def read_request(reader: asyncio.StreamReader) -> tuple[list[str], bytes]:
    """Return the lines of the head of the next request, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    lengths = [line.split(":")[1] for line in head if line.lower().startswith("content-length:")]
    return head, await reader.readexactly(int(lengths[0]) if lengths else 0)


def _together(media: Sequence[str]) -> str:
    """Return one digest for all that is shown of a side."""
    return media[0] if len(media) == 1 else hashlib.sha256("".join(media).encode()).hexdigest()


def _head(status: int, length: int, more: str = "") -> bytes:
    return (
        f"HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{more}content-length: {length}\r\n\r\n"
    ).encode()


def _answer(writer: asyncio.StreamWriter, status: int, body: Any, more: str = "") -> None:
    data = json.dumps(body).encode()
    writer.write(_head(status, len(data), more) + data)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection as a killed process does."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def serve_null(port: int, owner: str) -> None:
    """Print the port, then answer every request alike, reading no more of it than its length."""
    likely = {"A": -0.1, "B": -3.0, "C": -3.5}
    chat = json.dumps(completion("A", likely | {f"token {i}": NEVER for i in range(17)})).encode()
    models = json.dumps({"data": [{"id": "judge", "owned_by": owner}]}).encode()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, _ = await read_request(reader)
                reply = models if head[0].startswith("GET") else chat
                writer.write(_head(200, len(reply)) + reply)
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", port, limit=1 << 24)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Answer every chat request alike, as fast as possible.")
    parser.add_argument("port", type=int, nargs="?", default=0)
    parser.add_argument("--owner", default="vllm", help="who /v1/models says serves the model")
    given = parser.parse_args()
    asyncio.run(serve_null(given.port, given.owner))
