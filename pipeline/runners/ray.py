"""Workers as Ray actors: on this machine, or on a cluster by its address."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, WorkerError
from pipeline.runners.base import Bench, Done, Task, one_line
from pipeline.stages import Resources

PATIENCE = 600.0
"""Seconds to wait for a first actor: a cluster may have to start a node for it."""

KNOCK = 20.0
"""Seconds in which the head of a cluster must accept a connection."""

STILLBORN = 5
"""Actors in a row that may die before they answer once."""

NOT_SENT = [".git", ".venv", "runs", "tests", "build", "dist"]
"""What a remote cluster does not need of a checkout."""


@dataclass(slots=True, kw_only=True)
class _Actor:
    handle: Any
    ready: bool = False
    task: Task | None = None


def connect(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at ``address``. Raises ConfigError."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError("runner ray: ray is not installed: pip install 'vipo[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        return
    if address:
        _knock(address)
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": True, "logging_level": "error"}
    if address is None:
        options["include_dashboard"] = False
    elif address.startswith("ray://"):
        checkout = Path(__file__).parents[2]
        options["runtime_env"] = {"working_dir": str(checkout), "excludes": NOT_SENT}
    try:
        with _sigterm_kept():
            ray.init(address=address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {one_line(error)}: check --address") from error


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Give SIGTERM back to its handler: Ray puts in one of its own, which ends the driver without a word."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Ask for a connection before Ray does: for minutes, it would wait without a word. Raises ConfigError."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=KNOCK).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster at {address}: {one_line(error)}: check --address") from error


def gpus() -> int:
    """Return the GPUs of the connected cluster."""
    import ray

    return int(ray.cluster_resources().get("GPU", 0))


class RayWorkers:
    """Up to ``count`` actors with the resources that their stage needs; one that dies is replaced.

    Work goes only to actors that have answered: a cluster that is smaller than ``count`` is used as it
    is, and nothing waits for a size that it cannot have.
    """

    def __init__(self, uri: str, count: int, resources: Resources) -> None:
        import ray

        self._ray = ray
        self._uri = uri
        self._count = count or self._fitting(resources)
        self._class = ray.remote(Bench).options(
            num_cpus=resources.cpus, num_gpus=resources.gpus, max_restarts=0, max_task_retries=0
        )
        self._refs: dict[Any, _Actor] = {}
        self._actors: list[_Actor] = []
        self._waiting_since = time.monotonic()
        self._stillborn = 0

    def start(self, task: Task) -> bool:
        """Give ``task`` to a free actor; False if none is free now."""
        free = next((actor for actor in self._actors if actor.ready and actor.task is None), None)
        if free is None:
            while len(self._actors) < self._count:
                self._spawn()
            return False
        free.task = task
        self._refs[free.handle.do.remote(task.stage, task.unit)] = free
        return True

    def wait(self) -> list[tuple[Task, Done]]:
        """Wait until an actor answers, dies or becomes ready. Raises WorkerError if none ever does."""
        ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=10)
        if not ready and not any(actor.ready for actor in self._actors):
            self._lose_patience()
        ended: list[tuple[Task, Done]] = []
        for ref in ready:
            actor = self._refs.pop(ref)
            task, actor.task = actor.task, None
            done = self._answer(actor, ref)
            if task:
                ended.append((task, done))
        return ended

    def close(self) -> None:
        """End every actor and free what it held."""
        for actor in self._actors:
            self._ray.kill(actor.handle)
        self._actors.clear()
        self._refs.clear()

    def _answer(self, actor: _Actor, ref: Any) -> Done:
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._actors.remove(actor)
            self._ray.kill(actor.handle)
            self._stillborn += not actor.ready
            if self._stillborn > STILLBORN:
                raise WorkerError(
                    f"Ray actors die as they start: {one_line(error)}: see Ray's logs"
                ) from error
            return Done(cause=f"worker actor died ({type(error).__name__})")
        actor.ready, self._stillborn = True, 0
        return answer if isinstance(answer, Done) else Done()

    def _spawn(self) -> None:
        actor = _Actor(handle=self._class.remote(self._uri))
        self._actors.append(actor)
        self._refs[actor.handle.__ray_ready__.remote()] = actor
        self._waiting_since = time.monotonic()

    def _fitting(self, resources: Resources) -> int:
        have = self._ray.cluster_resources()
        by_gpu = have.get("GPU", 0) / resources.gpus if resources.gpus else float("inf")
        return max(1, int(min(have.get("CPU", 1) / resources.cpus, by_gpu)))

    def _lose_patience(self) -> None:
        if time.monotonic() - self._waiting_since > PATIENCE:
            have = self._ray.available_resources()
            raise WorkerError(
                f"no Ray actor could be placed in {PATIENCE:.0f} s (free: {have.get('CPU', 0)} CPU, "
                f"{have.get('GPU', 0)} GPU): add nodes or lower the profile's needs, then run build again"
            )
