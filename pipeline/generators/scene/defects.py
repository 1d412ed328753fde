"""What the embedded renderer does wrong on purpose, how often, and whom it harms.

A profile is a variant of the renderer: a probability and a range of severities for each kind of defect.
Severity runs from 0 (nothing) over 0.25 (just noticeable at 1024 pixels) to 1 (blatant).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pipeline.records import Defect

_BY_CATEGORY: dict[str, tuple[str, ...]] = {
    "alignment": ("wrong_count", "wrong_colour", "swapped_relation", "wrong_object"),
    "video_alignment": (
        "wrong_count",
        "wrong_colour",
        "swapped_relation",
        "wrong_object",
        "wrong_direction",
        "wrong_camera",
    ),
    "text_rendering": ("misspelt", "missing_letters", "faint_text", "cropped_text", "stray_text"),
    "portrait": ("asymmetric_eyes", "missing_feature", "displaced_mouth", "melted", "double_feature"),
    "composition": ("cropped_subject", "clutter", "off_balance", "tilted_horizon"),
    "aesthetics": ("noise", "blur", "bad_exposure", "banding", "muddy_colours"),
    "visual_quality": ("noise", "blur", "blocking", "bad_exposure", "flicker"),
    "motion_quality": ("jitter", "teleport", "freeze", "ghosting"),
}

KINDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        kind: tuple(category for category, kinds in _BY_CATEGORY.items() if kind in kinds)
        for kind in dict.fromkeys(kind for kinds in _BY_CATEGORY.values() for kind in kinds)
    }
)
"""Kind of defect -> the categories it harms."""

DISTRACTORS = ("noise", "blur", "bad_exposure")
"""Kinds that may mildly show in a category that they do not harm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A defect appears with ``probability`` and a severity drawn evenly from ``low`` to ``high``."""

    probability: float
    low: float = 0.3
    high: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A variant of the renderer. ``always_one`` replaces the rates by one severe defect."""

    name: str
    rates: Mapping[str, Rate]
    distractors: float = 0.0
    always_one: bool = False


def kinds_of(category: str) -> tuple[str, ...]:
    """Return the kinds that harm ``category``; none for a category of the user's own."""
    return _BY_CATEGORY.get(category, ())


def harm(category: str, defects: Collection[Defect]) -> float:
    """Return the summed severity of the defects that harm ``category``; the smaller side should win."""
    return sum(defect.severity for defect in defects if category in KINDS.get(defect.kind, ()))


def draw_defects(
    rng: np.random.Generator,
    profile: Profile,
    category: str,
    possible: Collection[str] | None = None,
) -> tuple[Defect, ...]:
    """Draw what goes wrong with one item; kinds outside ``possible`` fall to another kind of the category.

    A prompt without relations, say, cannot have a swapped one. No possible kind left: no defect.
    """
    kinds = kinds_of(category)
    usable = [kind for kind in kinds if possible is None or kind in possible]
    if not usable:
        return ()
    if profile.always_one:
        return (Defect(kind=usable[int(rng.integers(len(usable)))], severity=_draw(rng, 0.8, 1.0)),)
    drawn: dict[str, float] = {}
    for kind in kinds:
        rate = profile.rates.get(kind, Rate(probability=0.0))
        if rng.random() < rate.probability:
            other = kind if kind in usable else usable[int(rng.integers(len(usable)))]
            drawn.setdefault(other, _draw(rng, rate.low, rate.high))
    for kind in DISTRACTORS:
        if kind not in kinds and rng.random() < profile.distractors:
            drawn[kind] = _draw(rng, 0.1, 0.25)
    return tuple(Defect(kind=kind, severity=severity) for kind, severity in drawn.items())


def _draw(rng: np.random.Generator, low: float, high: float) -> float:
    return round(float(rng.uniform(low, high)), 3)


def _profile(name: str, distractors: float, **percent: int) -> Profile:
    """Build a profile from whole per cents; a kind that is not named never happens."""
    rates = {kind: Rate(probability=value / 100) for kind, value in percent.items()}
    return Profile(name=name, rates=MappingProxyType(rates), distractors=distractors)


_VARIANTS = (
    # A careful all-rounder whose rare errors are of every sort.
    _profile(
        "steady", 0.01,
        wrong_count=14, wrong_colour=12, swapped_relation=15, wrong_object=10,
        wrong_direction=9, wrong_camera=9,
        misspelt=12, missing_letters=10, faint_text=12, cropped_text=10, stray_text=10,
        asymmetric_eyes=12, missing_feature=10, displaced_mouth=12, melted=10, double_feature=10,
        cropped_subject=14, clutter=14, off_balance=14, tilted_horizon=12,
        noise=12, blur=12, bad_exposure=12, banding=10, muddy_colours=10, blocking=11, flicker=10,
        jitter=15, teleport=12, freeze=14, ghosting=12,
    ),
    # Few steps: grainy and soft, letters fall out, subjects run out of the frame, frames repeat.
    _profile(
        "hasty", 0.03,
        wrong_count=25, wrong_colour=10, swapped_relation=18, wrong_object=12,
        wrong_direction=12, wrong_camera=8,
        misspelt=15, missing_letters=26, faint_text=10, cropped_text=16, stray_text=6,
        asymmetric_eyes=20, missing_feature=24, displaced_mouth=10, melted=8, double_feature=8,
        cropped_subject=26, clutter=10, off_balance=16, tilted_horizon=12,
        noise=26, blur=22, bad_exposure=8, banding=12, muddy_colours=6, blocking=20, flicker=10,
        jitter=16, teleport=12, freeze=28, ghosting=10,
    ),
    # Lovely and vague: misreads colours, adds things, faces melt, everything leaves a trail.
    _profile(
        "dreamy", 0.02,
        wrong_count=16, wrong_colour=26, swapped_relation=12, wrong_object=14,
        wrong_direction=8, wrong_camera=16,
        misspelt=26, missing_letters=10, faint_text=20, cropped_text=6, stray_text=10,
        asymmetric_eyes=10, missing_feature=8, displaced_mouth=16, melted=26, double_feature=14,
        cropped_subject=10, clutter=26, off_balance=14, tilted_horizon=16,
        noise=6, blur=26, bad_exposure=16, banding=8, muddy_colours=14, blocking=8, flicker=16,
        jitter=12, teleport=10, freeze=10, ghosting=28,
    ),
    # Loud: blown exposure and posterised skies, crowded frames, stray lettering, jumpy motion.
    _profile(
        "gaudy", 0.02,
        wrong_count=20, wrong_colour=10, swapped_relation=10, wrong_object=24,
        wrong_direction=8, wrong_camera=8,
        misspelt=10, missing_letters=8, faint_text=6, cropped_text=18, stray_text=26,
        asymmetric_eyes=14, missing_feature=6, displaced_mouth=8, melted=12, double_feature=26,
        cropped_subject=18, clutter=28, off_balance=8, tilted_horizon=8,
        noise=8, blur=6, bad_exposure=26, banding=26, muddy_colours=10, blocking=16, flicker=24,
        jitter=28, teleport=18, freeze=6, ghosting=8,
    ),
    # Reads the words, cannot stage them: colours and counts mostly right, places and light wrong.
    _profile(
        "literal", 0.02,
        wrong_count=9, wrong_colour=8, swapped_relation=30, wrong_object=8,
        wrong_direction=20, wrong_camera=16,
        misspelt=8, missing_letters=8, faint_text=26, cropped_text=22, stray_text=10,
        asymmetric_eyes=24, missing_feature=8, displaced_mouth=26, melted=6, double_feature=8,
        cropped_subject=10, clutter=8, off_balance=28, tilted_horizon=26,
        noise=16, blur=8, bad_exposure=16, banding=8, muddy_colours=26, blocking=14, flicker=10,
        jitter=10, teleport=28, freeze=14, ghosting=10,
    ),
)  # fmt: skip

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        profile.name: profile
        for profile in (
            *_VARIANTS,
            Profile(name="flawless", rates={}),
            Profile(name="flawed", rates={}, always_one=True),
        )
    }
)
"""Name -> profile. ``flawless`` and ``flawed`` make pairs whose winner is known."""
