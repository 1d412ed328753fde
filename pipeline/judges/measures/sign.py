"""Finds lettering without reading it: the panel, the lines of ink on it, and words outside it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.judges.measures import vision

FRAME = 30 / 1024
"""Rim of a panel that may hold a rule or a rounded corner, as a share of the picture's width."""

SMALLEST_SIDE = 256
"""Pixels to a side below which lettering is too small to take apart."""

FAINTEST = 5.0
"""Contrast of 255 below which nothing counts as ink."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of ink: its mask cut to the ink, and where that stands in the picture, in pixels."""

    left: int
    top: int
    mask: vision.Mask


@dataclass(frozen=True, slots=True, kw_only=True)
class Sign:
    """A panel with lettering. ``paper`` and ``ink`` are RGB; ``cut`` tells that ink runs off the panel."""

    panel: tuple[int, int, int, int]
    paper: NDArray[np.float32]
    ink: NDArray[np.float32]
    lines: tuple[Line, ...]
    cut: bool


def find(pixels: vision.Pixels) -> Sign | None:
    """Return the sign in the middle of the picture, or None where no even surface is found."""
    found = _panel(pixels) if min(pixels.shape[:2]) >= SMALLEST_SIDE else None
    if found is None:
        return None
    (left, top, right, bottom), surface = found
    inside = cv2.blur(pixels[top:bottom, left:right], (3, 3)).astype(np.float32)
    paper = np.asarray(np.median(inside.reshape(-1, 3), axis=0), np.float32)
    contrast = np.abs(inside - paper).max(axis=-1) * (surface > 0)
    rim = round(FRAME * pixels.shape[1])
    strongest = _top_per_cent(contrast[rim:-rim, rim:-rim])
    mask = vision.as_mask(contrast > max(FAINTEST, strongest / 2))
    smallest = 0.00012 * pixels.shape[0] * pixels.shape[1]
    letters, edge = _letters(mask, surface, smallest, rim)
    ink = np.median(inside[contrast > 0.8 * strongest], axis=0) if letters else paper
    return Sign(
        panel=(left, top, right, bottom),
        paper=paper,
        ink=np.asarray(ink, np.float32),
        lines=tuple(_line(row, mask, left, top) for row in _rows(letters)),
        cut=float(np.count_nonzero(mask & edge)) > smallest / 4,
    )


def _top_per_cent(values: NDArray[np.float32]) -> float:
    return float(np.sort(values, axis=None)[-max(1, values.size // 100) :].mean())


def _letters(
    mask: vision.Mask, surface: vision.Mask, smallest: float, rim: int
) -> tuple[list[vision.Piece], vision.Mask]:
    """Return the letters of a mask and the edge at which they are cut; what is no letter is blanked."""
    edge = np.asarray(cv2.dilate(255 - surface, np.ones((5, 5), np.uint8)), np.uint8)
    if any(_is_rule(piece, mask) for piece in vision.pieces(mask, smallest)):
        mask[:rim], mask[-rim:], mask[:, :rim], mask[:, -rim:] = 0, 0, 0, 0
        edge[:, : rim + 2], edge[:, -rim - 2 :] = 255, 255
    letters = []
    for piece in vision.pieces(mask, smallest):
        if _is_strip(piece, mask):
            mask[piece.top : piece.top + piece.height, piece.left : piece.left + piece.width] = 0
        else:
            letters.append(piece)
    return letters, edge


def _is_rule(piece: vision.Piece, mask: vision.Mask) -> bool:
    """Tell whether a piece is a line drawn around the panel."""
    height, width = mask.shape
    return bool(piece.width > 0.85 * width and piece.height > 0.8 * height)


def _is_strip(piece: vision.Piece, mask: vision.Mask) -> bool:
    """Tell whether a piece is the side of a panel rather than a letter."""
    return piece.height > 0.45 * mask.shape[0] and piece.height > 6 * piece.width


def _panel(pixels: vision.Pixels) -> tuple[tuple[int, int, int, int], vision.Mask] | None:
    """Return the box (left, top, right, bottom) of the largest even surface, and its mask in that box.

    Even is what has the commonest colour of the picture's middle; the mask takes in what stands on it.
    """
    small = vision.shrink(pixels[None], 256)
    height, width = small.shape[:2]
    middle = small[height // 5 : -height // 5, width // 5 : -width // 5].reshape(-1, 3).astype(np.int32)
    codes = (middle[:, 0] >> 4 << 8) | (middle[:, 1] >> 4 << 4) | (middle[:, 2] >> 4)
    common = middle[codes == np.bincount(codes).argmax()].mean(axis=0)
    even = vision.as_mask(np.abs(small - common).max(axis=-1) < 12)
    largest = vision.pieces(even, 0.04 * even.size)[:1]
    if not largest or min(largest[0].height, largest[0].width) < 4 * FRAME * width:
        return None
    piece, scale = largest[0], pixels.shape[1] / width
    contours, _ = cv2.findContours(piece.mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = cv2.fillConvexPoly(np.zeros_like(piece.mask), cv2.convexHull(np.concatenate(contours)), 255)
    left, top = round(piece.left * scale), round(piece.top * scale)
    right = min(pixels.shape[1], round((piece.left + piece.width) * scale))
    bottom = min(pixels.shape[0], round((piece.top + piece.height) * scale))
    surface = cv2.resize(hull, (right - left, bottom - top), interpolation=cv2.INTER_NEAREST)
    surface = cv2.copyMakeBorder(surface[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return (left, top, right, bottom), np.asarray(cv2.erode(surface, np.ones((11, 11), np.uint8)), np.uint8)


def _rows(letters: list[vision.Piece]) -> list[list[vision.Piece]]:
    """Group pieces of ink into lines, top to bottom; dots and accents join the nearest line."""
    if not letters:
        return []
    tall = float(np.median([letter.height for letter in letters]))
    rows: list[list[vision.Piece]] = []
    for letter in sorted(letters, key=lambda piece: (_middle(piece), piece.left)):
        if letter.height < 0.5 * tall:
            continue
        if rows and _middle(letter) - np.mean([_middle(other) for other in rows[-1]]) < 0.6 * tall:
            rows[-1].append(letter)
        else:
            rows.append([letter])
    for letter in letters:
        if letter.height < 0.5 * tall:
            min(rows, key=lambda row: abs(_middle(row[0]) - _middle(letter))).append(letter)
    return rows


def _middle(piece: vision.Piece) -> float:
    return piece.top + piece.height / 2


def _line(row: list[vision.Piece], mask: vision.Mask, left: int, top: int) -> Line:
    x0, y0 = min(p.left for p in row), min(p.top for p in row)
    x1, y1 = max(p.left + p.width for p in row), max(p.top + p.height for p in row)
    return Line(left=left + x0, top=top + y0, mask=mask[y0:y1, x0:x1])


STRAY_SIDE = 512


def strays(pixels: vision.Pixels, panel: tuple[int, int, int, int]) -> int:
    """Count the words outside the panel: rows of at least three letter-sized pieces."""
    small = vision.shrink(pixels[None], STRAY_SIDE)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    ground = cv2.medianBlur(cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 25)
    ground = cv2.resize(ground, (grey.shape[1], grey.shape[0]), interpolation=cv2.INTER_LINEAR)
    marks = vision.as_mask(cv2.absdiff(grey, ground) > 55)
    return _words(marks, small.shape[1] / pixels.shape[1], panel)


def _words(mask: vision.Mask, scale: float, panel: tuple[int, int, int, int]) -> int:
    left, top, right, bottom = (round(side * scale) for side in panel)
    mask[max(0, top - 16) : bottom + 16, max(0, left - 22) : right + 16] = 0
    letters = [p for p in vision.pieces(mask, 20) if 9 <= p.height <= 40 and p.width <= 60]
    count = 0
    for row in _rows(letters):
        count += _runs(sorted(row, key=lambda piece: piece.left))
    return count


def _runs(row: list[vision.Piece]) -> int:
    """Count the runs of three or more pieces with gaps below their height."""
    count, run = 0, 1
    for before, after in pairwise(row):
        near = after.left - (before.left + before.width) < 0.7 * before.height
        alike = abs(after.height - before.height) < 0.35 * before.height
        run = run + 1 if near and alike else 1
        count += run == 3
    return count
