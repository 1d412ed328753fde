"""The table of generators: one row a generator; nothing else in the project knows a model's name."""

from __future__ import annotations

from pipeline.generators.base import Generator, GeneratorSpec
from pipeline.records import Modality

OURS = "Apache-2.0"


def _scene(profile: str, modality: Modality, seconds: float) -> GeneratorSpec:
    """A variant of the embedded renderer; ``version`` rises whenever its pixels change."""
    return GeneratorSpec(
        name=f"scene/{profile}" if modality == "image" else f"scene/{profile}-video",
        family="scene",
        modality=modality,
        licence=OURS,
        licence_profile="permissive",
        seconds=seconds,
        options={"profile": profile, "version": 1},
    )


_PROFILES = ("steady", "hasty", "dreamy", "gaudy", "literal", "flawless", "flawed")
"""Variants of the renderer, each described in scene/defects.py; the last two make gold pairs."""

_ROWS = (
    *(_scene(profile, "image", 0.1) for profile in _PROFILES),
    *(_scene(profile, "video", 1.5) for profile in _PROFILES),
)

GENERATORS: dict[str, GeneratorSpec] = {row.name: row for row in _ROWS}


def make_generator(spec: GeneratorSpec) -> Generator:
    """Return the adapter of the spec's family, not yet opened."""
    from pipeline.generators.scene import SceneGenerator

    return {"scene": SceneGenerator}[spec.family](spec)
