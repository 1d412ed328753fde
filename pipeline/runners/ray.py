"""Workers as Ray actors: on this machine, or on a cluster by its address."""

from __future__ import annotations

import math
import os
import shutil
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.config import data_root
from pipeline.errors import ConfigError, WorkerError
from pipeline.runners.base import Bench, Done, Need, Task, Worker, one_line
from pipeline.stages import Resources, Stage

PATIENCE = 600.0
"""Seconds to wait for a first actor: a cluster may have to start a node for it."""

KNOCK = 20.0
"""Seconds in which the head of a cluster must accept a connection."""

LOOK = 5.0
"""Seconds between two looks at what nodes there are."""

TYPE = "accelerator_type:"
"""What Ray calls the resource that a node has of its type of GPU."""

STILLBORN = 5
"""Actors in a row that may die before they answer once."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Actor(Worker):
    handle: Any
    kind: Resources
    ready: bool = False


def connect(address: str | None) -> None:
    """Start Ray on this machine, or join the cluster at ``address``. Raises ConfigError."""
    try:
        import ray
    except ImportError as error:
        raise ConfigError("runner ray: ray is not installed: pip install 'vipo[ray]'") from error
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if ray.is_initialized():
        return
    if address and address.startswith(("http://", "https://")):
        raise ConfigError(f"{address} is a cluster's dashboard, which takes jobs: `vipo submit` sends it one")
    if address:
        _knock(address)
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": True, "logging_level": "error"}
    if address is None:
        options["include_dashboard"] = False
    try:
        with _sigterm_kept(), packaged() as root:
            if address and address.startswith("ray://"):
                options["runtime_env"] = {"working_dir": str(root)}
            ray.init(address=address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {one_line(error)}: check --address") from error


@contextmanager
def packaged() -> Iterator[Path]:
    """Make a folder of this package and its prompts, and no more, so that a cluster runs this very code."""
    package, version = Path(__file__).parents[1], metadata.version("vipo")
    with TemporaryDirectory(prefix="vipo-sent-") as folder:
        root = Path(folder)
        shutil.copytree(package, root / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
        if data_root() == package.parent:  # a checkout; an installed package has its data inside
            shutil.copytree(data_root() / "prompts", root / "prompts")
        about = root / f"vipo-{version}.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: vipo\nVersion: {version}\n")
        yield root


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
    """Actors with the resources that stages need; one that dies is replaced.

    There are at most ``count`` (0: as many as the cluster has room for now; with a number, one that grows by
    demand grows); kinds that want the same GPUs share them by the work that waits for each. Work goes only to
    actors that have answered: a cluster that is smaller than wanted is used as it is, and nothing waits for a
    size that it cannot have.
    """

    def __init__(self, uri: str, count: int) -> None:
        import ray

        self._ray = ray
        self._uri, self._count = uri, count
        self._refs: dict[Any, _Actor] = {}
        self._actors: list[_Actor] = []
        self._sent: dict[str, tuple[Stage, Any]] = {}
        self._waiting_since = time.monotonic()
        self._stillborn = 0
        self._looked, self._found = -math.inf, list[Capacity]()

    def hire(self, needs: Mapping[Resources, Need]) -> None:
        """Start actors where work waits; end idle ones that hold what another kind could use."""
        busy = Counter(actor.kind for actor in self._actors if actor.task)
        have = Counter(actor.kind for actor in self._actors)
        waiting = any(not actor.ready for actor in self._actors)
        targets = shares(needs, self._machines(), self._count)
        short = [kind for kind, target in targets.items() if have[kind] < target]
        for actor in self.idle() if short or waiting else ():
            if have[actor.kind] > targets.get(actor.kind, busy[actor.kind]):
                have[actor.kind] -= 1
                self._dismiss(actor)
        for kind in short:
            for _ in range(targets[kind] - have[kind]):
                self._spawn(kind)

    def idle(self) -> Sequence[_Actor]:
        """Return the actors that have answered and have no task."""
        return [actor for actor in self._actors if actor.ready and actor.task is None]

    def staff(self) -> Mapping[str, int]:
        """Return how many actors have each stage open, by its folder."""
        return Counter(actor.open for actor in self._actors)

    def start(self, worker: Worker, task: Task) -> bool:
        """Give ``task`` to an idle actor."""
        if not isinstance(worker, _Actor):
            raise TypeError(f"{worker}: not an actor of this runner")
        worker.task, worker.open = task, task.stage.folder
        self._refs[worker.handle.do.remote(self._stage(task.stage), task.unit)] = worker
        return True

    def wait(self) -> list[tuple[Task, Done]]:
        """Wait until an actor answers, dies or becomes ready. Raises WorkerError if none ever does."""
        ready, _ = self._ray.wait(list(self._refs), num_returns=1, timeout=10)
        if not ready and not any(actor.task for actor in self._actors):
            self._lose_patience()
        ended: list[tuple[Task, Done]] = []
        for ref in ready:
            self._waiting_since = time.monotonic()
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

    def _machines(self) -> Sequence[Capacity]:
        """Return what the cluster has; asked again after a while, for nodes come and go."""
        if time.monotonic() - self._looked > LOOK:
            self._looked, self._found = time.monotonic(), capacities(self._ray.nodes())
        return self._found

    def _stage(self, stage: Stage) -> Any:
        """Return a stage in the cluster's object store: thousands of tasks share it."""
        held = self._sent.get(stage.folder)
        if held is None or held[0] is not stage:
            held = self._sent[stage.folder] = stage, self._ray.put(stage)
        return held[1]

    def _answer(self, actor: _Actor, ref: Any) -> Done:
        try:
            answer = self._ray.get(ref)
        except self._ray.exceptions.RayError as error:
            self._dismiss(actor)
            self._stillborn += not actor.ready
            if self._stillborn > STILLBORN:
                raise WorkerError(
                    f"Ray actors die as they start: {one_line(error)}: see Ray's logs"
                ) from error
            return Done(cause=f"worker actor died ({type(error).__name__})")
        actor.ready, self._stillborn = True, 0
        return answer if isinstance(answer, Done) else Done()

    def _spawn(self, kind: Resources) -> None:
        remote = self._ray.remote(Bench).options(
            num_cpus=kind.cpus,
            num_gpus=kind.gpus,
            accelerator_type=kind.accelerator,
            max_restarts=0,
            max_task_retries=0,
        )
        actor = _Actor(handle=remote.remote(self._uri), kind=kind, resources=kind)
        self._actors.append(actor)
        self._refs[actor.handle.__ray_ready__.remote()] = actor
        self._waiting_since = time.monotonic()

    def _dismiss(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        self._refs = {ref: other for ref, other in self._refs.items() if other is not actor}
        self._ray.kill(actor.handle)

    def _lose_patience(self) -> None:
        if time.monotonic() - self._waiting_since > PATIENCE:
            have = self._ray.available_resources()
            kinds = ", ".join(sorted({str(actor.kind) for actor in self._actors if not actor.ready}))
            raise WorkerError(
                f"no Ray actor could be placed in {PATIENCE:.0f} s (wanted: {kinds}; free: "
                f"{have.get('CPU', 0)} CPU, {have.get('GPU', 0)} GPU): add nodes or lower the profile's "
                "needs, then run build again"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What the cluster has of one kind of machine."""

    accelerators: frozenset[str]
    cpus: float
    gpus: float


def capacities(nodes: Iterable[Mapping[str, Any]]) -> list[Capacity]:
    """Return what each living node has, of ``ray.nodes()``."""
    return [
        Capacity(
            accelerators=frozenset(
                name.removeprefix(TYPE) for name in node["Resources"] if name.startswith(TYPE)
            ),
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
        )
        for node in nodes
        if node["Alive"]
    ]


def shares(
    needs: Mapping[Resources, Need], machines: Sequence[Capacity], most: int = 0
) -> dict[Resources, int]:
    """Return how many actors of each kind to have; no kind has more than tasks.

    Kinds that use GPUs have ``most`` together, or as many as have room (``most`` 0); they share by the
    GPU-seconds that wait for each. Others have the CPUs that those leave. Every kind gets one actor at
    least: where there is no room, it waits for its turn or for the cluster to grow.
    """
    spoken_for = 0.0
    targets: dict[Resources, int] = {}
    for kind, need in sorted(needs.items(), key=lambda item: -item[0].gpus):
        fitting = [machine for machine in machines if kind.accelerator in (None, *machine.accelerators)]
        if kind.gpus:
            free = float(most) or sum(machine.gpus for machine in fitting) / kind.gpus
            room = round(free * _part(kind, needs))
        else:
            room = most or int((sum(machine.cpus for machine in fitting) - spoken_for) / kind.cpus)
        targets[kind] = max(1, min(room, need.tasks))
        spoken_for += targets[kind] * kind.cpus if kind.gpus else 0.0
    return targets


def _part(kind: Resources, needs: Mapping[Resources, Need]) -> float:
    """Return the part of the GPUs that a kind may use which falls to it."""
    rivals = {
        other: need.seconds * other.gpus
        for other, need in needs.items()
        if other.accelerator == kind.accelerator or None in (other.accelerator, kind.accelerator)
    }
    return rivals[kind] / sum(rivals.values()) if rivals[kind] else 1 / len(rivals)
