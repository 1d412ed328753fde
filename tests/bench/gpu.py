"""How fast does the adapter render on this GPU, and what does each way to be faster bring?

    python -m tests.bench.gpu --model flux --weights DIR    # or wan; builds 34 GB (wan: 15) there, once
    python -m tests.bench.gpu --tiny                        # all of it in tiny shapes, which a CPU can run

FLUX.1-dev (12B) at 1024x1024 and Wan2.1-1.3B at 1280x720 with 81 frames, in bfloat16: classes, shapes and
steps of the real models, weights drawn at random on the GPU, no download. Everything else is what a build
does: checkpoint on disk, ``DiffusionGenerator``, prompts encoded, frames on the host.

FLOPs are those of matrix products, convolutions and attention, counted by torch.utils.flop_counter in one
real call of the plain denoiser. Utilisation is those FLOPs by the time that denoising took, against the best
rate of a bfloat16 matrix product on this very GPU. It counts what the plain model needs: fp8 and skipped
steps can pass 100 %. Random weights say nothing of how many steps a cache skips in a real model.
"""

from __future__ import annotations

import argparse
import gc
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config import Size
from pipeline.errors import ItemError, VipoError
from pipeline.generators.base import GeneratorSpec, Request
from pipeline.generators.diffusion import DiffusionGenerator
from pipeline.ids import content_id
from pipeline.records import Checks, Prompt
from pipeline.storage import open_store
from pipeline.weights import Weights
from tests.weights import tiny

MATMUL = 8192
"""Side of the square matrices of the ceiling; a GPU reaches its best at about this size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model: ``steps`` are its authors', of which ``measured`` are run: one takes as long as another."""

    title: str
    checkpoint: str
    pipeline: str
    denoiser: str
    size: Size
    steps: int
    measured: int
    items: int
    options: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to run a model: options of the spec, and how many items a call renders."""

    title: str
    options: Mapping[str, float | str] = field(default_factory=dict)
    batch: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What was measured: seconds an item for a step (``step``) and for all but denoising (``rest``).

    ``skipped`` is the share of the denoiser's calls that a cache cut short, ``memory`` the most GB in use,
    ``opening`` seconds to load and for a first call, ``tflops`` those of a step of one item.
    """

    step: float
    rest: float
    skipped: float
    memory: float
    opening: float
    tflops: float


BLOCKS = {"compile": "blocks"}
WAYS = {
    "eager": Way(title="eager"),
    "compile": Way(title="compiled", options=BLOCKS),
    "fp8": Way(title="compiled, fp8", options={**BLOCKS, "quantise": "fp8"}),
    "cache": Way(title="first-block cache 0.1", options={"cache": 0.1}),
    "batch2": Way(title="compiled, batch of 2", options=BLOCKS, batch=2),
    "batch4": Way(title="compiled, batch of 4", options=BLOCKS, batch=4),
}


def main() -> None:
    """Measure what the command line names and print one Markdown table a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=["flux", "wan"], action="append", help="default: both")
    parser.add_argument("--way", choices=list(WAYS), action="append", help="default: all; eager always runs")
    parser.add_argument("--weights", type=Path, help="folder that keeps the checkpoints for another run")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes; needs no GPU")
    given = parser.parse_args()
    if not (given.tiny or torch.cuda.is_available()):
        raise SystemExit(
            "gpu bench: this machine has no GPU that torch can use: run it on one, or use --tiny"
        )
    subjects = _tiny() if given.tiny else {"flux": FLUX, "wan": WAN}
    ways = [way for name, way in WAYS.items() if not given.way or name in ("eager", *given.way)]
    ceiling = _ceiling(256 if given.tiny else MATMUL)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{device}, torch {torch.__version__}: matrix product {ceiling:.1f} TFLOP/s\n", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.model or subjects:
            weights = _weights(subjects[name], given.weights or Path(scratch), given.tiny)
            _report(subjects[name], weights, ways, ceiling)


def _report(subject: Subject, weights: Weights, ways: list[Way], ceiling: float) -> None:
    size = subject.size
    frames = f", {size.frames} frames" if size.fps else ""
    print(f"**{subject.title}**, {size.width}x{size.height}{frames}, {subject.steps} steps\n")
    print("| | s an item | against eager | s a step | rest, s | utilisation | GPU memory, GB | opening, s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    plain = math.nan
    flops = math.nan
    for way in ways:
        try:
            speed = _measure(subject, weights, way)
        except (VipoError, RuntimeError) as error:
            print(f"| {way.title} | {' '.join(str(error).split())[:160]} | | | | | | |", flush=True)
            continue
        seconds = subject.steps * speed.step + speed.rest
        if way is WAYS["eager"]:
            plain, flops = seconds, speed.tflops
        note = f" ({speed.skipped:.0%} of steps skipped)" if speed.skipped else ""
        print(
            f"| {way.title}{note} | {seconds:.2f} | {plain / seconds:.2f}x | {speed.step:.4f} "
            f"| {speed.rest:.2f} | {flops / speed.step / ceiling:.0%} | {speed.memory:.1f} "
            f"| {speed.opening:.0f} |",
            flush=True,
        )
    print(
        f"\n{flops:.4g} TFLOP a step; {subject.measured} steps of {subject.items} items measured\n",
        flush=True,
    )


def _measure(subject: Subject, weights: Weights, way: Way) -> Speed:
    """Render some items after a first call that compiles and warms up."""
    spec = GeneratorSpec(
        name=f"bench/{subject.checkpoint}",
        family="diffusion",
        modality="video" if subject.size.fps else "image",
        licence="none",
        licence_profile="permissive",
        weights=weights,
        batch=way.batch,
        options={"pipeline": subject.pipeline, "steps": subject.measured, **subject.options, **way.options},
    )
    _free()
    begun = time.perf_counter()
    generator = DiffusionGenerator(spec)
    generator.open(open_store(tempfile.gettempdir()))
    try:
        _render(generator, subject, way.batch)
        opening = time.perf_counter() - begun
        items = way.batch * math.ceil(subject.items / way.batch)
        with _watched(subject.denoiser) as watch:
            begun = time.perf_counter()
            _render(generator, subject, items)
            wall = time.perf_counter() - begun
        times, steps = watch.times(), items * subject.measured
        tflops = watch.tflops() * len(times) / steps if way is WAYS["eager"] else math.nan
    finally:
        generator.close()
    return Speed(
        step=sum(times) / steps,
        rest=(wall - sum(times)) / items,
        skipped=sum(one < max(times) / 2 for one in times) / len(times) if "cache" in way.options else 0.0,
        memory=torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0,
        opening=opening,
        tflops=tflops,
    )


def _render(generator: DiffusionGenerator, subject: Subject, items: int) -> None:
    """Render prompts that were never asked for before, so that each is encoded."""
    for result in generator.generate(_request(subject.size) for _ in range(items)):
        if isinstance(result, ItemError):
            raise result


def _request(size: Size) -> Request:
    text = f"a photo of two cats on a wooden table, number {time.perf_counter_ns()}"
    name = content_id("prompt", text=text)
    prompt = Prompt(
        id=name,
        root_id=name,
        category="aesthetics",
        bucket=0,
        text=text,
        subject="cat",
        style="photo",
        checks=Checks(),
        source="bench",
        licence="CC0-1.0",
    )
    return Request(id=name, prompt=prompt, seed=1, size=size)


@dataclass(slots=True)
class Watch:
    """The calls of a denoiser: when each began and ended, and what repeats the first."""

    begun: list[Any] = field(default_factory=list)
    ended: list[Any] = field(default_factory=list)
    repeat: Callable[[], object] | None = None

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.repeat = self.repeat or (lambda: module(*args, **kwargs))
        self.begun.append(_now())

    def after(self, *_: Any) -> None:
        self.ended.append(_now())

    def times(self) -> list[float]:
        return [_between(start, end) for start, end in zip(self.begun, self.ended, strict=True)]

    def tflops(self) -> float:
        """Return what the first call computed, in 1e12 operations."""
        assert self.repeat, "the denoiser was never called"
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.repeat()
        return float(counter.get_total_flops()) / 1e12


@contextmanager
def _watched(kind: str) -> Iterator[Watch]:
    """Watch every denoiser of a class that is loaded: the adapter shows nobody its pipeline."""
    watch = Watch()
    found = [thing for thing in gc.get_objects() if type(thing).__name__ == kind]
    hooks = [m.register_forward_pre_hook(watch.before, with_kwargs=True) for m in found]
    hooks += [m.register_forward_hook(watch.after) for m in found]
    try:
        yield watch
    finally:
        for hook in hooks:
            hook.remove()


def _now() -> Any:
    """Return a moment of the GPU's own clock, without waiting for it."""
    if not torch.cuda.is_available():
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    return event


def _between(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3


def _ceiling(side: int) -> float:
    """Return the best rate of a bfloat16 matrix product in TFLOP/s: median of rounds after a warm-up."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    rates = []
    for _ in range(8):
        start = _now()
        for _ in range(20):
            a @ b
        rates.append(20 * 2 * side**3 / _between(start, _now()) / 1e12)
    return statistics.median(rates[3:])


def _free() -> None:
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _weights(subject: Subject, folder: Path, small: bool) -> Weights:
    """Return the checkpoint of a model, built if it is not there."""
    if small:
        return tiny(subject.checkpoint)
    if not (folder / subject.checkpoint).exists():
        from tests.weights import full

        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            pipe = {"flux": full.flux, "wan": full.wan}[subject.checkpoint]()
        torch.set_default_dtype(default)
        pipe.save_pretrained(folder / subject.checkpoint)
        del pipe
        _free()
    # Nobody published these files: no revision to compare with, and hashing 34 GB would take minutes.
    revision = f"sha256:{'0' * 64}"
    return Weights(repo=subject.checkpoint, disk=34.0, memory=40.0, root=str(folder), revision=revision)


FLUX = Subject(
    title="FLUX.1-dev",
    checkpoint="flux",
    pipeline="FluxPipeline",
    denoiser="FluxTransformer2DModel",
    size=Size(width=1024, height=1024),
    steps=28,
    measured=28,
    items=3,
    options={"guidance": 3.5},
)
WAN = Subject(
    title="Wan2.1-T2V-1.3B",
    checkpoint="wan",
    pipeline="WanPipeline",
    denoiser="WanTransformer3DModel",
    size=Size(width=1280, height=720, frames=81, fps=16),
    steps=50,
    measured=4,
    items=1,
    options={"guidance": 5.0},
)


def _tiny() -> dict[str, Subject]:
    """Return the same two models in tiny shapes."""
    flux = replace(FLUX, title="Tiny FLUX.1", size=Size(width=128, height=128), steps=4, measured=4)
    wan = replace(WAN, title="Tiny Wan2.1", size=Size(width=128, height=128, frames=5, fps=8))
    return {"flux": flux, "wan": wan}


if __name__ == "__main__":
    main()
