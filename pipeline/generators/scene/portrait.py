"""Drawn portraits: a frontal face built from measured parts, so that a judge can measure it again."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.generators.base import Request
from pipeline.generators.scene.brush import (
    Canvas,
    Colour,
    arc,
    ellipse,
    glow,
    gradient,
    lighter,
    mix,
    polygon,
    rounded,
    stroke,
)
from pipeline.generators.scene.scenery import mentions
from pipeline.media.symbols import COLOURS
from pipeline.records import Checks, Defect

SKIN: dict[str, Colour] = {
    "light": (246, 214, 190),
    "tan": (224, 178, 138),
    "brown": (170, 116, 80),
    "dark": (112, 74, 54),
}
HAIR: dict[str, Colour] = {
    "black": (36, 32, 34),
    "brown": (98, 62, 40),
    "blond": (226, 188, 108),
    "red": (176, 76, 38),
    "grey": (150, 150, 154),
    "white": (232, 232, 230),
}
WALLS: tuple[Colour, ...] = (
    (186, 208, 214),
    (206, 214, 190),
    (222, 206, 196),
    (204, 200, 220),
    (216, 216, 210),
)
IRISES: tuple[Colour, ...] = ((70, 110, 150), (84, 120, 78), (96, 66, 40), (60, 60, 66))


@dataclass(frozen=True, slots=True)
class Face:
    """Where a face stands and what it looks like; lengths in pixels."""

    x: float
    y: float
    a: float  # half the width of the head
    b: float  # half its height
    unit: float
    skin: Colour
    hair: Colour
    iris: Colour
    cloth: Colour
    expression: str
    glasses: bool
    hat: bool
    long_hair: bool
    old: bool


_KINDS = frozenset(("asymmetric_eyes", "missing_feature", "displaced_mouth", "melted", "double_feature"))


def kinds(checks: Checks) -> frozenset[str]:  # noqa: ARG001
    """Any face can go wrong in any way."""
    return _KINDS


def draw(
    request: Request, defects: tuple[Defect, ...], looks: np.random.Generator, errors: np.random.Generator
) -> tuple[Canvas, tuple[Defect, ...]]:
    """Draw the face that a prompt's attributes describe; what they leave open is drawn at random."""
    width, height = request.size.width, request.size.height
    face = _face(looks, request.prompt.checks, width, height)
    canvas = _wall(looks, width, height)
    wrong = _wrongs(errors, defects)
    _head(canvas, face)
    _features(canvas, face, wrong)
    if "double_feature" in wrong:
        _extra(errors, canvas, face, wrong["double_feature"])
    _top(canvas, face)
    if "melted" in wrong:
        canvas = _melt(errors, canvas, face, wrong["melted"])
    return canvas, tuple(
        Defect(kind=kind, severity=wrong[kind]) for kind in wrong if kind in kinds(request.prompt.checks)
    )


_MISSING = (("brow", 0.35), ("nose", 0.6), ("mouth", 0.9), ("eye", 1.0))
"""Features that can be missing, and how bad each is."""


def _wrongs(rng: np.random.Generator, defects: tuple[Defect, ...]) -> dict[str, float]:
    """Return the severity of each defect; a missing feature counts by which one is missing."""
    wrong = {defect.kind: defect.severity for defect in defects}
    if "missing_feature" in wrong:
        wrong["missing_feature"] = min(
            (s for _, s in _MISSING), key=lambda s: abs(s - wrong["missing_feature"])
        )
        # What is missing cannot be wrong as well.
        wrong.pop({0.9: "displaced_mouth", 1.0: "asymmetric_eyes"}.get(wrong["missing_feature"], ""), None)
    wrong["_side"] = 1.0 if rng.random() < 0.5 else -1.0
    return wrong


def _face(rng: np.random.Generator, checks: Checks, width: int, height: int) -> Face:
    unit = min(width, height) / 1024

    def ask(name: str, values: tuple[str, ...]) -> str:
        wanted, other = checks.attribute(name), values[int(rng.integers(len(values)))]
        return other if wanted is None else wanted

    gender, age = ask("gender", ("woman", "man")), ask("age", ("adult",))
    long_hair = rng.random() < (0.75 if gender in ("woman", "girl", "female") else 0.08)
    old = mentions(age, "old elder senior sixt sevent eight 60 70 80")
    return Face(
        x=width / 2 + float(rng.uniform(-20, 20)) * unit,
        y=height * 0.46 + float(rng.uniform(-14, 14)) * unit,
        a=float(rng.uniform(200, 222)) * unit,
        b=float(rng.uniform(262, 286)) * unit,
        unit=unit,
        skin=SKIN.get(ask("skin", tuple(SKIN)), SKIN["tan"]),
        hair=HAIR.get(ask("hair", tuple(HAIR)), HAIR["brown"]),
        iris=IRISES[int(rng.integers(len(IRISES)))],
        cloth=COLOURS[list(COLOURS)[int(rng.integers(len(COLOURS) - 1))]],
        expression=ask("expression", ("smiling", "serious")),
        glasses=ask("eyewear", ("none",)) == "glasses",
        hat=ask("headwear", ("none",)) == "hat",
        long_hair=long_hair,
        old=old,
    )


def _wall(rng: np.random.Generator, width: int, height: int) -> Canvas:
    wall = WALLS[int(rng.integers(len(WALLS)))]
    canvas = gradient(width, height, (lighter(wall, 0.15), lighter(wall, -0.08)))
    glow(canvas, width / 2, height * 0.45, min(width, height) * 0.62, (255, 252, 246), 0.35)
    return canvas


def _head(canvas: Canvas, f: Face) -> None:
    """Back hair, shoulders, neck, ears and the plain face."""
    u, shade = f.unit, lighter(f.skin, -0.16)
    if f.long_hair:
        polygon(
            canvas,
            rounded(f.x - f.a * 1.24, f.y - f.b * 1.1, f.a * 2.48, f.b * 2.35, f.a * 1.2),
            lighter(f.hair, -0.12),
        )
    top, bottom = f.y + f.b * 1.28, canvas.shape[0] + 10
    polygon(canvas, rounded(f.x - f.a * 2.0, top, f.a * 4.0, bottom - top + 300 * u, 170 * u), f.cloth)
    ellipse(canvas, f.x, top + 16 * u, f.a * 0.62, 66 * u, lighter(f.cloth, -0.2))
    polygon(canvas, rounded(f.x - f.a * 0.42, f.y + f.b * 0.6, f.a * 0.84, f.b * 0.86, 70 * u), shade)
    for side in (-1, 1):
        ellipse(canvas, f.x + side * f.a * 1.0, f.y + f.b * 0.06, f.a * 0.16, f.b * 0.18, f.skin)
        ellipse(canvas, f.x + side * f.a * 1.0, f.y + f.b * 0.06, f.a * 0.08, f.b * 0.11, shade)
    polygon(canvas, _outline(f), f.skin)
    for side in (-1, 1):
        glow(
            canvas,
            f.x + side * f.a * 0.56,
            f.y + f.b * 0.34,
            f.a * 0.30,
            mix(f.skin, (226, 90, 80), 0.5),
            0.5,
        )


def _outline(f: Face) -> NDArray[np.float64]:
    """An egg: an ellipse that narrows towards the chin."""
    points = arc(0, 0, 1, 1)
    narrow = 1 - 0.16 * np.clip(points[:, 1], 0, 1) ** 2
    return np.stack([f.x + f.a * points[:, 0] * narrow, f.y + f.b * points[:, 1]], axis=1)


def _features(canvas: Canvas, f: Face, wrong: dict[str, float]) -> None:
    side_hit = wrong["_side"]
    missing = wrong.get("missing_feature", 0.0)
    uneven = wrong.get("asymmetric_eyes", 0.0)
    for side in (-1.0, 1.0):
        hit = side == side_hit
        x, y, scale = f.x + side * f.a * 0.42, f.y - f.b * 0.06, 1.0
        if hit and uneven:
            y += (0.05 + 0.22 * uneven) * f.b
            scale = 1 - 0.42 * uneven
        if not (hit and missing == 1.0):
            _eye(canvas, f, x, y, scale)
        if not (hit and missing == 0.35):
            _brow(canvas, f, f.x + side * f.a * 0.42, f.y - f.b * 0.27, side)
    if missing != 0.6:
        _nose(canvas, f, f.x, f.y + f.b * 0.24)
    if missing != 0.9:
        moved = wrong.get("displaced_mouth", 0.0)
        dx = side_hit * (0.08 + 0.42 * moved) * f.a if moved else 0.0
        _mouth(canvas, f, f.x + dx, f.y + f.b * (0.55 - 0.08 * moved), 1.0)
    if f.old:
        _wrinkles(canvas, f)
    if f.glasses:
        _glasses(canvas, f)


def _eye(canvas: Canvas, f: Face, x: float, y: float, scale: float) -> None:
    wide, tall = f.a * 0.22 * scale, f.b * (0.112 if f.expression == "surprised" else 0.086) * scale
    ellipse(canvas, x, y, wide, tall, (250, 250, 248))
    ellipse(canvas, x, y, tall * 0.80, tall * 0.80, f.iris)
    ellipse(canvas, x, y, tall * 0.42, tall * 0.42, (18, 18, 22))
    ellipse(canvas, x + tall * 0.26, y - tall * 0.28, tall * 0.16, tall * 0.16, (255, 255, 255))
    stroke(canvas, arc(x, y, wide, tall, 185, 355), (44, 32, 30), 7 * f.unit * max(0.5, scale))


def _brow(canvas: Canvas, f: Face, x: float, y: float, side: float) -> None:
    lift = {"surprised": 0.075, "serious": -0.02}.get(f.expression, 0.02) * f.b
    inner, outer = (
        (x - side * f.a * 0.21, y - lift + f.b * 0.012),
        (x + side * f.a * 0.23, y - lift + f.b * 0.02),
    )
    stroke(canvas, [inner, (x, y - lift - f.b * 0.03), outer], lighter(f.hair, -0.25), 15 * f.unit)


def _nose(canvas: Canvas, f: Face, x: float, y: float) -> None:
    shade = lighter(f.skin, -0.30)
    stroke(
        canvas,
        [(x - f.a * 0.02, y - f.b * 0.22), (x - f.a * 0.09, y), (x, y + f.b * 0.02)],
        shade,
        9 * f.unit,
    )
    stroke(canvas, arc(x, y - f.b * 0.01, f.a * 0.12, f.b * 0.045, 20, 160), shade, 9 * f.unit)


def _mouth(canvas: Canvas, f: Face, x: float, y: float, scale: float) -> None:
    wide, lip = f.a * 0.34 * scale, mix(f.skin, (196, 62, 74), 0.66)
    if f.expression == "smiling":
        polygon(canvas, arc(x, y - f.b * 0.03 * scale, wide, f.b * 0.15 * scale, 0, 180), lip)
        polygon(
            canvas, arc(x, y - f.b * 0.02 * scale, wide * 0.84, f.b * 0.06 * scale, 0, 180), (252, 250, 246)
        )
    elif f.expression == "surprised":
        ellipse(canvas, x, y + f.b * 0.03, wide * 0.56, f.b * 0.14 * scale, lip)
        ellipse(canvas, x, y + f.b * 0.03, wide * 0.38, f.b * 0.10 * scale, (90, 26, 32))
    else:
        ellipse(canvas, x, y, wide * 0.86, f.b * 0.042 * scale, lip)
        stroke(canvas, [(x - wide * 0.86, y), (x + wide * 0.86, y)], lighter(lip, -0.35), 5 * f.unit)


def _wrinkles(canvas: Canvas, f: Face) -> None:
    shade = lighter(f.skin, -0.16)
    for row in (-0.46, -0.52):
        stroke(
            canvas, arc(f.x, f.y + f.b * (row + 0.06), f.a * 0.36, f.b * 0.06, 215, 325), shade, 4 * f.unit
        )
    for side in (-1, 1):
        start, end = (110, 170) if side > 0 else (10, 70)
        stroke(
            canvas,
            arc(f.x + side * f.a * 0.62, f.y + f.b * 0.36, f.a * 0.2, f.b * 0.2, start, end),
            shade,
            4 * f.unit,
        )


def _glasses(canvas: Canvas, f: Face) -> None:
    dark = (46, 44, 52)
    for side in (-1, 1):
        x, y = f.x + side * f.a * 0.42, f.y - f.b * 0.05
        stroke(canvas, arc(x, y, f.a * 0.31, f.b * 0.165), dark, 9 * f.unit, closed=True)
        stroke(
            canvas, [(x + side * f.a * 0.31, y), (f.x + side * f.a * 0.98, y - f.b * 0.04)], dark, 8 * f.unit
        )
    stroke(canvas, arc(f.x, f.y - f.b * 0.05, f.a * 0.11, f.b * 0.05, 180, 360), dark, 9 * f.unit)


def _top(canvas: Canvas, f: Face) -> None:
    """Hair over the forehead, and the hat."""
    crown = arc(f.x, f.y - f.b * 0.36, f.a * 1.10, f.b * 0.80, 180, 360)
    fringe = arc(f.x, f.y - f.b * 0.40, f.a * 0.86, f.b * 0.24, 360, 180)
    if f.long_hair:
        _locks(canvas, f)
    polygon(canvas, np.concatenate([crown, fringe]), f.hair)
    stroke(
        canvas,
        arc(f.x, f.y - f.b * 0.42, f.a * 0.8, f.b * 0.55, 215, 290),
        lighter(f.hair, 0.18),
        10 * f.unit,
    )
    if f.hat:
        hat = mix(f.cloth, (60, 50, 60), 0.45)
        polygon(canvas, arc(f.x, f.y - f.b * 0.62, f.a * 1.02, f.b * 0.72, 180, 360), hat)
        polygon(
            canvas,
            rounded(f.x - f.a * 1.46, f.y - f.b * 0.68, f.a * 2.92, f.b * 0.13, f.b * 0.06),
            lighter(hat, -0.15),
        )
        polygon(
            canvas, rounded(f.x - f.a * 1.02, f.y - f.b * 0.82, f.a * 2.04, f.b * 0.14, 4), lighter(hat, 0.35)
        )


def _locks(canvas: Canvas, f: Face) -> None:
    """Long hair falls in front of the ears."""
    for side in (-1, 1):
        lock = [
            (0.80, -0.62),
            (1.14, -0.40),
            (1.26, 0.4),
            (1.16, 1.1),
            (0.98, 0.95),
            (0.99, 0.2),
            (0.90, -0.2),
        ]
        points = [(f.x + side * f.a * x, f.y + f.b * y) for x, y in lock]
        polygon(canvas, _smooth(points), f.hair)


def _smooth(points: list[tuple[float, float]]) -> NDArray[np.float64]:
    """Round a closed outline by cutting its corners three times."""
    outline = np.array(points)
    for _ in range(3):
        following = np.roll(outline, -1, axis=0)
        cuts = (0.75 * outline + 0.25 * following, 0.25 * outline + 0.75 * following)
        outline = np.stack(cuts, axis=1).reshape(-1, 2)
    return outline


def _extra(rng: np.random.Generator, canvas: Canvas, f: Face, severity: float) -> None:
    """A third eye, a second nose or a second mouth."""
    scale, which = 0.45 + 0.5 * severity, int(rng.integers(2))
    if which == 0:
        side = -1 if rng.random() < 0.5 else 1
        _eye(canvas, f, f.x + side * f.a * 0.5, f.y + f.b * 0.26, scale)
    else:
        _mouth(canvas, f, f.x + f.a * 0.04, f.y + f.b * 0.78, scale * 0.9)


def _melt(rng: np.random.Generator, canvas: Canvas, f: Face, severity: float) -> Canvas:
    """Warp the face as if it ran: smooth random displacements, largest in its middle."""
    height, width = canvas.shape[:2]
    ys, xs = np.mgrid[0:height, 0:width].astype(np.float32)
    weight = np.exp(-(((xs - f.x) / (f.a * 0.9)) ** 2 + ((ys - f.y - f.b * 0.15) / (f.b * 0.8)) ** 2) * 1.2)
    push = (10 + 62 * severity) * f.unit
    moves = []
    for _ in range(2):
        coarse = rng.uniform(-1, 1, (7, 7)).astype(np.float32)
        moves.append(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) * weight * push)
    return np.asarray(
        cv2.remap(
            canvas, xs + moves[0], ys + moves[1] * 1.3, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        ),
        np.uint8,
    )
