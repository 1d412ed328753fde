"""A server process: started, waited for, started again when it dies, ended with all that it has started."""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import WorkerError
from pipeline.judges import keeper

log = logging.getLogger(__name__)

HOST = "127.0.0.1"

PATIENCE = 1800.0
"""Seconds in which a server must be ready: hundreds of GB may have to be read first."""

KNOCK = 0.5
"""Seconds between two looks at a server."""

SAY = 30.0
"""Seconds between two lines of progress."""

RESTARTS = 3
"""How often a server that ended is started again in vain. One that starts, and ends again and again when it
is asked, is given up by those who get no answer from it.
"""

LOG_BYTES = 16 << 20

PREFIX = re.compile(r"(?:\([^)]*\) )?(?:ERROR \S+ \S+ \[[^]]*\] ?)?(?:\[rank\d+\]: )?")
TELLING = re.compile(r"[\w.]{0,80}(?:Error|Exception):|Value error,|\S{1,80}: error:")
"""How a line of the log goes on, after its prefix, that says why a server ended."""

ECHO = re.compile(r"Engine core initialization failed|EngineDeadError")
"""What an error has that only says that there was another one before it."""


class Server:
    """A server that answers GET /health, is told ``--host`` and ``--port``, and is kept alive on that port.

    A thread does all of this, so whoever asks the server only has to try again for a while.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], *, kind: str = "judge"
    ) -> None:
        self._name, self._environment = f"{kind} {name}", environment
        self._held = _held_port()
        self.port = int(self._held.getsockname()[1])
        self._command = [*command, "--host", HOST, "--port", str(self.port)]
        self._folder = Path(tempfile.mkdtemp(prefix="vipo-vllm-"))
        self.log = self._folder / "server.log"
        self._settled, self._stopping = threading.Event(), threading.Event()
        self._served, self._in_vain, self._gone = False, 0, ""
        self._thread = threading.Thread(target=self._live, name=f"server of {name}", daemon=True)

    def start(self) -> float:
        """Start it and wait until it is ready; return the seconds that it took. Raises WorkerError."""
        began = time.monotonic()
        self._thread.start()
        self._settled.wait()
        self.check()
        return time.monotonic() - began

    def check(self) -> None:
        """Raise WorkerError if it has been given up."""
        if self._gone:
            raise WorkerError(f"{self._name}: its server {self._gone}: see {self.log}")

    def stop(self) -> None:
        """End all its processes. Its log stays where an error names it."""
        self._stopping.set()
        if self._thread.ident:
            self._thread.join()
        self._held.close()
        if not self._gone:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _live(self) -> None:
        """Run the server until it is stopped, never starts, or does not start again."""
        while not (self._gone or self._stopping.is_set()):
            cause = self._run()
            if self._stopping.is_set():
                break
            log.warning("%s: its server %s", self._name, cause)
            if self._in_vain >= (RESTARTS if self._served else 1):
                self._gone = cause
        self._settled.set()

    def _run(self) -> str:
        """Run the server once; return why it ended."""
        self._in_vain += 1
        try:
            kept = _Kept(self._command, self._environment, self.log)
        except OSError as error:
            return f"could not be started ({error})"
        if self._ready(kept):
            self._in_vain, self._served = 0, True
            self._settled.set()
            while not (kept.ended(KNOCK) or self._stopping.is_set()):
                pass
        elif not kept.ended(0):
            kept.end()
            return f"was not ready in {PATIENCE:.0f} s; its last line: {_last(self.log)}"
        return _cause(kept.end(), self.log)

    def _ready(self, kept: _Kept) -> bool:
        """Wait until the server is ready; False if it ended, is stopped, or takes too long."""
        began = said = time.monotonic()
        while not _healthy(self.port):
            now = time.monotonic()
            if kept.ended(KNOCK) or self._stopping.is_set() or now - began > PATIENCE:
                return False
            if now - said > SAY:
                said = now
                log.info("%s: starting for %.0f s: %s", self._name, now - began, _last(self.log))
        return True


class _Kept:
    """A command below a keeper, which ends all of it when this process dies or lets go of it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs, log.open("ab") as words:
            first = subprocess.Popen(  # noqa: S603 what to run is the caller's
                [sys.executable, "-I", keeper.__file__, str(log), str(LOG_BYTES), *command],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=words,
                env=environment,
                cwd=log.parent,
                start_new_session=True,
            )
        self._group = first.pid
        first.wait()  # the keeper is a child of its own and stays

    def ended(self, within: float) -> bool:
        """Wait for so many seconds; say whether all processes have ended, or the keeper was killed."""
        return bool(select.select([self._channel], [], [], within)[0])

    def end(self) -> int | None:
        """End all processes; return the command's exit status, None if the keeper was killed."""
        with self._channel:
            with contextlib.suppress(OSError):  # it has ended already
                self._channel.shutdown(socket.SHUT_WR)
            said = self._channel.makefile("rb").read()
        if said:
            return int(said)
        with contextlib.suppress(ProcessLookupError):  # what it kept is left in its group
            os.killpg(self._group, signal.SIGTERM)
            time.sleep(keeper.GRACE)
            os.killpg(self._group, signal.SIGKILL)
        return None


def telling(path: Path) -> str:
    """Return the line of a log that says why its process ended: the last error but for echoes of it."""
    lines = [PREFIX.sub("", line, count=1) for line in _tail(path)]
    errors = [line for line in lines if TELLING.match(line)]
    first_hand = [error for error in errors if not ECHO.search(error)]
    return (first_hand or errors or lines or ["without a word"])[-1][:300]


def _cause(status: int | None, log: Path) -> str:
    """Return why a server ended that ended with ``status``."""
    if status is None:
        return "lost its keeper, which was killed"
    if status - keeper.BY_SIGNAL in set(signal.Signals):
        return f"was ended by {signal.Signals(status - keeper.BY_SIGNAL).name}"
    return f"ended: {telling(log)}"


def _last(path: Path) -> str:
    return (_tail(path) or ["none"])[-1][:200]


def _tail(path: Path) -> list[str]:
    """Return the last lines of a log that are not empty, 64 KB at most."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - (64 << 10)))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def _held_port() -> socket.socket:
    """Return a socket that holds a free port: others are not given it, but a server may take it.

    Linux lets several sockets with SO_REUSEADDR share a port as long as one of them at most listens.
    """
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind((HOST, 0))
    return held


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
