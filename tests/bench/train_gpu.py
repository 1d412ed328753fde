"""How fast does the trainer train on this GPU, beside a plain loop and beside what the GPU could do?

    python -m tests.bench.train_gpu --weights DIR      # builds 6 GB a model there, once
    python -m tests.bench.train_gpu --model sdxl --train lora --way plain --way compile
    python -m tests.bench.train_gpu --tiny             # all of it in tiny shapes, which a CPU can run

SDXL and Stable Diffusion 3.5 Medium at 1024 px: classes and shapes of the real models, weights drawn at
random on the GPU, no download; DPO, by adapters and in full. ``plain`` is a loop as diffusers' example of DPO
has it: a batch encoded in each step, an eager model with checkpointing under autocast, its adapters switched
off (in full: a copy) for the reference, an update every forward pass. It is spared its data: pictures are in
memory, text embeddings known. The others are ``vipo train`` itself, from shards, with as many pairs a forward
pass; what each has beside the one before says its title.

MFU is the FLOPs that the objective needs (`pipeline/train/flops.py`) a second by the peak of the data sheet.
What is computed twice or for nothing (checkpointing, encoders) does not count, so ``+ cached reference`` does
less for a pair and its MFU is not that of the rows above. Goal: 45 % and twice the pairs/s of the plain loop.
"""

from __future__ import annotations

import argparse
import copy
import gc
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from pipeline.errors import VipoError
from pipeline.train.flops import of_forward, peak
from pipeline.train.loop import Run
from pipeline.train.loss import margin, poly_dpo, sample_errors
from pipeline.train.models import Encoder, Policy
from pipeline.train.settings import Data, FamilyName, Model, Objective, Optim, Output, Resolution, Training
from tests.unit.train_shards import write_run
from tests.weights import checkpoints

GOAL_MFU, GOAL_TIMES = 0.45, 2.0
KAPPA = 500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model: ``pairs`` of one forward pass; ``passes`` make an update, ``updates`` are measured."""

    title: str
    family: FamilyName
    side: int
    pairs: int
    passes: int
    updates: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to train: settings that differ from those of ``vipo train`` as it comes."""

    title: str
    model: Mapping[str, Any] = field(default_factory=dict)
    kind: Literal["adamw", "adamw8bit"] = "adamw"
    cache: bool = True
    halved: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What was measured; FLOPs and memory (GB) of the device."""

    pairs: float
    tflops: float
    mfu: float
    waits: float
    memory: float
    opening: float


SUBJECTS = {
    "sdxl": Subject(title="SDXL", family="sdxl", side=1024, pairs=4, passes=4, updates=4),
    "sd3": Subject(title="SD3.5 Medium", family="sd3", side=1024, pairs=4, passes=4, updates=4),
}
CHECKPOINTED = {"checkpointing": True}
COMPILED = {**CHECKPOINTED, "compile": True}
WAYS = {
    "ours": Way(title="ours: eager, latents made", model=CHECKPOINTED, cache=False),
    "latents": Way(title="+ cached latents", model=CHECKPOINTED),
    "compile": Way(title="+ compiled blocks", model=COMPILED),
    "memory": Way(title="+ no checkpointing, half the pairs", model={"compile": True}, halved=True),
    "reference": Way(title="compiled + cached reference", model={**COMPILED, "reference": "cached"}),
    "8bit": Way(title="compiled + 8-bit AdamW", model=COMPILED, kind="adamw8bit"),
}


def main(arguments: list[str] | None = None) -> None:
    """Measure what the command line names and print one Markdown table a model and kind of training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", choices=list(SUBJECTS), action="append", help="default: both")
    parser.add_argument("--train", choices=["lora", "full"], action="append", help="default: both")
    parser.add_argument("--way", choices=["plain", *WAYS], action="append", help="default: all")
    parser.add_argument("--pairs", type=int, help="of one forward pass; default: 4")
    parser.add_argument("--weights", type=Path, help="folder that keeps the checkpoints for another run")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes; needs no GPU")
    given = parser.parse_args(arguments)
    if not (given.tiny or torch.cuda.is_available()):
        raise SystemExit(
            "train bench: this machine has no GPU that torch can use: run it on one, or use --tiny"
        )
    with tempfile.TemporaryDirectory() as scratch:
        for name in given.model or SUBJECTS:
            subject = _small(SUBJECTS[name]) if given.tiny else SUBJECTS[name]
            subject = replace(subject, pairs=given.pairs or subject.pairs)
            weights = _weights(name, given.weights or Path(scratch), given.tiny)
            shards = Path(scratch) / f"shards-{name}"
            count = subject.pairs * subject.passes * subject.updates
            write_run(str(shards), count, shards=1, sizes=((subject.side, subject.side),))
            for train in given.train or ("lora", "full"):
                base = _training(subject, weights, shards, train, Path(scratch) / f"{name}-{train}")
                _report(subject, base, given.way or ["plain", *WAYS])


def _report(subject: Subject, base: Training, ways: list[str]) -> None:
    device = torch.device(base.device)
    best = peak(device, "bf16")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"**{subject.title}, {base.model.train}**, {subject.side} px, {subject.pairs} pairs a forward pass")
    print(f"on {name}, torch {torch.__version__}\n")
    print("| | pairs/s | beside plain | TFLOP/s | MFU | waits | memory, GB | opening, s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    found: dict[str, Speed] = {}
    for way in ways:
        title = "plain loop" if way == "plain" else WAYS[way].title
        _free()
        try:
            speed = _plain(subject, base) if way == "plain" else _ours(subject, base, WAYS[way])
        except (VipoError, RuntimeError) as error:  # out of memory is one
            print(f"| {title} | {' '.join(str(error).split())[:120]} | | | | | | |", flush=True)
            continue
        found[way] = speed
        times = speed.pairs / found["plain"].pairs if "plain" in found else math.nan
        print(
            f"| {title} | {speed.pairs:.3g} | {times:.2f}x | {speed.tflops:.3g} "
            f"| {f'{speed.mfu:.1%}' if best else 'no peak known'} "
            f"| {speed.waits:.0%} | {speed.memory:.1f} | {speed.opening:.0f} |",
            flush=True,
        )
    _compare(found, best)


def _compare(found: Mapping[str, Speed], best: float | None) -> None:
    """Print the limit and how far the goal is."""
    whole = {way: speed for way, speed in found.items() if way not in ("plain", "reference")}
    if not whole:
        return
    fastest = max(whole.values(), key=lambda speed: speed.pairs)
    needed = fastest.tflops / fastest.pairs
    print(f"\n{needed:.4g} TFLOP a pair", end="")
    if best:
        print(f", so at most {best / 1e12 / needed:.3g} pairs/s at {best / 1e12:.4g} TFLOP/s", end="")
        reached = "reached" if fastest.mfu >= GOAL_MFU else "missed"
        print(f"; goal of {GOAL_MFU:.0%} MFU {reached}: {fastest.mfu:.1%}", end="")
    if best and "plain" in found:
        times = max(speed.pairs for way, speed in found.items() if way != "plain") / found["plain"].pairs
        reached = "reached" if times >= GOAL_TIMES else "missed"
        print(f"; goal of {GOAL_TIMES:g} times the plain loop {reached}: {times:.2f}", end="")
    print("\n", flush=True)


def _ours(subject: Subject, base: Training, way: Way) -> Speed:
    """Measure the trainer by its own log: an interval that compiles and warms up, then one that counts."""
    pairs = max(1, subject.pairs // 2) if way.halved else subject.pairs
    training = replace(
        base,
        model=replace(base.model, **way.model),
        data=base.data if way.cache else replace(base.data, cache=None),
        optim=replace(base.optim, kind=way.kind, micro_batch=pairs),
    )
    begun = time.perf_counter()
    run = Run(training, until=2 * subject.updates)
    lines = run.steps(0, training.optim.steps)
    next(lines)
    opening = time.perf_counter() - begun
    measured = next(lines)
    lines.close()  # type: ignore[attr-defined]
    return Speed(
        pairs=measured["pairs_per_second"],
        tflops=measured["tflops"],
        mfu=measured.get("mfu", math.nan),
        waits=measured["data_wait"],
        memory=_memory(),
        opening=opening,
    )


def _plain(subject: Subject, base: Training) -> Speed:
    """Measure the plain loop."""
    begun = time.perf_counter()
    policy = Policy(replace(base.model, reference="cached"), device=base.device, seed=base.seed)
    policy.model.enable_gradient_checkpointing()  # type: ignore[operator]
    told = Encoder(policy, cache=None).condition(["a photo of two cats on a wooden table"])
    told = {name: value.repeat(2 * subject.pairs, *[1] * (value.ndim - 1)) for name, value in told.items()}
    steps = _plain_steps(subject, base, policy, told)
    shape = next(steps)
    count = subject.updates * subject.passes
    for _ in islice(steps, count):
        pass
    opening = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in islice(steps, count):
        pass
    seconds = time.perf_counter() - begun
    noisy, moments = (torch.empty(shape, device="meta"), torch.empty(shape[0], device="meta"))
    flops = count * of_forward(base, policy.model, noisy, moments, told)
    best = peak(policy.device, "bf16")
    return Speed(
        pairs=count * subject.pairs / seconds,
        tflops=flops / seconds / 1e12,
        mfu=flops / seconds / best if best else math.nan,
        waits=0.0,
        memory=_memory(),
        opening=opening,
    )


def _plain_steps(subject: Subject, base: Training, policy: Policy, told: dict[str, Tensor]) -> Iterator[Any]:
    """Yield the shape of the latents, then after each update."""
    device, vae, family = policy.device, policy.pipe.vae, policy.family
    parameters = list(policy.trained().values())
    frozen = copy.deepcopy(policy.model) if base.model.train == "full" else None
    optimizer = torch.optim.AdamW(parameters, lr=base.optim.lr, weight_decay=base.optim.weight_decay)
    pictures = torch.rand(2 * subject.pairs, 3, 1, subject.side, subject.side) * 2 - 1
    with torch.no_grad():
        yield family.encode(vae, pictures[:1].to(device)).expand(2 * subject.pairs, -1, -1, -1).shape
    while True:
        with torch.no_grad():
            latents = family.encode(vae, pictures.to(device))
        noise = torch.randn_like(latents[: subject.pairs]).repeat(2, 1, 1, 1)
        t = torch.rand(subject.pairs, device=device, dtype=torch.float64).repeat(2)
        noisy, target = policy.process.noisy(latents, noise, t), policy.process.target(latents, noise, t)
        moments = policy.process.timestep(t)
        winner, loser = sample_errors(policy.predict(noisy, moments, told), target).chunk(2)
        with torch.no_grad():
            if frozen is None:
                refs = policy.predict_reference(noisy, moments, told)
            else:
                refs = policy._call(frozen, noisy, moments, told)
        ref_winner, ref_loser = sample_errors(refs, target).chunk(2)
        loss = poly_dpo(margin(KAPPA, winner, loser, ref_winner, ref_loser), [0.0]).mean()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # for its progress bar
        yield None


def _training(
    subject: Subject, weights: Path, shards: Path, train: Literal["lora", "full"], scratch: Path
) -> Training:
    cuda = torch.cuda.is_available()
    return Training(
        model=Model(
            family=subject.family,
            weights=str(weights),
            train=train,
            reference="adapters" if train == "lora" else "frozen",
            precision="bf16",
        ),
        data=Data(
            runs=(str(shards),),
            sizes=(Resolution(width=subject.side, height=subject.side),),
            threads=8 if cuda else 1,
            cache=str(scratch / "cache"),
        ),
        objective=Objective(kind="dpo", kappa=KAPPA),
        optim=Optim(lr=1e-6, batch=subject.pairs * subject.passes, micro_batch=subject.pairs, steps=10**6),
        output=Output(folder=str(scratch / "out"), log=subject.updates, checkpoint=10**6),
        device="cuda" if cuda else "cpu",
    )


def _small(subject: Subject) -> Subject:
    return replace(subject, title=f"Tiny {subject.title}", side=64, pairs=2, passes=2, updates=1)


def _weights(name: str, folder: Path, small: bool) -> Path:
    """Return the checkpoint of a model, built if it is not there."""
    if small:
        return checkpoints([name]) / name
    if not (folder / name).exists():
        from tests.weights import full

        default = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        with torch.device("cuda"):
            pipe = {"sdxl": full.sdxl, "sd3": full.sd3}[name]()
        torch.set_default_dtype(default)
        pipe.save_pretrained(folder / name)
        del pipe
        _free()
    return folder / name


def _memory() -> float:
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0


def _free() -> None:
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


if __name__ == "__main__":
    main()
