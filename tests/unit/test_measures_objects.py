"""Object measures see every way in which a picture can differ from its prompt."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.judges.measures import objects
from pipeline.media import symbols
from pipeline.media.frames import Frames
from pipeline.records import Checks, ObjectCheck, RelationCheck

Measure = Callable[[Frames, Checks], float | None]
Thing = tuple[str, str, int, int]
"""Name, colour, and the middle in pixels of 1024."""

MEASURES: tuple[Measure, ...] = (objects.pieces, objects.outlines, objects.palette)
STARS_LEFT_OF_A_CAR = Checks(
    objects=(
        ObjectCheck(name="star", count=2, colour="red"),
        ObjectCheck(name="car", count=1, colour="blue"),
    ),
    relations=(RelationCheck(subject=0, relation="left of", object=1),),
)
RIGHT: tuple[Thing, ...] = (
    ("star", "red", 200, 250),
    ("star", "red", 260, 600),
    ("car", "blue", 750, 400),
)


def draw(things: tuple[Thing, ...], size: int = 160) -> Frames:
    """Paint flat silhouettes on a light wall that darkens downwards."""
    wall = np.linspace(238, 222, 1024).round().astype(np.uint8)[:, None, None]
    canvas = np.repeat(np.repeat(wall, 1024, axis=1), 3, axis=2).astype(np.float32)
    for name, colour, x, y in things:
        ink = symbols.silhouette(name, size)
        top, left = y - ink.shape[0] // 2, x - ink.shape[1] // 2
        region = canvas[top : top + ink.shape[0], left : left + ink.shape[1]]
        region += (np.array(symbols.COLOURS[colour]) - region) * (ink[..., None] / 255)
    return canvas.round().astype(np.uint8)[None]


def score(measure: Measure, frames: Frames, checks: Checks = STARS_LEFT_OF_A_CAR) -> float:
    found = measure(frames, checks)
    assert found is not None
    return found


@pytest.mark.parametrize("measure", MEASURES)
def test_a_picture_as_asked_has_no_fault(measure: Measure) -> None:
    assert score(measure, draw(RIGHT)) == 0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "things",
    [
        pytest.param((*RIGHT, ("star", "red", 240, 860)), id="one too many"),
        pytest.param(RIGHT[1:], id="one too few"),
        pytest.param((*RIGHT[:2], ("car", "green", 750, 400)), id="wrong colour"),
        pytest.param((*RIGHT[:2], ("anchor", "blue", 750, 400)), id="wrong object"),
        pytest.param(
            (("star", "red", 700, 250), ("star", "red", 760, 600), ("car", "blue", 200, 400)), id="swapped"
        ),
        pytest.param((), id="nothing at all"),
    ],
)
def test_every_difference_from_the_prompt_is_a_fault(measure: Measure, things: tuple[Thing, ...]) -> None:
    assert score(measure, draw(things)) <= -0.3


@pytest.mark.parametrize("measure", MEASURES)
def test_more_things_too_many_are_a_worse_fault(measure: Measure) -> None:
    more = [(*RIGHT, *(("star", "red", 160 + 200 * i, 860) for i in range(count))) for count in range(4)]
    scores = [score(measure, draw(things)) for things in more]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


@pytest.mark.parametrize("measure", MEASURES)
def test_an_unnamed_colour_is_free(measure: Measure) -> None:
    any_colour = Checks(objects=(ObjectCheck(name="car", count=1, colour=None),))
    assert score(measure, draw((("car", "purple", 500, 500),)), any_colour) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_without_known_objects_nothing_is_measured(measure: Measure) -> None:
    assert measure(draw(RIGHT), Checks()) is None
    assert measure(draw(RIGHT), Checks(objects=(ObjectCheck(name="quokka", count=1, colour=None),))) is None


@pytest.mark.parametrize("measure", MEASURES)
def test_every_object_is_told_from_every_other(measure: Measure) -> None:
    for name in list(symbols.OBJECTS)[::12]:
        only = Checks(objects=(ObjectCheck(name=name, count=1, colour="teal"),))
        assert score(measure, draw(((name, "teal", 500, 500),)), only) == 0
        other = "spider" if name != "spider" else "egg"
        assert score(measure, draw(((other, "teal", 500, 500),)), only) < 0


@pytest.mark.parametrize("measure", MEASURES)
@settings(max_examples=8, deadline=None)
@given(height=st.integers(2, 300), width=st.integers(2, 300), seed=st.integers(0, 99))
def test_any_picture_can_be_measured(measure: Measure, height: int, width: int, seed: int) -> None:
    noise: NDArray[np.uint8] = np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)
    assert np.isfinite(score(measure, noise))
