"""What this machine can run: GPUs, memory, disk, packages, Ray, and each model. Downloads and starts nothing.

Whatever cannot be found out becomes a finding that says so.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import urlsplit

from pipeline import weights
from pipeline.config import Settings, data_root
from pipeline.errors import VipoError
from pipeline.generators.base import GeneratorSpec
from pipeline.generators.table import GENERATORS
from pipeline.judges.base import JudgeSpec
from pipeline.judges.table import JUDGES
from pipeline.rewriters.base import RewriterSpec
from pipeline.rewriters.table import REWRITERS
from pipeline.runners.base import one_line
from pipeline.stages import generator_specs, judge_spec, rewriter_spec
from pipeline.weights import Weights

if TYPE_CHECKING:
    from packaging.requirements import Requirement

Row: TypeAlias = GeneratorSpec | JudgeSpec | RewriterSpec
Area = Literal["gpu", "machine", "packages", "ray", "judge", "model"]
State = Literal["ok", "missing", "unknown"]

PATIENCE = 10.0  # seconds for another program
KNOCK = 2.0  # seconds for a connection
PORTS = {"ray": 10001, "http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A line of the table. ``remedy`` says what to do where ``state`` is not ok."""

    area: Area
    name: str
    state: State
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of this machine; ``memory`` in GB (1e9 bytes)."""

    name: str
    memory: float
    driver: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A row of a table that loads weights; ``gpus`` that it takes."""

    name: str
    weights: Weights
    gpus: float


def diagnose(settings: Settings | None = None, address: str | None = None) -> list[Finding]:
    """Return what there is and what is missing; ``settings`` narrow the models to those that a build uses.

    ``address`` is that of a Ray cluster (default: RAY_ADDRESS). Never raises, never downloads.
    """
    gpus: list[Gpu] = []
    probes: list[tuple[Area, Callable[[], Iterable[Finding]]]] = [
        ("gpu", partial(_gpus, gpus)),
        ("machine", _machine),
        ("packages", partial(_packages, settings.profile.vllm if settings else None)),
        ("ray", partial(_ray, address or os.environ.get("RAY_ADDRESS"))),
        ("judge", partial(_endpoints, settings)),
        ("model", partial(_models, settings, gpus)),
    ]
    findings: list[Finding] = []
    for area, probe in probes:
        try:
            findings += probe()
        except Exception as error:  # noqa: BLE001 one thing that cannot be found out hides no other
            findings.append(Finding(area=area, name="", state="unknown", found=one_line(error)))
    return findings


def _gpus(gpus: list[Gpu]) -> Iterator[Finding]:
    """Yield the GPUs that the driver knows, and put them into ``gpus``."""
    smi = shutil.which("nvidia-smi")
    if smi is None:
        yield Finding(
            area="gpu",
            name="",
            state="missing",
            found="no nvidia-smi, so no NVIDIA GPU or no driver",
            remedy="models need one: use a cluster (RAY_ADDRESS), or the embedded cast (--profile laptop)",
        )
        return
    query = "--query-gpu=name,memory.total,driver_version"
    ran = subprocess.run(  # noqa: S603 the driver's own program
        [smi, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=PATIENCE
    )
    if ran.returncode:
        said = " ".join((ran.stderr or ran.stdout).split())[:200]
        yield Finding(
            area="gpu", name="", state="unknown", found=f"nvidia-smi failed: {said}", remedy="mend the driver"
        )
        return
    for number, line in enumerate(ran.stdout.splitlines()):
        name, memory, driver = (part.strip() for part in line.split(","))
        gpu = Gpu(name=name, memory=float(memory) * (1 << 20) / 1e9, driver=driver)
        gpus.append(gpu)
        found = f"{gpu.name}, {gpu.memory:.0f} GB, driver {gpu.driver}"
        yield Finding(area="gpu", name=str(number), state="ok", found=found)


def _machine() -> Iterator[Finding]:
    yield Finding(area="machine", name="cores", state="ok", found=f"{len(os.sched_getaffinity(0))}")
    known = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    total, free = (int(known[key].split()[0]) * 1024 / 1e9 for key in ("MemTotal", "MemAvailable"))
    yield Finding(area="machine", name="memory", state="ok", found=f"{total:.0f} GB, {free:.0f} GB free")
    places = {
        "disk of this folder": Path.cwd(),
        "disk of VIPO_CACHE": Path(os.environ.get("VIPO_CACHE") or Path.home() / ".cache"),
        "shared memory": Path("/dev/shm"),  # noqa: S108 asked how large it is, nothing is put there
    }
    for name, path in places.items():
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        usage = shutil.disk_usage(there)
        found = f"{usage.total / 1e9:.0f} GB, {usage.free / 1e9:.0f} GB free ({there})"
        yield Finding(area="machine", name=name, state="ok", found=found)


def _packages(vllm: str | None) -> Iterator[Finding]:
    """Yield one finding for the packages of each extra, by what this package itself asks for."""
    from packaging.requirements import Requirement

    extras = metadata.metadata("vipo").get_all("Provides-Extra") or []
    asked: dict[str, list[Requirement]] = {
        extra: [] for extra in ("", *extras) if not (vllm and extra == "vllm")
    }
    for need in map(Requirement, metadata.requires("vipo") or ()):
        for extra, own in asked.items():
            if need.marker.evaluate({"extra": extra}) if need.marker else not extra:
                own.append(need)
    for extra, own in asked.items():
        wrong = [cause for need in own if (cause := _unmet(need))]
        yield Finding(
            area="packages",
            name=extra or "core",
            state="missing" if wrong else "ok",
            found=", ".join([f"{len(own) - len(wrong)} of {len(own)}", *wrong]),
            remedy="" if not wrong else f"pip install 'vipo[{extra}]'" if extra else "pip install vipo",
        )
    if vllm:
        yield _other_python(vllm)


def _unmet(need: Requirement) -> str:
    try:
        version = metadata.version(need.name)
    except metadata.PackageNotFoundError:
        return f"no {need.name}"
    fits = need.specifier.contains(version, prereleases=True)
    return "" if fits else f"{need.name} {version} is not {need.specifier}"


def _other_python(python: str) -> Finding:
    """Look for vllm in another Python; importing it would take a minute."""
    look = "from importlib import metadata; print(metadata.version('vllm'))"
    try:
        ran = subprocess.run(  # noqa: S603 the profile names it
            [python, "-I", "-c", look], capture_output=True, text=True, timeout=PATIENCE
        )
        version = ran.stdout.strip() if ran.returncode == 0 else ""
    except OSError:
        version = ""
    return Finding(
        area="packages",
        name="vllm",
        state="ok" if version else "missing",
        found=f"vllm {version} in {python}" if version else f"no vllm in {python}",
        remedy="" if version else "let the profile's vllm name a Python that has it",
    )


def _ray(address: str | None) -> Iterator[Finding]:
    if address and address not in ("auto", "local"):
        yield _knock("ray", "cluster", address, remedy="start it, or mend RAY_ADDRESS")


def _endpoints(settings: Settings | None) -> Iterator[Finding]:
    for endpoint in settings.profile.endpoints if settings else ():
        for url in endpoint.urls:
            yield _knock(
                "judge", endpoint.judge, url, remedy="start its server, or mend the profile's endpoints"
            )


def _knock(area: Area, name: str, address: str, *, remedy: str) -> Finding:
    """Say whether anything listens at an address."""
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    try:
        socket.create_connection((host, port), timeout=KNOCK).close()
    except OSError as error:
        return Finding(
            area=area,
            name=name,
            state="missing",
            found=f"{host}:{port} does not answer ({error})",
            remedy=remedy,
        )
    return Finding(area=area, name=name, state="ok", found=f"{host}:{port} answers")


def _models(settings: Settings | None, gpus: Sequence[Gpu]) -> list[Finding]:
    """Return a finding for each repository of weights; prefixes are asked side by side."""
    models: dict[str, Model] = {}
    for row in _rows(settings):
        if row.weights:
            model = Model(name=row.name, weights=row.weights, gpus=row.gpus)
            models.setdefault(row.weights.repo, model)
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(partial(_model, gpus=gpus), models.values()))


def _rows(settings: Settings | None) -> list[Row]:
    """Return the rows that a build of ``settings`` uses; if none of them is a model, those of the tables."""
    found: list[Row] = []
    if settings:
        served = {endpoint.judge for endpoint in settings.profile.endpoints}
        for cast in map(settings.cast, settings.categories):
            found += generator_specs(settings, cast).values()
            found += [judge_spec(settings, name) for name in cast.judges if name not in served]
            if cast.rewrite and cast.rewrite.rewriter not in served:
                found.append(rewriter_spec(settings, cast.rewrite.rewriter))
    if any(row.weights for row in found):
        return found
    pins = {pin.repo: pin.revision for pin in weights.read_pins(data_root() / "infra/weights.toml")}
    every: list[Row] = [*GENERATORS.values(), *JUDGES.values(), *REWRITERS.values()]
    root = settings.profile.weights if settings else None
    return [replace(row, weights=_placed(row.weights, pins, root)) for row in every if row.weights]


def _placed(lies: Weights, pins: Mapping[str, str], root: str | None) -> Weights:
    borrowed = _placed(lies.borrowed, pins, root) if lies.borrowed else None
    return replace(lies, revision=pins.get(lies.repo), root=root, borrowed=borrowed)


def _model(model: Model, gpus: Sequence[Gpu]) -> Finding:
    """Say whether the weights are here and fit; what is missing first names the remedy."""
    lies, count = model.weights, int(model.gpus)
    gated = ", gated" if lies.gated else ""
    about = f"{lies.disk:g} GB on disk{gated}, {lies.memory:g} GB of {count} GPU"
    try:
        places = [weights.present(part) for part in (lies, lies.borrowed) if part]
    except VipoError as error:
        return Finding(area="model", name=model.name, state="missing", found=about, remedy=str(error))
    except Exception as error:  # noqa: BLE001 as in diagnose
        return Finding(area="model", name=model.name, state="unknown", found=one_line(error))
    room = sum(sorted((gpu.memory for gpu in gpus), reverse=True)[:count])
    fits = room >= lies.memory or not count
    return Finding(
        area="model",
        name=model.name,
        state="ok" if fits else "missing",
        found=f"{about}; {', '.join(places)}",
        remedy="" if fits else f"needs more than the {room:.0f} GB in {min(count, len(gpus))} GPU here",
    )
