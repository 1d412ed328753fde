"""What the camera does, seen three ways: features that move alike, dense flow, and a search for overlap.

A ``Move`` is how the picture's content goes from one frame to another: ``x`` and ``y`` in shares of the
width (content going right is positive: the camera pans left), ``zoom`` as a factor about the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.judges.measures import vision
from pipeline.media.frames import Frames

WIDTH = 320

_FEW = 12
"""Corners fewer than this are no evidence."""

_DIFFERENT = 36
"""Levels by which something stands out of the background."""

_STILL = 0.002
"""Moves smaller than this, in shares of the width, are none."""

_SPREAD = 0.4
"""Pixels by which flow may scatter round the camera's share of it."""

Grey = NDArray[np.uint8]
"""[height, width]."""
Flow = NDArray[np.float32]
"""[height, width, 2]: pixels right and down."""


@dataclass(frozen=True, slots=True)
class Move:
    """Shift in shares of the width, and zoom factor."""

    x: float = 0.0
    y: float = 0.0
    zoom: float = 1.0

    def then(self, other: Move) -> Move:
        """Return this move followed by another."""
        return Move(self.x * other.zoom + other.x, self.y * other.zoom + other.y, self.zoom * other.zoom)

    def matrix(self, width: int, height: int) -> NDArray[np.float64]:
        """Return the move as a 2x3 matrix that takes pixels to where they went."""
        x = (1 - self.zoom) * width / 2 + self.x * width
        y = (1 - self.zoom) * height / 2 + self.y * width
        return np.array([[self.zoom, 0, x], [0, self.zoom, y]])


Estimate = Callable[[vision.Pixels, vision.Pixels], Move | None]
"""Two frames to the move between them, None if it cannot be told."""


def shrunk(frames: Frames, indices: Sequence[int] | None = None) -> Frames:
    """Return the frames at ``WIDTH`` pixels (never enlarged)."""
    chosen = range(len(frames)) if indices is None else indices
    return np.stack([vision.shrink(frames, WIDTH, index) for index in chosen])


def grey(pixels: vision.Pixels) -> Grey:
    """Return lightness."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)


def ground(pixels: vision.Pixels) -> Grey:
    """Mark what may be background: everything but the neighbourhood of named and vivid colours."""
    channels = cv2.split(pixels)
    vivid = cv2.subtract(_largest(channels), 255 - _largest([255 - channel for channel in channels])) > 96
    named = vision.colour_names(pixels) < len(vision.COLOURS)
    # At night half of the world may be as good as black.
    figure = vivid | named if named.mean() < 0.4 else vivid
    wide = cv2.dilate(figure.astype(np.uint8) * np.uint8(255), np.ones((9, 9), np.uint8))
    return np.asarray(255 - wide, np.uint8)


def track(small: Frames, estimate: Estimate) -> list[Move] | None:
    """Return the move from the first frame to each; None where one step cannot be told."""
    moves = [Move()]
    for before, after in pairwise(small):
        step = estimate(before, after)
        if step is None:
            return None
        moves.append(moves[-1].then(step))
    return moves


def between(first: Move, second: Move) -> Move:
    """Return the move that leads from where ``first`` ends to where ``second`` ends."""
    zoom = second.zoom / first.zoom
    return Move(second.x - first.x * zoom, second.y - first.y * zoom, zoom)


def lay(small: Frames, moves: Sequence[Move]) -> tuple[Frames, NDArray[np.bool_]]:
    """Lay all frames over the middle one; return them and where each shows something, [frames, h, w]."""
    height, width = small.shape[1:3]
    laid, seen = small.copy(), np.ones(small.shape[:3], np.bool_)
    back = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for index, move in enumerate(moves):
        step = between(moves[len(moves) // 2], move)
        if max(abs(step.x), abs(step.y), abs(step.zoom - 1)) < _STILL:
            continue
        matrix, size = step.matrix(width, height), (width, height)
        cv2.warpAffine(small[index], matrix, size, laid[index], back, cv2.BORDER_REPLICATE)
        white = np.full((height, width), 255, np.uint8)
        seen[index] = cv2.warpAffine(white, matrix, size, flags=back) == 255
    return laid, seen


def standing_out(laid: Frames, seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return how far each frame differs from the background at its place, [frames, h, w] in levels."""
    chosen = laid[:: max(1, len(laid) // 9)]
    free = np.stack([ground(pixels) > 0 for pixels in chosen])[..., None]
    times = free.sum(axis=0)
    mean = (chosen * free).sum(axis=0) / np.maximum(times, 1)
    # Where figures are always in the way, what is there most of the time must do.
    usual = np.where(times > 0, mean, np.median(chosen, axis=0)).astype(np.uint8)
    differences = [_largest(cv2.split(cv2.absdiff(pixels, usual))) for pixels in laid]
    return np.asarray(np.stack(differences) * seen, np.float32)


def distinct(difference: NDArray[np.float32]) -> vision.Mask:
    """Mark what stands out of one frame clearly and is more than an edge."""
    mask = (difference > _DIFFERENT).astype(np.uint8) * np.uint8(255)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), np.uint8)


def by_features(before: vision.Pixels, after: vision.Pixels) -> Move | None:
    """Follow corners and keep the similarity that most of them share."""
    first, second = grey(before), grey(after)
    corners = cv2.goodFeaturesToTrack(first, 200, 0.004, 5, mask=ground(before))
    if corners is None or len(corners) < _FEW:
        return None
    found, status, _ = cv2.calcOpticalFlowPyrLK(first, second, corners, np.empty(0), winSize=(15, 15))
    kept = status.ravel() == 1
    if kept.sum() < _FEW:
        return None
    # The sampling inside RANSAC has a fixed seed, so that the same frames give the same move.
    cv2.setRNGSeed(0)
    matrix, inside = cv2.estimateAffinePartial2D(
        corners[kept], found[kept], method=cv2.RANSAC, ransacReprojThreshold=0.7
    )
    if matrix is None or inside.sum() < max(_FEW, 0.4 * kept.sum()):
        return None
    return _move(np.asarray(matrix, np.float64), first)


def by_flow(before: vision.Pixels, after: vision.Pixels) -> Move | None:
    """Fit shift and zoom to the dense flow where the background has texture."""
    first, mask = grey(before), ground(before)
    flow = dense_flow(first, grey(after))
    height, width = first.shape
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2])[:, None, None]
    across, down = _steep(first, mask, (1, 0)), _steep(first, mask, (0, 1))
    if across.sum() < _FEW * 8 or down.sum() < _FEW * 8:
        return None
    shift_x, zoom_x, error_x = _line(x[across], flow[..., 0][across])
    shift_y, zoom_y, error_y = _line(y[down], flow[..., 1][down])
    if max(error_x, error_y) > _SPREAD:
        return None
    weight = float(across.sum() / (across.sum() + down.sum()))
    return Move(shift_x / width, shift_y / width, 1 + weight * zoom_x + (1 - weight) * zoom_y)


def by_overlap(before: vision.Pixels, after: vision.Pixels) -> Move:
    """Try pans and zooms, from coarse to fine, and keep what leaves the smallest difference."""
    first, second = (np.asarray(cv2.GaussianBlur(grey(p), (0, 0), 1.2), np.uint8) for p in (before, after))
    masks = ground(before), ground(after)
    best = Move()
    for reach, count in ((0.16, 17), (0.02, 5), (0.005, 5)):
        pans = [Move(best.x + float(d), 0.0, 1.0) for d in np.linspace(-reach, reach, count)]
        factors = 1 + np.linspace(-2 * reach, 2 * reach, count)
        zooms = [Move(0.0, 0.0, best.zoom * float(factor)) for factor in factors]
        best = min([best, *pans, *zooms], key=lambda move: _difference(first, second, masks, move))
    return best


def dense_flow(before: Grey, after: Grey) -> Flow:
    """Return how far each pixel of ``before`` goes."""
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    return np.asarray(engine.calc(before, after, np.zeros((*before.shape, 2), np.float32)), np.float32)


def _largest(channels: Sequence[NDArray[Any]]) -> Grey:
    """Return the largest channel of each pixel; NumPy's own maximum over a short last axis is slow."""
    return np.asarray(reduce(cv2.max, channels), np.uint8)


def _move(matrix: NDArray[np.float64], picture: Grey) -> Move:
    height, width = picture.shape
    zoom = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    x, y = matrix @ (width / 2, height / 2, 1) - (width / 2, height / 2)
    return Move(float(x) / width, float(y) / width, zoom)


def _steep(picture: Grey, mask: Grey, axis: tuple[int, int]) -> NDArray[np.bool_]:
    """Mark the background's steepest fifth along an axis: only there does flow say anything."""
    slope, seen = np.abs(cv2.Sobel(picture, cv2.CV_32F, *axis)), mask > 0
    steep = max(6.0, float(np.percentile(slope[seen], 80))) if seen.any() else np.inf
    return np.asarray(seen & (slope >= steep), np.bool_)


def _line(place: NDArray[np.float64], value: NDArray[np.float32]) -> tuple[float, float, float]:
    """Fit value = shift + slope * place without what lies far off; return these and the median error."""
    spread = np.inf
    for _ in range(3):
        slope, shift = np.polyfit(place, value, 1)
        error = np.abs(value - shift - slope * place)
        spread = min(spread, float(np.median(error)))
        near = error <= max(0.3, 1.5 * float(np.median(error)))
        place, value = place[near], value[near]
    return float(shift), float(slope), spread


def _difference(before: Grey, after: Grey, masks: tuple[Grey, Grey], move: Move) -> float:
    """Return the mean difference of the better 90 % of the background that both frames show."""
    height, width = before.shape
    matrix = move.matrix(width, height)
    moved = cv2.warpAffine(before, matrix, (width, height))
    shown = np.asarray(cv2.warpAffine(masks[0], matrix, (width, height)), np.uint8) & masks[1]
    difference = np.sort(np.abs(moved.astype(np.int16) - after)[shown == 255][::5])
    if len(difference) < 99:
        return np.inf
    return float(difference[: int(0.9 * len(difference))].mean()) + 0.2 * abs(move.x)
