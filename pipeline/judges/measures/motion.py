"""Does everything move smoothly? Minus the faults of motion: trembling, jumps, stalls, after-images.

Three judges look at different things: where the coloured pieces are in each frame; how much the picture
changes from frame to frame; how dense flow changes. They share a currency: 1 is a blatant fault.
"""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.judges.measures import camera, vision
from pipeline.judges.measures.camera import Move
from pipeline.media.frames import Frames
from pipeline.records import Checks

FEWEST = 6
"""Frames below which smoothness means nothing."""

_SOME = 60
"""Pixels of a figure below which nothing is said of it."""

Series = NDArray[np.float64]
"""[frames] or [frames, 2]."""
Masks = NDArray[np.bool_]
"""[frames, height, width]."""


def trajectory(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults in where each named colour lies; None if none can be followed."""
    if len(frames) < FEWEST:
        return None
    small = camera.shrunk(frames)
    names = np.stack([vision.colour_names(pixels) for pixels in small])
    tracks = {name: _track(names == index) for index, name in enumerate(vision.COLOURS)}
    steps = {name: np.diff(track, axis=0) for name, track in tracks.items() if track is not None}
    if not steps:
        return None
    members = {wanted.colour: wanted.count for wanted in checks.objects}
    # The middle of n objects that tremble each on its own trembles less, by the root of n.
    tremble = max(_tremble(step) * members.get(name, 1) ** 0.5 for name, step in steps.items())
    jump = max(_jump(step) for step in steps.values())
    stall = max(_stall(np.hypot(*step.T)) for step in steps.values())
    laid, seen = camera.lay(small, _path(small))
    difference = camera.standing_out(laid, seen)
    named = np.stack([vision.colour_names(pixels) < len(vision.COLOURS) for pixels in laid])
    image = _after_image(difference, named & _solid(difference))
    return -(_over(tremble, 0.002, 0.025) + _over(jump, 0.04, 0.26) + stall / 0.45 + image)


def cadence(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults in the rhythm of change; None if the picture hardly changes."""
    del checks
    if len(frames) < FEWEST:
        return None
    small = camera.shrunk(frames)
    laid, seen = camera.lay(small, _path(small))
    soft = np.stack([cv2.GaussianBlur(camera.grey(pixels), (0, 0), 2) for pixels in laid]).astype(np.float32)
    steps = np.diff(soft, axis=0) * (seen[1:] & seen[:-1])
    change = np.abs(steps).mean(axis=(1, 2))
    usual = float(np.median(change))
    if usual < 0.01:
        return None
    whole = np.array([cv2.absdiff(*pair).mean() for pair in pairwise(small)])
    alike = [float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-6)) for a, b in pairwise(steps)]
    uneven = float(np.median(np.abs(np.diff(change)))) / usual
    back = 0.5 * _over(uneven, 0.15, 0.25) + _over(0.4 - float(np.median(alike)), 0.0, 1.2)
    spike = float(np.sort(change)[-2]) / usual
    jump = 0.3 + 0.07 * (spike - 2.5) if spike > 2.5 else 0.0
    return -(min(1.2, back) + min(1.0, jump) + _stall(whole) / 0.45)


def flow(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults in how dense flow goes on from frame to frame; None without figures."""
    del checks
    if len(frames) < FEWEST:
        return None
    small = camera.shrunk(frames)
    laid, seen = camera.lay(small, _path(small))
    difference = camera.standing_out(laid, seen)
    flows = [camera.dense_flow(*pair) for pair in pairwise([camera.grey(pixels) for pixels in laid])]
    figures = [camera.distinct(levels) > 0 for levels in difference]
    pairs = [
        (_speed(now, figure), _turn(now, then, figure))
        for figure, (now, then) in zip(figures, pairwise(flows), strict=False)
        if figure.sum() >= _SOME
    ]
    if len(pairs) < FEWEST - 2:
        return None
    speed, turn = np.array(pairs).T
    stall, usual = _stall(speed / laid.shape[1]), float(np.median(turn))
    # A stall ends in a jump of its own: it is not counted twice.
    jump = 0.6 if stall < 0.05 and np.sort(turn)[-2] > 3 * usual + 4 else 0.0
    image = _after_image(difference, _solid(difference))
    return -(_over(usual, 0.6, 7.0) + jump + stall / 0.45 + image)


def _speed(now: camera.Flow, figure: NDArray[np.bool_]) -> float:
    return float(np.median(np.hypot(*now[figure].T)))


def _turn(now: camera.Flow, then: camera.Flow, figure: NDArray[np.bool_]) -> float:
    """Return by how many pixels the flow of the figures' pixels changes on the way."""
    y, x = np.nonzero(figure)
    across, down = now[y, x].T
    to_x = np.clip(np.rint(x + across), 0, figure.shape[1] - 1).astype(np.int64)
    to_y = np.clip(np.rint(y + down), 0, figure.shape[0] - 1).astype(np.int64)
    return float(np.median(np.hypot(*(then[to_y, to_x] - now[y, x]).T)))


def _solid(difference: NDArray[np.float32]) -> Masks:
    """Mark what stands out of each frame nearly as much as its figures typically do."""
    clear = [levels[levels > 36] for levels in difference]
    usual = [float(np.percentile(levels, 80)) if len(levels) >= _SOME else np.inf for levels in clear]
    return np.asarray(difference > 0.75 * np.array(usual)[:, None, None], np.bool_)


def _after_image(difference: NDArray[np.float32], figures: Masks) -> float:
    """Return how strongly figures show where they have just been, twice the share of how they show now."""
    square = np.ones((7, 7), np.uint8)
    shares = []
    for now in range(5, len(figures)):
        near = cv2.dilate(figures[now].astype(np.uint8), square) > 0
        left = (figures[now - 5] | figures[now - 3]) & ~near
        if min(left.sum(), figures[now].sum()) >= _SOME:
            shares.append(float(difference[now][left].mean() / difference[now][figures[now]].mean()))
    return _over(float(np.median(shares)), 0.05, 0.5) if len(shares) >= FEWEST - 2 else 0.0


def _track(masks: Masks) -> Series | None:
    """Return the middle in each frame, in shares of the height; None if it is ever next to nothing."""
    areas = masks.sum(axis=(1, 2))
    if areas.min() < 0.0015 * masks[0].size or areas.max() > 0.4 * masks[0].size:
        return None
    y, x = np.mgrid[: masks.shape[1], : masks.shape[2]]
    middle = [[float(x[mask].mean()), float(y[mask].mean())] for mask in masks]
    return np.asarray(np.array(middle) / masks.shape[1], np.float64)


def _tremble(steps: Series) -> float:
    """Return the amplitude of a tremor that would give this typical change of velocity."""
    return float(np.median(np.hypot(*np.diff(steps, axis=0).T))) / 1.67


def _jump(steps: Series) -> float:
    """Return the second largest step off the usual: who jumps away also jumps back."""
    speed = np.hypot(*steps.T)
    off = np.hypot(*(steps - np.median(steps, axis=0)).T)
    return float(np.sort(np.where(speed >= 0.15 * np.median(speed), off, 0))[-2])


def _stall(speed: Series) -> float:
    """Return the share of steps in which nothing moves although it usually does."""
    moving = speed[speed > 0.001]
    if len(moving) < 0.3 * len(speed):
        return 0.0
    return float((speed < 0.1 * np.median(moving)).mean())


def _over(value: float, least: float, full: float) -> float:
    """Return how much of ``full`` the value reaches beyond the ``least`` that counts, 0 to 1.2."""
    return min(1.2, max(0.0, value - least) / full)


def _path(small: Frames) -> list[Move]:
    """Return the move from the first frame to each, from nine frames that are told apart with care."""
    places = sorted({round(place) for place in np.linspace(0, len(small) - 1, min(9, len(small)))})
    chosen = small[places]
    found = camera.track(chosen, camera.by_features) or camera.track(chosen, camera.by_overlap)
    moves = found or [Move()] * len(places)
    table = np.array([[move.x, move.y, move.zoom] for move in moves])
    everywhere = [np.interp(range(len(small)), places, column) for column in table.T]
    return [Move(float(x), float(y), float(zoom)) for x, y, zoom in zip(*everywhere, strict=True)]
