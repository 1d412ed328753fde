"""A server on this machine that answers as the hub does, for what its client asks when it reads models."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote, urlsplit

GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this repository is restricted."}


@dataclass
class Repo:
    """Files of one commit. ``token``: the only one that may read them; ``private``: not even their names."""

    commit: str
    files: dict[str, bytes]
    token: str | None = None
    private: bool = False


@dataclass
class HubServer:
    """``repos`` by name; ``log`` of requests; every answer is ``broken`` (a status) where that is set."""

    repos: dict[str, Repo] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    broken: int | None = None

    def start(self) -> str:
        """Serve until the process ends or ``stop``; return the address."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.log.append(f"{self.command} {self.path}")
                status, headers, body = hub.answer(unquote(urlsplit(self.path).path), self.headers)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, headers: Message) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        if self.broken:
            return self.broken, {}, b""
        parts = path.removeprefix("/api/models").strip("/").split("/")
        repo = self.repos.get("/".join(parts[:2]))
        token = (headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo is None or (repo.private and token != repo.token):
            return (404 if token else 401), {"X-Error-Code": "RepoNotFound"}, b"{}"
        if parts[2:] and parts[3] not in (repo.commit, "main"):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        if not path.startswith("/api/"):
            return self._file(repo, "/".join(parts[4:]), token)
        if parts[2:3] == ["tree"]:
            return self._json([_entry(name, data) for name, data in repo.files.items()])
        siblings = [{"rfilename": name} for name in repo.files]
        about = {"id": "/".join(parts[:2]), "sha": repo.commit, "siblings": siblings, "private": repo.private}
        return self._json({**about, "gated": "auto" if repo.token else False, "tags": [], "downloads": 0})

    @staticmethod
    def _json(value: object) -> tuple[int, dict[str, str], bytes]:
        return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()

    @staticmethod
    def _file(repo: Repo, name: str, token: str) -> tuple[int, dict[str, str], bytes]:
        if repo.token and token != repo.token:
            return (403 if token else 401), GATED, b""
        if name not in repo.files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        data = repo.files[name]
        return 200, {"ETag": f'"{_tag(name, data)}"', "X-Repo-Commit": repo.commit}, data


def load(folder: Path) -> dict[str, bytes]:
    """Return all files of a folder by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _tag(name: str, data: bytes) -> str:
    """Large files are known by their SHA-256, small ones by git's hash."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _entry(name: str, data: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(data), "oid": _tag("", data)}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"oid": _tag(name, data), "size": len(data), "pointerSize": 130}
    return entry
