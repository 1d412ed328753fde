"""The options of a spec, read and checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.config import nearest
from pipeline.errors import ConfigError
from pipeline.generators.base import GeneratorSpec
from pipeline.generators.diffusion import image, video
from pipeline.generators.diffusion.family import Family

FAMILIES: dict[str, Family] = {f.pipeline: f for f in (*image.FAMILIES, *video.FAMILIES)}
"""Every family by the name of its pipeline class; a checkpoint never names a class of its own."""

WHOLE = ("steps", "max_sequence_length")
NUMBERS = ("max_sequence_length", "shift", "cache")
TEXTS = ("negative_prompt", "scheduler")
CHOICES = {
    "pipeline": tuple(FAMILIES),
    "dtype": ("bfloat16", "float16", "float32"),
    "quantise": ("none", "int8", "fp8"),
    "compile": ("none", "blocks"),
    "vae": ("whole", "tiling"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one checkpoint is loaded and run; every one of these changes pixels.

    call: settings by the call's own argument, such as num_inference_steps.
    encode: settings of encoding a prompt: max_sequence_length, in tokens, where the pipeline takes it.
    scheduler: class of diffusers that takes the place of the checkpoint's; ``shift`` its timestep shift.
    quantise: linear layers of the denoiser's blocks by torchao: int8 (weights only: half the memory) or fp8
        (weights and activations, one scale a row: faster if compiled; needs compute capability 8.9).
        Composition stays, fine detail changes.
    cache: threshold of the first-block cache, 0 for none. A step whose first block changes its input by about
        as much as the step before did (relative mean difference) takes over the other blocks' part of that
        step. Quality falls with the threshold: look at pictures before going above 0.1. The pipeline decides
        for a whole batch, so a request is denoised alone.
    compile: "blocks" compiles the repeated blocks (torch.compile); results differ by rounding.
    vae: "tiling" decodes in overlapping tiles where a whole frame exceeds the memory; seams are blended.
    """

    family: Family
    call: Mapping[str, Any]
    encode: Mapping[str, Any]
    negative_prompt: str
    dtype: str
    scheduler: str | None
    shift: float | None
    quantise: str
    cache: float
    compile: str
    vae: str


def read(spec: GeneratorSpec) -> Options:
    """Return the options of ``spec``. Raises ConfigError naming the row, the option and the remedy."""
    where, given = f"generator {spec.name}", dict(spec.options)
    for name in ("pipeline", "steps"):
        if name not in given:
            raise ConfigError(f"{where}: option {name!r} is missing: add it to the row")
    _choice(where, "pipeline", given["pipeline"])
    family = FAMILIES[str(given["pipeline"])]
    for name, value in given.items():
        _check(where, name, value, family)
    if "negative_prompt" in given and family.negative == "none":
        raise ConfigError(f"{where}: {family.pipeline} takes no negative_prompt: remove it")
    if given.get("cache") and not family.cacheable:
        able = ", ".join(name for name, other in FAMILIES.items() if other.cacheable)
        raise ConfigError(f"{where}: {family.pipeline} has no first-block cache: remove it; {able} have")
    limit = {name: given[name] for name in ("max_sequence_length",) if name in given}
    scheduler, shift = given.get("scheduler"), given.get("shift")
    return Options(
        family=family,
        call={argument: given[name] for name, argument in family.options.items() if name in given} | limit,
        encode=limit,
        negative_prompt=str(given.get("negative_prompt", "")),
        dtype=str(given.get("dtype", "bfloat16")),
        scheduler=None if scheduler is None else str(scheduler),
        shift=None if shift is None else float(shift),
        quantise=str(given.get("quantise", "none")),
        cache=float(given.get("cache", 0)),
        compile=str(given.get("compile", "none")),
        vae=str(given.get("vae", "whole")),
    )


def _check(where: str, name: str, value: float | str, family: Family) -> None:
    numbers = {*NUMBERS, *family.options}
    if name in CHOICES:
        _choice(where, name, value)
    elif name not in {*numbers, *TEXTS}:
        remedy = nearest(name, {*CHOICES, *numbers, *TEXTS})
        raise ConfigError(f"{where}: {family.pipeline} has no option {name!r}: {remedy}")
    elif name in TEXTS and not isinstance(value, str):
        raise ConfigError(f"{where}: option {name} = {value!r} must be a text")
    elif name in WHOLE and not (isinstance(value, int) and value > 0):
        raise ConfigError(f"{where}: option {name} = {value!r} must be a whole number above 0")
    elif name in numbers and not (isinstance(value, int | float) and 0 <= value < math.inf):
        raise ConfigError(f"{where}: option {name} = {value!r} must be a number of 0 or more")


def _choice(where: str, name: str, value: float | str) -> None:
    if value not in CHOICES[name]:
        raise ConfigError(
            f"{where}: option {name} = {value!r} is not known: {nearest(str(value), CHOICES[name])}"
        )
