"""A Ray cluster of two nodes on this machine, whose processes can be found and killed one by one."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.world import PATIENCE, QUIET, dead, until

LOST_SOON = {
    # A node whose raylet does not answer for this long counts as lost: seconds, not QUIET's minutes.
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "5",
}

HEAD_IP, SECOND_IP = "127.0.0.1", "127.0.0.2"
"""Of its own for each node: a driver takes the raylet of its own address, and dies with it."""


@dataclass(slots=True)
class Node:
    """``ray start --block`` and all that it started."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def up(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        return "--block" in self.log.read_text()

    def raylet(self) -> int | None:
        """Return the living raylet's id."""
        found = (pid for pid, line in descendants(self.process.pid).items() if "/raylet/raylet" in line)
        return next(found, None)

    def lose_raylet(self) -> None:
        """SIGKILL the raylet, which is what holds a node together."""
        raylet = self.raylet()
        assert raylet, "the node has no raylet"
        _kill(raylet)
        until(lambda: dead(raylet), "the raylet is dead")

    def processes(self) -> dict[int, str]:
        """Return all living processes of the node by id, with their command lines."""
        return descendants(self.process.pid)

    def workers(self) -> list[int]:
        """Return the ids of the processes that have an actor of the build."""
        lines = descendants(self.process.pid)
        return sorted(pid for pid, line in lines.items() if line.startswith("ray::Bench"))

    def end(self) -> None:
        """End it by its process ids, politely first."""
        started = [self.process.pid, *descendants(self.process.pid)]
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(20)
        for pid in started:
            if not dead(pid):
                _kill(pid)
        self.process.wait(PATIENCE)


@dataclass(slots=True)
class TwoNodes:
    """A head and a second node, one CPU each; ``environment`` is for them and for drivers that join."""

    environment: dict[str, str] = field(default_factory=dict)
    _folder: tempfile.TemporaryDirectory[str] = field(
        # Ray's sockets lie in it and their paths may have 107 characters: not below tmp_path.
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="vray", dir="/tmp")
    )
    _port: int = 0
    _started: int = 0
    head: Node | None = None
    second: Node | None = None
    _lost: list[Node] = field(default_factory=list)

    def __enter__(self) -> Self:
        token = Path(self._folder.name) / "token"
        token.write_text("a-token-of-this-test-alone")
        secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.environment = {**QUIET, **LOST_SOON, **secret, **self.environment}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for node in (*self.nodes, *self._lost):
            node.end()
        with contextlib.suppress(OSError):
            self._folder.cleanup()

    @property
    def address(self) -> str:
        return f"{HEAD_IP}:{self._port}"

    @property
    def nodes(self) -> list[Node]:
        return [node for node in (self.second, self.head) if node]

    def start_head(self, environment: Mapping[str, str] | None = None) -> None:
        """Start a head at a new port, with an ``environment`` of its own too; wait for it."""
        self._port, agent = free_ports(2)
        self.head = self._start(
            *("--head", f"--node-ip-address={HEAD_IP}", f"--port={self._port}", "--include-dashboard=false"),
            *(f"--dashboard-agent-listen-port={agent}", f"--temp-dir={self._folder.name}/ray{self._started}"),
            environment=environment or {},
        )
        until(lambda: self.head and self.head.up, "the head is up")

    def start_second(self, environment: Mapping[str, str] | None = None) -> None:
        """Start the second node, with an ``environment`` of its own beside the cluster's; wait for it."""
        (agent,) = free_ports(1)
        self.second = self._start(
            *(f"--address={self.address}", f"--node-ip-address={SECOND_IP}"),
            f"--dashboard-agent-listen-port={agent}",
            environment=environment or {},
        )
        until(lambda: self.second and self.second.up, "the second node is up")

    def lose_second(self) -> bool:
        """SIGKILL the second node's raylet; False if there is no node. What it started ends by itself."""
        if self.second is None:
            return False
        self.second.lose_raylet()
        self._lost.append(self.second)
        self.second = None
        return True

    def lose_all(self) -> None:
        """SIGKILL the head's raylet, then end what is left: a cluster does not outlive its head."""
        assert self.head
        self.head.lose_raylet()
        for node in self.nodes:
            node.end()
        self.head = self.second = None

    def workers(self) -> list[int]:
        return [pid for node in self.nodes for pid in node.workers()]

    def _start(self, *arguments: str, environment: Mapping[str, str]) -> Node:
        self._started += 1
        log = Path(self._folder.name) / f"log{self._started}"
        with log.open("w") as written:
            process = subprocess.Popen(
                [
                    *(str(Path(sys.executable).parent / "ray"), "start", "--block", "--num-cpus=1"),
                    *("--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"),
                    *arguments,
                ],
                env={**os.environ, **self.environment, **environment},
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Node(process, log)


def descendants(root: int) -> dict[int, str]:
    """Return the living processes below ``root`` by id, with their command lines."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found: dict[int, str] = {}
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += below
        found.update((pid, line) for pid in below if (line := _line(pid)))
    return found


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens at now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def merged(*environments: Mapping[str, str]) -> dict[str, str]:
    """Return one environment; folders of PYTHONPATH are joined."""
    paths = [path for each in environments if (path := each.get("PYTHONPATH"))]
    joined = {name: value for each in environments for name, value in each.items()}
    return {**joined, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def _parents() -> Iterator[tuple[int, int]]:
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(folder.name), int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def _line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
