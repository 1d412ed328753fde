"""Drawn frontal faces, measured by geometry: three views of one question, is this face well formed?

A face is found as the skin-coloured shape in the middle of the picture; an egg fitted to its jaw and ears
gives a frame in which features have known places: x runs from -1 to 1 across the head, y from the middle
of the head (0) to the chin (1). Photographs have no flat skin and abstain, because no geometry here can
tell a melted photograph from a good one.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.frames import Frames
from pipeline.records import Checks

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

cv2.setNumThreads(1)

_SIZE = 384
_WIDE, _TALL = 160, 200
_X = np.linspace(-1, 1, _WIDE, dtype=np.float32)[None] + np.zeros((_TALL, 1), np.float32)
_Y = np.linspace(-0.5, 1, _TALL, dtype=np.float32)[:, None] + np.zeros((1, _WIDE), np.float32)

_FLAT_SKIN = 0.4
"""Least share of one colour in the middle of a drawn face; photographs reach about 0.3."""

_HUE_FIRST = np.array([0.7, 1, 1], np.float32)
"""Weights of Lab: a head may be shaded, but bare skin keeps its hue."""

_WHITE = np.array([97, 0, 1], np.float32)

_STEPS = tuple(range(-30, 31, 3))
_STRETCHES = (1.0, 0.92, 1.08, 1.16, 1.24)
"""Rows by which the first guess of a head's middle may be off, and factors of its height."""

_WORST_FIT = 0.03
"""Largest mean distance of the outline from the egg, as a share of half the head's width."""


def _narrowing(y: NDArray[np.floating]) -> NDArray[np.floating]:
    """How much narrower than an ellipse an egg-shaped head is at height ``y``."""
    return np.asarray(1 - 0.16 * np.clip(y, 0, 1) ** 2)


_INSIDE: Mask = ((_X / _narrowing(_Y)) ** 2 + _Y**2 < 0.88**2) & (_Y > -0.40)


@dataclass(frozen=True, slots=True)
class _Face:
    """Lab pixels [200, 160, 3] in the frame of the head, and how far each is from bare skin (0 to 1)."""

    lab: Floats
    skin: Floats
    ink: Floats


@dataclass(frozen=True, slots=True)
class _Piece:
    """A connected piece of a face: its middle in the frame of the head, and its area in pixels."""

    x: float
    y: float
    area: float


def symmetry(frames: Frames, checks: Checks) -> float | None:
    """Score how alike the two halves of the face are; 0 is a perfect mirror, 1 severity is -1."""
    del checks
    face = _find(frames)
    if face is None:
        return None
    return -11 * _unlike(face.ink)


def features(frames: Frames, checks: Checks) -> float | None:
    """Score by the pieces found: two eyes alike and level, two brows, a nose, one mouth in the middle."""
    del checks
    face = _find(frames)
    if face is None:
        return None
    mouths = _mouths(face)
    return -(_eye_faults(_eyes(face)) + _mouth_faults(mouths) + _brow_faults(face) + _nose_faults(face))


def template(frames: Frames, checks: Checks) -> float | None:
    """Score by where ink lies: features belong in their zones, and all else is bare skin."""
    del checks
    face = _find(frames)
    if face is None:
        return None
    stray = float((face.ink * _OUTSIDE)[_INSIDE].mean())
    empty = sum(weight * max(0.0, 1 - float(face.ink[zone].mean()) / least) for zone, least, weight in _ZONES)
    return -(20 * stray + empty + _brow_faults(face) + _nose_faults(face))


def _find(frames: Frames) -> _Face | None:
    """Return the drawn face in the frame of its head, or None."""
    small = cv2.resize(frames[0], (_SIZE, _SIZE), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (3, 3), 0).astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    skin, share = _skin(lab)
    if share < _FLAT_SKIN:
        return None
    head = _head(np.linalg.norm(lab - skin, axis=2) < 8.5)
    frame = None if head is None else _egg(head)
    if head is None or frame is None:
        return None
    x, y, a, b = frame
    # Hair may hide the ears: then the features themselves say how high and how tall the head is.
    ears = _half_width(head) > 1.08 * a
    stretches, steps = ((1.0,), _STEPS[8:13]) if ears else (_STRETCHES, _STEPS)
    faces = [_settled(lab, skin, (x, y, a, b * taller), steps) for taller in stretches]
    return min(faces, key=lambda found: found[0])[1]


def _half_width(head: NDArray[np.uint8]) -> float:
    """Half the width of the widest row, without the few rows that stick out."""
    return float(np.percentile(head.sum(1)[head.any(1)], 95)) / 2


def _settled(
    lab: Floats, skin: Floats, frame: tuple[float, float, float, float], steps: tuple[int, ...]
) -> tuple[float, _Face]:
    """Move a frame up or down until features lie in their zones; return the stray ink, and the face."""
    x, y, a, b = frame
    ink = _unrolled(lab, skin, frame).ink * _INSIDE
    strays = [float((np.roll(_OUTSIDE, step, axis=0) * ink).mean()) for step in steps]
    best = min(range(len(steps)), key=lambda k: (strays[k], abs(steps[k])))
    face = _unrolled(lab, skin, (x, y + steps[best] * 1.5 / _TALL * b, a, b))
    return float((face.ink * _OUTSIDE)[_INSIDE].mean()), face


def _unrolled(lab: Floats, skin: Floats, frame: tuple[float, float, float, float]) -> _Face:
    """Sample the picture in the frame of a head."""
    x, y, a, b = frame
    patch = cv2.remap(lab, x + _X * a, y + _Y * b, cv2.INTER_LINEAR)
    distance = np.linalg.norm((patch - skin) * _HUE_FIRST, axis=2)
    return _Face(np.asarray(patch, np.float32), skin, np.clip((distance - 8) / 16, 0, 1).astype(np.float32))


def _skin(lab: Floats) -> tuple[Floats, float]:
    """Return the commonest colour in the middle of the picture, and the share that has it."""
    across, down = slice(int(0.36 * _SIZE), int(0.64 * _SIZE)), slice(int(0.3 * _SIZE), int(0.6 * _SIZE))
    pixels = lab[down, across].reshape(-1, 3)
    cells = np.round(pixels / 6).astype(np.int64) + 100
    key = (cells[:, 0] * 256 + cells[:, 1]) * 256 + cells[:, 2]
    values, counts = np.unique(key, return_counts=True)
    near = key == values[counts.argmax()]
    skin = pixels[near].mean(0)
    for _ in range(3):
        near = np.linalg.norm(pixels - skin, axis=1) < 8
        skin = pixels[near].mean(0)
    return skin, float(near.mean())


def _head(skin: Mask) -> NDArray[np.uint8] | None:
    """Return the filled shape of the face: skin pieces in the middle, joined across glasses."""
    opened = cv2.morphologyEx(skin.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, labels, boxes, middles = cv2.connectedComponentsWithStats(opened)
    keep = [k for k in range(1, count) if _central(boxes[k], middles[k])]
    round_brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15))
    joined = cv2.morphologyEx(np.isin(labels, keep).astype(np.uint8), cv2.MORPH_CLOSE, round_brush)
    outlines, _ = cv2.findContours(joined, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return None
    filled = np.zeros_like(joined)
    cv2.drawContours(filled, [max(outlines, key=cv2.contourArea)], -1, 1, -1)
    return np.asarray(filled, np.uint8)


def _central(box: NDArray[np.int32], middle: NDArray[np.float64]) -> bool:
    """Tell a piece of face from a wall or clothes of the same colour, which reach the picture's edge."""
    x, y, width, height, area = (int(value) for value in box)
    inside = x > 0 and y > 0 and x + width < _SIZE and y + height < _SIZE
    near = 0.25 < middle[0] / _SIZE < 0.75 and 0.2 < middle[1] / _SIZE < 0.75
    return inside and near and area >= 30


def _egg(head: NDArray[np.uint8]) -> tuple[float, float, float, float] | None:
    """Fit (x, y, half width, half height) of an egg to the jaw; the widest rows are the ears."""
    rows = np.flatnonzero(head.any(1))
    left = head[rows].argmax(1)
    right = _SIZE - 1 - head[rows][:, ::-1].argmax(1)
    half = (right - left + 1) / 2
    ears = float(rows[half >= 0.97 * half.max()].mean())
    jaw = (rows >= ears + 0.24 * half.max()) & (half > 0.5 * half.max())
    if len(rows) < 0.12 * _SIZE or int(jaw.sum()) < 10:
        return None
    x = float(np.median((left + right)[jaw] / 2))
    fits = [_fit(rows[jaw], half[jaw], ears, ratio) for ratio in np.arange(1.16, 1.46, 0.02)]
    error, y, a, b = min(fits)
    return None if error > _WORST_FIT * a else (x, y, a, b)


def _fit(
    rows: NDArray[np.int64], half: NDArray[np.float64], ears: float, ratio: float
) -> tuple[float, float, float, float]:
    """Return (error, y, a, b) of the egg of one height-to-width ratio that fits the jaw best."""
    a = np.arange(44.0, 112.0)
    b = a * ratio
    middle = ears - 0.06 * b
    y = np.clip((rows[None] - middle[:, None]) / b[:, None], -1, 1)
    error = np.abs(a[:, None] * np.sqrt(1 - y**2) * _narrowing(y) - half).mean(1)
    best = int(error.argmin())
    return float(error[best]), float(middle[best]), float(a[best]), float(b[best])


def _unlike(ink: Floats) -> float:
    """Mean difference of the halves about the best axis; the nose may be drawn in profile and is left out."""
    # So coarse that a feature moved further differs more.
    soft = cv2.GaussianBlur(ink * _INSIDE, (0, 0), 10.0)
    found = []
    for shift in range(-6, 7, 2):
        mirrored = np.roll(soft[:, ::-1], shift, axis=1)
        found.append(float(np.abs(soft - mirrored)[_INSIDE & (np.abs(_X - shift / _WIDE) > 0.16)].mean()))
    return min(found)


def _eyes(face: _Face) -> list[_Piece]:
    """Return the white pieces with something dark in them."""
    white = (np.linalg.norm(face.lab - _WHITE, axis=2) < 13) & _INSIDE
    dark = face.lab[..., 0] < min(28.0, float(face.skin[0]) - 12)
    return [piece for piece, shape in _pieces(white, (17, 13), 40) if int((dark & shape).sum()) >= 6]


def _mouths(face: _Face) -> list[_Piece]:
    """Return the pieces below the eyes that are redder than skin."""
    red = face.lab[..., 1] - face.skin[1] > 14
    return [piece for piece, _ in _pieces(red & _INSIDE & (_Y > 0.1), (5, 5), 60)]


def _pieces(mask: Mask, join: tuple[int, int], least: int) -> list[tuple[_Piece, Mask]]:
    """Return the convex hulls of connected pieces, largest first, gaps up to ``join`` closed."""
    brush = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, join)
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, brush)
    outlines, _ = cv2.findContours(closed, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    found = []
    for outline in outlines:
        hull = np.zeros_like(closed)
        cv2.drawContours(hull, [cv2.convexHull(outline)], -1, 1, -1)
        shape = hull.astype(bool)
        area = float(shape.sum())
        if area >= least:
            found.append((_Piece(float(_X[shape].mean()), float(_Y[shape].mean()), area), shape))
    return sorted(found, key=lambda item: (-item[0].area, item[0].x, item[0].y))


def _eye_faults(eyes: list[_Piece]) -> float:
    if len(eyes) < 2:
        return 1.0 if eyes else 1.6
    pairs = [(left, right) for left in eyes for right in eyes if left.x < 0 < right.x]
    if not pairs:
        return 1.2
    left, right = min(pairs, key=lambda pair: _uneven(*pair))
    spare = [eye for eye in eyes if eye not in (left, right)]
    return _uneven(left, right) + sum(_second(eye, left) for eye in spare)


def _uneven(left: _Piece, right: _Piece) -> float:
    """Return how severely two eyes differ in height, size and distance from the middle."""
    size = abs(float(np.log2(left.area / right.area)))
    return (
        1.9 * max(0.0, abs(left.y - right.y) - 0.015)
        + 0.28 * size
        + 1.0 * max(0.0, abs(left.x + right.x) - 0.04)
    )


def _second(piece: _Piece, first: _Piece) -> float:
    """Return how severe a feature is that should not be there, by its size next to the rightful one."""
    return 0.2 + 0.8 * min(1.0, float(np.sqrt(piece.area / first.area)))


def _mouth_faults(mouths: list[_Piece]) -> float:
    if not mouths:
        return 0.9
    first = min(mouths, key=lambda mouth: abs(mouth.y - 0.57) + 0.3 * abs(mouth.x))
    moved = 2.2 * max(0.0, abs(first.x) - 0.03) + 1.5 * max(0.0, abs(first.y - 0.58) - 0.08)
    swollen = min(1.0, 2 * max(0.0, first.area / 1200 - 1))
    return moved + swollen + sum(_second(mouth, first) for mouth in mouths if mouth is not first)


def _brow_faults(face: _Face) -> float:
    """Compare the ink above the two eyes; a brow of the skin's own colour is not missed."""
    left, right = (float(face.ink[zone].mean()) for zone in _BROWS)
    most = max(left, right)
    return 0.0 if most < 0.05 else 0.7 * max(0.0, 1 - min(left, right) / most - 0.25)


def _nose_faults(face: _Face) -> float:
    light = face.lab[..., 0][_NOSE] / face.skin[0]
    return 0.6 * max(0.0, 1 - float(((light > 0.6) & (light < 0.93)).mean()) / 0.06)


def _box(x: float, y: float, wide: float, tall: float) -> Mask:
    return np.asarray((np.abs(_X - x) < wide) & (np.abs(_Y - y) < tall))


_NOSE = _box(0, 0.23, 0.16, 0.07)
_BROWS = tuple(_box(side * 0.42, -0.30, 0.28, 0.09) & _INSIDE for side in (-1, 1))
_ZONES: tuple[tuple[Mask, float, float], ...] = (
    *((_box(side * 0.42, -0.05, 0.17, 0.06), 0.35, 0.5) for side in (-1, 1)),
    (_box(0, 0.58, 0.2, 0.07), 0.3, 0.9),
)
"""Where features are expected, the least mean ink there, and how severe it is to lack one."""


def _distance() -> Floats:
    """Distance of every pixel from the nearest place where ink belongs, at most 0.25 of half a head."""
    allowed = _box(0, -0.05, 1, 0.07) | _box(0, 0.12, 0.16, 0.2) | _box(0, 0.60, 0.37, 0.12)
    for side in (-1, 1):
        allowed |= _box(side * 0.42, -0.30, 0.32, 0.12)
        allowed |= ((_X - side * 0.42) / 0.36) ** 2 + ((_Y + 0.05) / 0.19) ** 2 < 1
    away = cv2.distanceTransform((~allowed).astype(np.uint8), cv2.DIST_L2, 5)
    far = np.clip(away / (_WIDE / 2), 0, 0.25) / 0.25
    # The chin is always bare: a little ink there is a second mouth.
    return np.asarray(np.where(_box(0, 0.84, 0.4, 0.11), 3.5, far), np.float32)


_OUTSIDE = _distance()
