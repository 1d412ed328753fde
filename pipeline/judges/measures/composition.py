"""Is the picture well staged: subject whole and where it was asked for, nothing beside it, level ground?

Three ways, each judging all of it. ``frame`` cuts out patches of named colours and fits a line through
the step from sky to ground. ``balance`` weighs what stands out from its surroundings and turns the
picture until its rows are most even. ``calm`` slides the subject's silhouette over the picture and looks
at the edges that are left.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.judges.measures import vision
from pipeline.media import symbols
from pipeline.media.frames import Frames
from pipeline.records import Checks, ObjectCheck

PLACES = {"left third": 1 / 3, "centre": 1 / 2, "right third": 2 / 3}
"""Where a placement wants the middle of the subject, as a share of the width."""

FOOT = 0.83
"""Where a subject stands well, as a share of the height; lower than that it slips out of the picture."""

Map = NDArray[np.float32]
"""[height, width], from 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """What one way of looking finds; lengths are shares of the frame, ``tilt`` in degrees."""

    left: float
    right: float
    foot: float
    lost: float
    others: float
    tilt: float


def frame(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen in patches of colour; None where no known subject is asked for."""
    subject = _subject(checks)
    if subject is None:
        return None
    pixels = np.asarray(cv2.GaussianBlur(vision.shrink(frames, 512), (3, 3), 0), np.uint8)
    names = vision.colour_names(pixels)
    mask = vision.as_mask(names < len(vision.COLOURS))
    patches = vision.pieces(mask, 90)
    if not patches:
        return None
    colours = vision.lab(pixels)
    alike = [patch for patch in patches if vision.nearest_colour(patch.cut(colours)) == subject.colour]
    mine = (alike or patches)[0]
    found = _staged(mine, subject, pixels.shape, len(patches) - 1, _step_tilt(pixels, mask))
    return -_faults(found, checks)


def balance(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen in what stands out; None as above, or where nothing does."""
    subject = _subject(checks)
    if subject is None:
        return None
    pixels = np.asarray(cv2.GaussianBlur(vision.shrink(frames, 256), (3, 3), 0), np.uint8)
    salience = _salience(pixels)
    mask = vision.as_mask(salience > 30)
    weights = vision.pieces(mask, 20)
    if not weights:
        return None
    mine = max(weights, key=lambda piece: float(piece.cut(salience).sum()))
    others = len(weights) - 1
    return -_faults(_staged(mine, subject, pixels.shape, others, _even_tilt(pixels, mask)), checks)


def calm(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen around the best fit of the silhouette; None as above."""
    subject = _subject(checks)
    if subject is None:
        return None
    pixels = np.asarray(cv2.GaussianBlur(vision.shrink(frames, 512), (3, 3), 0), np.uint8)
    box = _search(pixels, subject)
    left, _, right, bottom = box
    edges = _vivid_edges(pixels)
    outside = max(0.0, -left, right - 1) / (right - left)
    found = Staging(
        left=left,
        right=right,
        foot=bottom,
        lost=outside,
        others=float((_without(edges, box) > 0).sum()) / EDGES_OF_A_THING,
        tilt=_line_tilt(pixels, edges, box),
    )
    return -_faults(found, checks)


def _subject(checks: Checks) -> ObjectCheck | None:
    return next((wanted for wanted in checks.objects if wanted.name in symbols.OBJECTS), None)


def _faults(found: Staging, checks: Checks) -> float:
    """Add up faults, each from 0 (none) over 0.3 (noticed) to 1 (blatant)."""
    cropped = min(1.2, max(0.25, (found.lost - 0.10) / 0.45)) if found.lost > 0.06 else 0.0
    clutter = min(1.2, max(0.2, (found.others - 3) / 15)) if found.others > 2 else 0.0
    tilted = min(1.2, (found.tilt - 2.5) / 11.5) if found.tilt > 3.5 else 0.0
    return cropped + clutter + tilted + _off_balance(found, checks)


def _off_balance(found: Staging, checks: Checks) -> float:
    """Judge how far the subject stands from its place, as a share of the way to the far edge."""
    sunk = (found.foot - FOOT) / (0.99 - FOOT)
    if found.lost > 0.06:
        # Where it runs out of the frame, its distance is no fault of its own.
        return min(1.0, max(0.0, (sunk - 0.3) / 0.7)) if sunk > 0.4 else 0.0
    place = PLACES.get(checks.attribute("placement") or "centre", 0.5)
    half = (found.right - found.left) / 2
    moved = abs(found.left + half - place) / max(0.1, max(place, 1 - place) - half)
    return min(1.0, max(0.25, (moved - 0.35) / 0.65)) if moved > 0.25 else 0.0


def _staged(
    mine: vision.Piece, subject: ObjectCheck, shape: tuple[int, ...], others: float, tilt: float
) -> Staging:
    """Measure the subject's box, and what of it is lost at the frame's edge."""
    height, width = shape[:2]
    return Staging(
        left=mine.left / width,
        right=(mine.left + mine.width) / width,
        foot=(mine.top + mine.height) / height,
        lost=_lost(mine, subject.name, width),
        others=others / SEEN,
        tilt=tilt,
    )


def _lost(mine: vision.Piece, name: str, width: int) -> float:
    """Return the share of the silhouette's width that must be cut off to leave what is seen."""
    left, right = mine.left <= 1, mine.left + mine.width >= width - 1
    if left == right:
        return 0.0
    drawn = symbols.silhouette(name, 96)
    whole = np.ascontiguousarray(drawn if left else drawn[:, ::-1])
    seen = _grid(mine.mask if left else np.ascontiguousarray(mine.mask[:, ::-1]))
    shares = np.arange(0.0, 0.8, 0.025)
    misfits = [float(np.abs(_grid(_inked(whole[:, int(s * whole.shape[1]) :])) - seen).sum()) for s in shares]
    return float(shares[int(np.argmin(misfits))])


def _inked(mask: vision.Mask) -> vision.Mask:
    """Cut a mask to the rows and columns that hold its largest piece."""
    found = vision.pieces(vision.as_mask(mask > 127), 1)
    return found[0].mask if found else mask


def _grid(mask: vision.Mask) -> Map:
    """Return a mask on a common grid, and its proportions, as one row of features."""
    grid = cv2.resize(mask, (24, 24), interpolation=cv2.INTER_AREA).astype(np.float32).ravel() / 255
    return np.append(grid, 150 * np.log(mask.shape[1] / mask.shape[0])).astype(np.float32)


SEEN = 0.55
"""Share of scattered things that are seen apart: others hide one another."""


# Salience.


def _salience(pixels: vision.Pixels) -> Map:
    """Return the distance in L*a*b* of each pixel from its surroundings and from its row."""
    colours = vision.lab(pixels)
    tiny = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_AREA)
    size = (pixels.shape[1], pixels.shape[0])
    around = cv2.resize(cv2.medianBlur(tiny, 31), size, interpolation=cv2.INTER_LINEAR)
    from_around = np.linalg.norm(colours - vision.lab(np.asarray(around, np.uint8)), axis=-1)
    from_row = np.linalg.norm(colours - np.median(colours, axis=1, keepdims=True), axis=-1)
    return np.asarray(np.minimum(from_around, from_row), np.float32)


# Search by silhouette.

HEIGHTS = tuple(0.14 * 1.07**step for step in range(20))
"""Heights of a subject that are tried, as shares of the frame: 0.14 to 0.5."""


def _search(pixels: vision.Pixels, subject: ObjectCheck) -> tuple[float, float, float, float]:
    """Return left, top, right, bottom of the best fitting silhouette, as shares of the frame.

    It may reach over the sides of the frame: only what lies inside is compared.
    """
    small = vision.shrink(pixels[None], 128)
    height, width = small.shape[:2]
    alike = _alike(small, subject.colour)
    pad = width // 2
    padded = cv2.copyMakeBorder(alike, 0, 0, pad, pad, cv2.BORDER_CONSTANT, value=0)
    inside = cv2.copyMakeBorder(np.ones_like(alike), 0, 0, pad, pad, cv2.BORDER_CONSTANT, value=0)
    best = (-1.0, (0.0, 0.0, 1.0, 1.0))
    for share in HEIGHTS:
        drawn = symbols.silhouette(subject.name, max(8, round(share * height))).astype(np.float32) / 255
        if drawn.shape[0] > height or drawn.shape[1] > padded.shape[1]:
            continue
        covered = cv2.matchTemplate(padded, drawn, cv2.TM_CCORR)
        offered = cv2.matchTemplate(inside, drawn, cv2.TM_CCORR)
        fit = 2 * covered / (float(alike.sum()) + offered + 1.0)
        _, score, _, (x, y) = cv2.minMaxLoc(fit)
        if score > best[0]:
            left, top = (x - pad) / width, y / height
            best = (score, (left, top, left + drawn.shape[1] / width, top + drawn.shape[0] / height))
    return best[1]


def _alike(pixels: vision.Pixels, colour: str | None) -> Map:
    """Return how near each pixel is to the wanted colour, or to any named one, from 0 to 1."""
    distances = vision.colour_distances(vision.lab(pixels))
    near = (
        distances[..., vision.COLOURS.index(colour)] if colour in vision.COLOURS else distances.min(axis=-1)
    )
    return np.asarray(np.exp(-((near / 20) ** 2)), np.float32)


EDGES_OF_A_THING = 115.0
"""Pixels of edge, at 512 to the frame, that one small thing brings."""


def _vivid_edges(pixels: vision.Pixels) -> vision.Mask:
    """Return edges of colour; those of lightness only in the dark.

    So windows, hills and clouds leave no edge, but things do, black ones too.
    """
    colours = vision.lab(pixels)
    vivid = np.dstack([colours[..., 1] + 128, colours[..., 2] + 128, np.minimum(colours[..., 0], 45) * 1.5])
    calm = cv2.medianBlur(vivid.clip(0, 255).astype(np.uint8), 5)
    return np.asarray(cv2.Canny(calm, 80, 160, L2gradient=True), np.uint8)


def _without(edges: vision.Mask, box: tuple[float, float, float, float]) -> vision.Mask:
    """Blank the box and a narrow strip around it."""
    height, width = edges.shape
    left, top, right, bottom = box
    strip = 0.025
    blank = edges.copy()
    rows = slice(max(0, int((top - strip) * height)), max(0, int((bottom + strip) * height)))
    blank[rows, max(0, int((left - strip) * width)) : max(0, int((right + strip) * width))] = 0
    return blank


# Three ways to find the horizon, in degrees off level.

STEEPEST = 18.0


def _step_tilt(pixels: vision.Pixels, things: vision.Mask) -> float:
    """Vote for the line through the largest step in colour of each column; things have no vote."""
    reach = 6
    colours = vision.lab(vision.shrink(pixels[None], 256))
    height, width = colours.shape[:2]
    if height < 4 * reach:
        return 0.0
    sums = np.cumsum(colours, axis=0)
    above, below = sums[reach : -2 * reach] - sums[: -3 * reach], sums[3 * reach :] - sums[2 * reach : -reach]
    steps = np.linalg.norm(above - below, axis=-1) / reach
    near = cv2.dilate(cv2.resize(things, (width, height)), np.ones((25, 7), np.uint8))[: len(steps)]
    steps[np.roll(near, -3 * reach // 2, axis=0) > 0] = 0
    rows, columns = steps.argmax(axis=0), np.arange(width)
    free = steps.max(axis=0) > 1
    angles = np.arange(-STEEPEST, STEEPEST + 0.1, 0.5)
    lines = rows[free] - np.tan(np.radians(angles))[:, None] * (columns[free] - width / 2)
    bins = np.maximum(lines + width, 0).astype(int) // 3
    votes = [np.bincount(row, minlength=1).max() for row in bins]
    return float(abs(angles[_plateau(np.array(votes, float))]))


def _plateau(scores: NDArray[np.float64]) -> int:
    """Return the middle of the highest places of a row of scores."""
    return int(np.median(np.flatnonzero(scores >= 0.97 * scores.max())))


def _even_tilt(pixels: vision.Pixels, things: vision.Mask) -> float:
    """Turn the picture until its rows differ most from one another; things do not count."""
    height, width = pixels.shape[:2]
    free = cv2.dilate(things, np.ones((7, 7), np.uint8)) == 0
    y, x = np.nonzero(free)
    colours = vision.lab(pixels)[free]
    angles = np.arange(-STEEPEST, STEEPEST + 0.1, 1.0)
    contrasts = [_contrast_of_rows(x - width / 2, y - height / 2, colours, angle) for angle in angles]
    return float(abs(angles[_plateau(np.array(contrasts))]))


def _contrast_of_rows(
    x: NDArray[np.float64], y: NDArray[np.float64], colours: vision.Lab, angle: float
) -> float:
    turn = np.radians(angle)
    row = ((y * np.cos(turn) - x * np.sin(turn)) + 256).astype(np.int32)
    counts = np.bincount(row, minlength=512).astype(float)
    means = [np.bincount(row, weights=colours[:, i], minlength=512) / np.maximum(counts, 1) for i in range(3)]
    weight = np.minimum(counts[1:], counts[:-1])
    return float(sum((np.diff(mean) ** 2 * weight).sum() for mean in means))


def _line_tilt(pixels: vision.Pixels, vivid: vision.Mask, box: tuple[float, float, float, float]) -> float:
    """Take the longest straight edge that is nearly level; none: level."""
    soft = cv2.GaussianBlur(pixels, (0, 0), 2)  # grain has no lines
    edges = _without(np.asarray(cv2.Canny(soft, 10, 30, L2gradient=True), np.uint8), box)
    edges[cv2.dilate(vivid, np.ones((9, 9), np.uint8)) > 0] = 0
    width = edges.shape[1]
    lines = cv2.HoughLinesP(edges, 1, np.pi / 360, 60, minLineLength=width // 6, maxLineGap=width // 16)
    if lines is None:
        return 0.0
    x0, y0, x1, y1 = lines.reshape(-1, 4).T.astype(float)
    angles, lengths = np.degrees(np.arctan2(y1 - y0, x1 - x0)), np.hypot(x1 - x0, y1 - y0)
    lengths = np.where(np.abs(angles) <= STEEPEST, lengths, 0)
    return float(abs(angles[lengths.argmax()])) if lengths.any() else 0.0
