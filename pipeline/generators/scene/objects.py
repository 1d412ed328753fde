"""Scenes of known objects: counted groups (alignment), pictures (aesthetics) and stagings (composition)."""

from __future__ import annotations

import cv2
import numpy as np

from pipeline.generators.base import Request
from pipeline.generators.scene.backdrop import plain
from pipeline.generators.scene.brush import Canvas, glow
from pipeline.generators.scene.damage import DAMAGES
from pipeline.generators.scene.groups import Piece, Plan, plan, possible, spoil
from pipeline.generators.scene.layout import Box, Spot, boxes, spots
from pipeline.generators.scene.paint import background, paste, sprite, sprite_size
from pipeline.generators.scene.scenery import HORIZON
from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.records import Checks, Defect

AIRBORNE = frozenset(
    {"cloud", "crow", "feather", "ghost", "leaf", "lightning bolt", "moon", "plane", "rocket", "satellite"}
    | {"snowflake", "star"}
)
"""Objects that hang in the sky; all others stand on the ground."""

_STAGING = frozenset(("cropped_subject", "clutter", "off_balance", "tilted_horizon"))

Drawn = tuple[Canvas, tuple[Defect, ...]]


def aesthetics_kinds(checks: Checks) -> frozenset[str]:  # noqa: ARG001
    """Any picture can be damaged in any way."""
    return frozenset(DAMAGES)


def alignment_kinds(checks: Checks) -> frozenset[str]:
    """Return what can go wrong with the content of these checks."""
    return possible(checks)


def composition_kinds(checks: Checks) -> frozenset[str]:  # noqa: ARG001
    """Any staging can go wrong in any way."""
    return _STAGING


def draw_alignment(
    request: Request, defects: tuple[Defect, ...], looks: np.random.Generator, errors: np.random.Generator
) -> Drawn:
    """Draw counted groups on a neutral wall, related as asked. Raises ItemError for impossible prompts."""
    width, height = request.size.width, request.size.height
    drawn, done = spoil(errors, plan(looks, request.prompt.checks), defects)
    canvas = plain(looks, width, height)
    for piece, spot, size in _arranged(looks, drawn, width, height):
        paste(canvas, sprite(piece.name, piece.colour, size, looks), spot.x, spot.y)
    return canvas, done


def _arranged(
    rng: np.random.Generator, drawn: Plan, width: int, height: int
) -> list[tuple[Piece, Spot, int]]:
    """Return every piece with its spot and ink height."""
    edge = 0.03 * min(width, height)
    frame = Box(edge, edge, width - edge, height - edge)
    placed = []
    for group, box in zip(drawn.groups, boxes(rng, len(drawn.groups), drawn.relations, frame), strict=True):
        widest = max(_aspect(piece) for piece in group.pieces)
        size, found = spots(rng, len(group.pieces), widest, box, 240 * min(width, height) / 1024)
        order = rng.permutation(len(group.pieces))
        placed += [(group.pieces[int(i)], spot, size) for i, spot in zip(order, found, strict=True)]
    return placed


def _aspect(piece: Piece) -> float:
    wide, tall = sprite_size(piece.name, 64)
    return wide / tall


def draw_aesthetics(
    request: Request,
    defects: tuple[Defect, ...],  # noqa: ARG001 damage to pixels is done to the finished picture
    looks: np.random.Generator,
    errors: np.random.Generator,  # noqa: ARG001
) -> Drawn:
    """Draw the objects of a prompt in a styled landscape."""
    checks = request.prompt.checks
    canvas = _backdrop(request, looks)
    _stand(looks, canvas, [piece for group in plan(looks, checks).groups for piece in group.pieces])
    return canvas, ()


def _backdrop(request: Request, rng: np.random.Generator, grow: float = 1.0, level: bool = False) -> Canvas:
    checks, size = request.prompt.checks, request.size
    style = checks.attribute("style") or request.prompt.style
    light, place = checks.attribute("light") or "", checks.attribute("place") or ""
    width, height = round(size.width * grow), round(size.height * grow)
    return background(rng, style, light, place, width, height, level)


def _stand(rng: np.random.Generator, canvas: Canvas, pieces: list[Piece]) -> None:
    """Line pieces up on the ground, or in the sky if they fly, large and without overlap."""
    for flies in (True, False):
        row = [piece for piece in pieces if (piece.name in AIRBORNE) == flies]
        if row:
            _row(rng, canvas, row, 0.27 if flies else 0.76, len(pieces))


def _row(rng: np.random.Generator, canvas: Canvas, row: list[Piece], middle: float, total: int) -> None:
    height, width = canvas.shape[:2]
    unit = min(width, height) / 1024
    slot = width * 0.9 / len(row)
    tallest = (400 if total == 1 else 300 if total == 2 else 240) * unit
    for index, piece in enumerate(row):
        size = int(min(tallest, slot * 0.74 / _aspect(piece))) // 4 * 4
        x = width * 0.05 + (index + 0.5) * slot + float(rng.uniform(-0.06, 0.06)) * slot
        y = height * (middle + float(rng.uniform(-0.03, 0.03)))
        if piece.name not in AIRBORNE:
            y = min(y + 0.5 * (tallest - size), height * 0.93 - size / 2)
            glow(canvas, x, y + size * 0.5, size * 0.55 * max(0.6, _aspect(piece)), (30, 30, 40), 0.22)
        paste(canvas, sprite(piece.name, piece.colour, size, rng), x, y)


_PLACEMENT = {"left third": 1 / 3, "centre": 1 / 2, "right third": 2 / 3}


def draw_composition(
    request: Request, defects: tuple[Defect, ...], looks: np.random.Generator, errors: np.random.Generator
) -> Drawn:
    """Stage one main object where the prompt wants it. Raises ItemError for counts that do not fit."""
    width, height = request.size.width, request.size.height
    severity = {defect.kind: defect.severity for defect in defects}
    subject = plan(looks, request.prompt.checks).groups[0].pieces[0]
    placement = request.prompt.checks.attribute("placement") or "centre"
    share = _PLACEMENT.get(placement, 0.5)
    tilt = (2.5 + 11.5 * severity.get("tilted_horizon", 0)) if "tilted_horizon" in severity else 0.0
    canvas = _tilted(request, looks, tilt * (1 if errors.random() < 0.5 else -1))
    unit = min(width, height) / 1024
    size = (
        min(int(340 * unit / max(1.0, _aspect(subject) / 1.25)), 340) // 4 * 4
        if unit <= 1
        else int(340 * unit)
    )
    x, y = width * share, height * (HORIZON + 0.19) - size / 2
    x, y, size = _misplaced(errors, subject, severity, (x, y, size), (width, height))
    if "clutter" in severity:
        _clutter(
            errors,
            canvas,
            severity["clutter"],
            Box(x - size * 0.6, y - size * 0.6, x + size * 0.6, y + size * 0.6),
        )
    glow(canvas, x, y + size * 0.5, size * 0.6 * max(0.6, _aspect(subject)), (30, 30, 40), 0.24)
    paste(canvas, sprite(subject.name, subject.colour, size, looks), x, y)
    return canvas, tuple(defect for defect in defects if defect.kind in _STAGING)


def _tilted(request: Request, rng: np.random.Generator, degrees: float) -> Canvas:
    """Draw the backdrop turned by ``degrees``, from a larger one so that no corner stays empty."""
    if degrees == 0:
        return _backdrop(request, rng, level=True)
    canvas = _backdrop(request, rng, 1.34, level=True)
    size = request.size
    turn = cv2.getRotationMatrix2D((canvas.shape[1] / 2, canvas.shape[0] / 2), degrees, 1.0)
    turn[:, 2] -= (canvas.shape[1] - size.width) / 2, (canvas.shape[0] - size.height) / 2
    return np.asarray(cv2.warpAffine(canvas, turn, (size.width, size.height)), np.uint8)


def _misplaced(
    rng: np.random.Generator,
    subject: Piece,
    severity: dict[str, float],
    stand: tuple[float, float, int],
    frame: tuple[int, int],
) -> tuple[float, float, int]:
    """Move the subject off its place, or out of the frame by a share of its width."""
    x, y, size = stand
    width, height = frame
    half = size * _aspect(subject) / 2
    side = (-1 if x < width / 2 else 1) if abs(x - width / 2) > 1 else (-1 if rng.random() < 0.5 else 1)
    if "off_balance" in severity:
        s = severity["off_balance"]
        # Towards the far edge, and up or down: the place that nobody asked for.
        target = half + 0.01 * width if side > 0 else width - half - 0.01 * width
        x += (target - x) * (0.35 + 0.65 * s)
        y += (height - size / 2 - 0.01 * height - y) * (0.3 + 0.7 * s)
    if "cropped_subject" in severity:
        lost = 0.10 + 0.45 * severity["cropped_subject"]
        left = x < width / 2
        x = half - 2 * half * lost if left else width - half + 2 * half * lost
    return x, y, size


def _clutter(rng: np.random.Generator, canvas: Canvas, severity: float, keep: Box) -> None:
    """Scatter small bright objects everywhere but over the subject."""
    height, width = canvas.shape[:2]
    unit = min(width, height) / 1024
    names, colours = list(OBJECTS), list(COLOURS)
    for _ in range(round(3 + 15 * severity)):
        size = int(rng.uniform(60, 130) * unit) // 4 * 4
        name, colour = names[int(rng.integers(len(names)))], colours[int(rng.integers(len(colours)))]
        x, y = float(rng.uniform(0.05, 0.95)) * width, float(rng.uniform(0.08, 0.95)) * height
        if not (keep.x0 - size < x < keep.x1 + size and keep.y0 - size < y < keep.y1 + size):
            paste(canvas, sprite(name, colour, size, rng), x, y)
