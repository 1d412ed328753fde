"""Quality measures rank a clean picture over every kind of damage, drawn or photographed."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import media
from pipeline.config import Rubric
from pipeline.judges.base import Hosting, Media, Question
from pipeline.judges.measures import quality
from pipeline.judges.table import JUDGES, make_judge
from pipeline.records import Checks

Picture = NDArray[np.uint8]
MEASURES = (quality.pixels, quality.spectrum, quality.information)
NAMES = ("quality-pixels", "quality-spectrum", "quality-information")
NOTHING = Checks()


def scene(seed: int) -> Picture:
    """Draw vivid shapes over a smooth sky and a soft shadow."""
    rng = np.random.default_rng(seed)
    top, bottom = rng.uniform(150, 190, 3), rng.uniform(200, 240, 3)
    share = np.linspace(0, 1, 1024)[:, None, None]
    canvas = np.repeat(top * (1 - share) + bottom * share, 1024, axis=1).round().astype(np.uint8)
    for colour in ((224, 50, 50), (38, 94, 210), (250, 210, 46)):
        x, y = (int(value) for value in rng.integers(180, 840, 2))
        cv2.circle(canvas, (x, y), int(rng.integers(70, 150)), colour, -1, cv2.LINE_AA)
    return canvas


def _noise(picture: Picture, severity: float) -> Picture:
    grain = np.random.default_rng(1).normal(0, 44 * severity, picture.shape)
    return np.asarray(np.clip(picture + grain, 0, 255), np.uint8)


def _blur(picture: Picture, severity: float) -> Picture:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 9 * severity), np.uint8)


def _dark(picture: Picture, severity: float) -> Picture:
    return np.asarray(picture * 2.0 ** (-2 * severity), np.uint8)


def _bright(picture: Picture, severity: float) -> Picture:
    return np.clip(255 * (picture / 255) ** (1 / (1 + severity)) * (1 + 0.2 * severity), 0, 255).astype(
        np.uint8
    )


def _banding(picture: Picture, severity: float) -> Picture:
    levels = 14 - 11 * severity
    return (np.round(picture / 255 * levels) / levels * 255).clip(0, 255).astype(np.uint8)


def _muddy(picture: Picture, severity: float) -> Picture:
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[..., None] / 128 * np.array([112, 100, 74])
    share = 0.2 + 0.6 * severity
    return np.asarray(np.clip(picture * (1 - share) + grey * share, 0, 255), np.uint8)


DAMAGES: tuple[Callable[[Picture, float], Picture], ...] = (_noise, _blur, _dark, _bright, _banding, _muddy)


def score(measure: Callable[..., float | None], picture: Picture) -> float:
    found = measure(media.decode(media.encode(picture[None], 0).data, "image/jpeg"), NOTHING)
    assert found is not None
    return found


@pytest.mark.parametrize("damage", DAMAGES)
def test_at_least_two_measures_see_every_damage(damage: Callable[[Picture, float], Picture]) -> None:
    for seed in range(2):
        clean, bad = scene(seed), damage(scene(seed), 0.9)
        drops = [score(measure, clean) - score(measure, bad) for measure in MEASURES]
        assert sum(drop > 0.3 for drop in drops) >= 2, drops
        assert min(drops) > -0.1, drops


@pytest.mark.parametrize("damage", [_noise, _blur])
@pytest.mark.parametrize("measure", MEASURES)
def test_worse_damage_scores_lower(
    measure: Callable[..., float | None], damage: Callable[[Picture, float], Picture]
) -> None:
    scores = [score(measure, damage(scene(3), severity)) for severity in (0.3, 0.6, 1.0)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("measure", MEASURES)
def test_clean_pictures_are_nearly_faultless(measure: Callable[..., float | None]) -> None:
    assert min(score(measure, scene(seed)) for seed in range(4)) > -0.25


@pytest.mark.parametrize("flat", [0, 128, 255])
@pytest.mark.parametrize("measure", MEASURES)
def test_a_picture_of_one_tone_gets_a_finite_score(measure: Callable[..., float | None], flat: int) -> None:
    assert np.isfinite(score(measure, np.full((1024, 1024, 3), flat, np.uint8)))


@pytest.mark.parametrize("name", NAMES)
def test_judge_prefers_the_clean_side_in_both_orders(name: str) -> None:
    judge = make_judge(JUDGES[name], Hosting())
    judge.open()
    clean, noisy = (media.encode(p[None], 0) for p in (scene(5), _noise(scene(5), 0.8)))
    a, b = (Media(sha256=e.sha256, mime=e.mime, data=e.data) for e in (clean, noisy))
    rubric = Rubric(question="Which picture is of better quality?", criteria=("sharp",))
    questions = [
        Question(id="q", prompt="a", checks=NOTHING, rubric=rubric, a=x, b=y) for x, y in ((a, b), (b, a))
    ]
    assert [answer.choice for answer in judge.ask(questions)] == ["a", "b"]
    judge.close()
