"""Runs a command so that nothing which it starts outlives it, or the process that asked for it.

    python keeper.py LOG BYTES COMMAND...      with a socket as standard input and output

A server starts processes of its own; when it is killed they stay, and keep their GPUs (vLLM's engine does).
Not here: this process adopts every orphan below it (PR_SET_CHILD_SUBREAPER) and ends them all when the
command ends, on SIGTERM, or when the socket closes, as it does however the process at the other end died.
Then it says with which status the command ended. Should it be killed itself, so is the command
(PR_SET_PDEATHSIG). For Linux; needs only the standard library.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

SET_PARENT_DEATH_SIGNAL, SET_CHILD_SUBREAPER = 1, 36
LIBC = ctypes.CDLL(None)

GRACE = 8.0
"""Seconds in which processes may end by themselves, before they are killed."""

TRACKER = b"multiprocessing.resource_tracker"
"""In the command line of a process that removes the shared memory of others once they have ended."""

TICK = 0.2
"""Seconds between two looks at which processes have ended."""

NOT_STARTED = 127
BY_SIGNAL = 128
"""Exit status of a command that a signal ended, less the signal's number."""


class Log:
    """A file of at most ``limit`` bytes with ``<path>.1``, which keeps the older half."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self._half, self._file = path, limit // 2, path.open("ab", buffering=0)

    def write(self, data: bytes) -> None:
        """Append; a full disk costs the log, not the server."""
        with contextlib.suppress(OSError):
            self._file.write(data)
            if self._file.tell() >= self._half:
                self._path.replace(f"{self._path}.1")
                self._file.close()
                self._file = self._path.open("wb", buffering=0)


def keep(command: list[str], log: Log, owner: int) -> int:
    """Run ``command`` until it ends or the file descriptor ``owner`` closes; return its exit status."""
    LIBC.prctl(SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    output, theirs = os.pipe()
    try:
        child = subprocess.Popen(  # noqa: S603 what to run is the caller's
            command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, preexec_fn=_die_with_parent
        )
    except OSError as error:
        log.write(f"{type(error).__name__}: {error}\n".encode())
        return NOT_STARTED
    os.close(theirs)
    try:
        while True:
            ready = _copied(output, log, owner)
            for ended, status in _ended():
                if ended == child.pid:
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else BY_SIGNAL - code
            if owner in ready:
                return 0
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _end_all(output, log)


def _die_with_parent() -> None:
    LIBC.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _copied(output: int, log: Log, *others: int) -> list[int]:
    """Copy what was written, waiting for a moment; return which of ``others`` can be read."""
    ready, _, _ = select.select([output, *others], [], [], TICK)
    if output in ready:
        data = os.read(output, 1 << 16)
        log.write(data)
        if not data:  # every process has closed it
            time.sleep(TICK)
    return ready


def _ended() -> Iterator[tuple[int, int]]:
    """Yield what has ended, with its wait status. Raises ChildProcessError if nothing is left."""
    while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
        yield found


def _end_all(output: int, log: Log) -> None:
    """End all processes below this one; that none is left to wait for is the proof.

    A process stuck in a driver, which not even SIGKILL ends, is left after a while.
    """
    began = time.monotonic()
    _signal_all(signal.SIGTERM)
    with contextlib.suppress(ChildProcessError):
        while (waited := time.monotonic() - began) < 4 * GRACE:
            for _ in _ended():
                pass
            _copied(output, log)
            if waited > GRACE:
                _signal_all(signal.SIGKILL, trackers=waited > 2 * GRACE)


def _signal_all(number: int, *, trackers: bool = True) -> None:
    for process in _descendants(os.getpid()):
        with contextlib.suppress(OSError):
            if trackers or TRACKER not in Path(f"/proc/{process}/cmdline").read_bytes():
                os.kill(process, number)


def _descendants(root: int) -> list[int]:
    """Return the processes below ``root``, by what /proc says of parents."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for process in found:
        found += children.get(process, [])
    return found[1:]


if __name__ == "__main__":
    if os.fork():
        os._exit(0)  # Ray kills the children of a worker that ends, but not their children
    path, limit, *asked = sys.argv[1:]
    print(keep(asked, Log(Path(path), int(limit)), sys.stdin.fileno()))  # noqa: T201 for the owner
