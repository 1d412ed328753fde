"""Composition measures see subjects cut off or misplaced, things in the way and a tilted horizon."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.judges.measures import composition
from pipeline.media import symbols
from pipeline.media.frames import Frames
from pipeline.records import Attribute, Checks, ObjectCheck

Measure = Callable[[Frames, Checks], float | None]
Thing = tuple[str, str, int, int, int]
"""Name, colour, the middle in pixels of 1024, and the height."""

MEASURES: tuple[Measure, ...] = (composition.frame, composition.balance, composition.calm)
SUBJECT: Thing = ("trophy", "blue", 341, 680, 320)
CLUTTER: tuple[Thing, ...] = tuple(
    (name, colour, 120 + 130 * i, 110 + 120 * (i % 3), 100)
    for i, (name, colour) in enumerate(
        zip(
            ("key", "egg", "star", "bus", "crow", "fish", "moon"),
            ("red", "orange", "pink", "green", "black", "purple", "yellow"),
            strict=True,
        )
    )
)


def asked(placement: str = "left third") -> Checks:
    return Checks(
        objects=(ObjectCheck(name="trophy", count=1, colour="blue"),),
        attributes=(Attribute(name="placement", value=placement),),
    )


def draw(things: tuple[Thing, ...], tilt: float = 0.0) -> Frames:
    """Paint silhouettes before a pale sky over grey ground; ``tilt`` in degrees."""
    y, x = np.mgrid[:1024, :1024].astype(np.float32)
    ground = y - 655 - math.tan(math.radians(tilt)) * (x - 512) > 0
    canvas = np.where(ground[..., None], (150, 158, 140), (206, 216, 226)).astype(np.float32)
    for name, colour, middle, down, size in things:
        ink = symbols.silhouette(name, size).astype(np.float32) / 255
        top, left = down - ink.shape[0] // 2, middle - ink.shape[1] // 2
        seen = ink[:, max(0, -left) : 1024 - left]
        region = canvas[top : top + size, max(0, left) : max(0, left) + seen.shape[1]]
        region += (np.array(symbols.COLOURS[colour]) - region) * seen[..., None]
    return canvas.round().astype(np.uint8)[None]


def score(measure: Measure, frames: Frames, placement: str = "left third") -> float:
    found = measure(frames, asked(placement))
    assert found is not None
    return found


@pytest.mark.parametrize("measure", MEASURES)
def test_a_picture_staged_as_asked_has_no_fault(measure: Measure) -> None:
    assert score(measure, draw((SUBJECT,))) == 0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "flawed",
    [
        pytest.param(draw((("trophy", "blue", 50, 680, 320),)), id="cut off at the left"),
        pytest.param(draw((("trophy", "blue", 980, 680, 320),)), id="cut off at the right"),
        pytest.param(draw((("trophy", "blue", 780, 680, 320),)), id="in the wrong place"),
        pytest.param(draw((SUBJECT, *CLUTTER)), id="cluttered"),
        pytest.param(draw((SUBJECT,), tilt=7), id="tilted one way"),
        pytest.param(draw((SUBJECT,), tilt=-7), id="tilted the other way"),
    ],
)
def test_every_flaw_is_a_fault(measure: Measure, flawed: Frames) -> None:
    assert score(measure, flawed) <= -0.25


@pytest.mark.parametrize("measure", MEASURES)
def test_a_steeper_tilt_is_worse(measure: Measure) -> None:
    scores = [score(measure, draw((SUBJECT,), tilt)) for tilt in (0, 5, 9, 13)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


@pytest.mark.parametrize("measure", MEASURES)
def test_the_asked_place_decides(measure: Measure) -> None:
    left, centre = draw((SUBJECT,)), draw((("trophy", "blue", 512, 680, 320),))
    assert score(measure, left, "left third") > score(measure, left, "right third")
    assert score(measure, centre, "centre") == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_without_a_known_subject_nothing_is_measured(measure: Measure) -> None:
    assert measure(draw((SUBJECT,)), Checks()) is None


@pytest.mark.parametrize("measure", [composition.frame, composition.balance])
def test_an_empty_picture_cannot_be_measured(measure: Measure) -> None:
    assert measure(np.full((1, 512, 512, 3), 200, np.uint8), asked()) is None


@pytest.mark.parametrize("measure", MEASURES)
@settings(max_examples=8, deadline=None)
@given(height=st.integers(2, 300), width=st.integers(2, 300), seed=st.integers(0, 99))
def test_any_picture_can_be_measured(measure: Measure, height: int, width: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)
    found = measure(noise, asked())
    assert found is None or np.isfinite(found)
