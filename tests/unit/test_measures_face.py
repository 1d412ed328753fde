"""Face measures on drawn faces: every fault costs points, photographs and scenes are not measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.judges.measures import face
from pipeline.records import Checks

Picture = NDArray[np.uint8]
MEASURES = (face.symmetry, face.features, face.template)
NOTHING = Checks()
SKINS = ((246, 214, 190), (224, 178, 138), (170, 116, 80), (112, 74, 54))
INK = (40, 34, 34)


def oval(canvas: Picture, x: float, y: float, rx: float, ry: float, colour: tuple[int, int, int]) -> None:
    cv2.ellipse(canvas, (round(x), round(y)), (round(rx), round(ry)), 0, 0, 360, colour, -1, cv2.LINE_AA)


def drawn(skin: tuple[int, int, int] = SKINS[0], **wrong: float) -> Picture:
    """Draw a face of half width 210 and half height 274; ``wrong`` moves, drops or doubles features."""
    canvas = np.full((1024, 1024, 3), (186, 208, 214), np.uint8)
    x, y, a, b = 512.0, 471.0, 210.0, 274.0
    shade = tuple(round(channel * 0.78) for channel in skin)
    cv2.rectangle(canvas, (424, 640), (600, 900), [round(c * 0.84) for c in skin], -1)
    for side in (-1, 1):
        oval(canvas, x + side * a, y + 0.06 * b, 0.16 * a, 0.18 * b, skin)
    angle = np.linspace(0, 2 * np.pi, 128)
    egg = np.stack(
        [x + a * np.cos(angle) * (1 - 0.16 * np.clip(np.sin(angle), 0, 1) ** 2), y + b * np.sin(angle)], 1
    )
    cv2.fillPoly(canvas, [egg.round().astype(np.int32)], skin, cv2.LINE_AA)
    for side in (-1, 1):
        down = wrong.get("lower_eye", 0.0) * b * (side > 0)
        if not (side > 0 and "no_eye" in wrong):
            eye(canvas, x + side * 0.42 * a, y - 0.06 * b + down, b)
        if not (side > 0 and "no_brow" in wrong):
            oval(canvas, x + side * 0.42 * a, y - 0.28 * b, 0.22 * a, 0.03 * b, INK)
    if "third_eye" in wrong:
        eye(canvas, x + 0.5 * a, y + 0.26 * b, b * 0.8)
    if "no_nose" not in wrong:
        cv2.ellipse(canvas, (512, round(y + 0.23 * b)), (25, 12), 0, 20, 160, shade, 9, cv2.LINE_AA)
    if "no_mouth" not in wrong:
        mouth(canvas, x + wrong.get("mouth_aside", 0.0) * a, y + 0.56 * b)
    if "second_mouth" in wrong:
        mouth(canvas, x + 8, y + 0.8 * b)
    oval(canvas, x, y - 0.78 * b, 1.08 * a, 0.42 * b, (98, 62, 40))
    return canvas


def eye(canvas: Picture, x: float, y: float, b: float) -> None:
    oval(canvas, x, y, 0.153 * b, 0.078 * b, (250, 250, 248))
    oval(canvas, x, y, 0.062 * b, 0.062 * b, (70, 110, 150))
    oval(canvas, x, y, 0.033 * b, 0.033 * b, (18, 18, 22))


def mouth(canvas: Picture, x: float, y: float) -> None:
    oval(canvas, x, y, 62, 12, (176, 66, 70))


def melted(picture: Picture) -> Picture:
    rows, columns = np.mgrid[0:1024, 0:1024].astype(np.float32)
    weight = np.exp(-(((columns - 512) / 190) ** 2) - ((rows - 500) / 220) ** 2)
    return np.asarray(
        cv2.remap(
            picture,
            columns + 60 * weight * np.sin(rows / 60),
            rows + 70 * weight * np.sin(columns / 70 + 1),
            cv2.INTER_LINEAR,
        ),
        np.uint8,
    )


def score(measure: Callable[..., float | None], picture: Picture) -> float:
    found = measure(picture[None], NOTHING)
    assert found is not None
    return found


@pytest.mark.parametrize("skin", SKINS)
@pytest.mark.parametrize("measure", MEASURES)
def test_a_good_face_has_hardly_a_fault(
    measure: Callable[..., float | None], skin: tuple[int, int, int]
) -> None:
    assert score(measure, drawn(skin)) > -0.15


@pytest.mark.parametrize(
    ("wrong", "seen_by"),
    [
        ({"lower_eye": 0.15}, MEASURES),
        ({"no_eye": 1}, MEASURES),
        ({"no_brow": 1}, MEASURES),
        ({"third_eye": 1}, MEASURES[:2]),
        ({"mouth_aside": 0.35}, MEASURES),
        ({"no_nose": 1}, MEASURES[1:]),
        ({"no_mouth": 1}, MEASURES[1:]),
        ({"second_mouth": 1}, MEASURES[1:]),
    ],
)
@pytest.mark.parametrize("skin", SKINS[::2])
def test_each_fault_is_seen_by_two_measures(
    wrong: Mapping[str, float],
    seen_by: tuple[Callable[..., float | None], ...],
    skin: tuple[int, int, int],
) -> None:
    for measure in seen_by:
        assert score(measure, drawn(skin, **wrong)) < score(measure, drawn(skin)) - 0.25, measure


@pytest.mark.parametrize("measure", MEASURES)
def test_a_melted_face_scores_lower(measure: Callable[..., float | None]) -> None:
    assert score(measure, melted(drawn())) < score(measure, drawn()) - 0.2


def test_a_lower_eye_costs_more_the_lower_it_is() -> None:
    scores = [score(face.features, drawn(lower_eye=down)) for down in (0, 0.08, 0.16, 0.24)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("measure", MEASURES)
def test_pictures_without_a_drawn_face_are_not_measured(measure: Callable[..., float | None]) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (24, 24, 3)).astype(np.uint8)
    texture = cv2.resize(coarse, (1024, 1024), interpolation=cv2.INTER_CUBIC)
    square = np.full((1024, 1024, 3), 220, np.uint8)
    cv2.rectangle(square, (300, 300), (700, 700), (224, 178, 138), -1)
    for picture in (texture, np.zeros((1024, 1024, 3), np.uint8), square):
        assert measure(picture[None], NOTHING) is None
