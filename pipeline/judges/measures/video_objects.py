"""Does the video show what the prompt asks for: objects, their way across the frame, the camera's move?

Three judges share only the currency of faults. Each finds objects in its own way (see ``objects``), and
each has its own eye for motion: where a colour is at the start and at the end; what stands out of the
stabilised background; dense flow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.judges.measures import camera, objects, vision
from pipeline.judges.measures.camera import Move
from pipeline.media import symbols
from pipeline.media.frames import Frames
from pipeline.records import Checks, MotionCheck

LOOKS = 3
"""Frames in which objects are counted; their median fault is the video's."""

_FAR = 30
"""Distance in L*a*b* beyond which a colour is none of the named ones."""

Vector = NDArray[np.float64]
"""x, y in shares of the width, right and down."""


@dataclass(frozen=True, slots=True)
class Seen:
    """The camera's move over the whole video, and the asked object's: across the frame, in the world."""

    camera: Move | None
    frame: Vector | None = None
    world: Vector | None = None


See = Callable[[Frames, Checks, MotionCheck], Seen]
Still = Callable[[vision.Pixels, Checks], float]


def pieces(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults, by overlaid vivid pieces and tracked colours; None without a known object."""
    return _overall(frames, checks, _vivid_pieces, _by_colour)


def outlines(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults, by outlines in colour and the stabilised background; None as above."""
    return _overall(frames, checks, _colour_outlines, _by_background)


def palette(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults, by patches of named colour and dense flow; None as above."""
    return _overall(frames, checks, _named_patches, _by_flow)


def _overall(frames: Frames, checks: Checks, still: Still, see: See) -> float | None:
    if not any(wanted.name in symbols.OBJECTS for wanted in checks.objects):
        return None
    places = np.linspace(0.15, 0.85, LOOKS) * (len(frames) - 1)
    looks = [still(vision.shrink(frames, objects.SIDE, round(place)), checks) for place in places]
    faults = sum(_motion_faults(motion, see(frames, checks, motion)) for motion in checks.motions[:1])
    return -float(np.median(looks)) - faults


# Three ways to count objects in one frame: a film's backgrounds are busy, so all of them go by colour.


def _vivid_pieces(pixels: vision.Pixels, checks: Checks) -> float:
    return objects.faults(objects.find(pixels, checks.objects, _vivid, objects.overlay), checks)


def _colour_outlines(pixels: vision.Pixels, checks: Checks) -> float:
    return objects.faults(objects.find(pixels, checks.objects, _by_colour_edges, objects.outline), checks)


def _named_patches(pixels: vision.Pixels, checks: Checks) -> float:
    return objects.faults(objects.find(pixels, checks.objects, _named, objects.moments), checks)


def _vivid(pixels: vision.Pixels) -> vision.Mask:
    """Cut out what differs in hue from both ends of its row, and what is all but black."""
    colours = vision.lab(pixels)
    rim = max(2, pixels.shape[1] // 40)
    ends = np.concatenate([colours[:, :rim], colours[:, -rim:]], axis=1)
    difference = (colours - np.median(ends, axis=1)[:, None]) * np.array([0.5, 1, 1], np.float32)
    figure = (np.linalg.norm(difference, axis=2) > 24) | (colours[..., 0] < 21)
    return _without_lamps(figure.astype(np.uint8) * np.uint8(255), colours)


def _by_colour_edges(pixels: vision.Pixels) -> vision.Mask:
    """Fill the outer contours of steep changes of hue, or very steep ones of lightness."""
    colours = vision.lab(pixels)
    steep = np.zeros(pixels.shape[:2], np.float32)
    for channel in cv2.split(colours * np.array([0.5, 1, 1], np.float32)):
        steep = np.maximum(steep, cv2.morphologyEx(channel, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
    edges = (steep > 12).astype(np.uint8) * np.uint8(255)
    contours, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(edges), contours, -1, 255, cv2.FILLED)
    thin = np.asarray(cv2.erode(filled, np.ones((3, 3), np.uint8)), np.uint8)
    return _without_lamps(thin, colours)


def _without_lamps(mask: vision.Mask, colours: vision.Lab) -> vision.Mask:
    """Take out suns, lamps and windows: pieces whose colour is far from every named one."""
    left = mask.copy()
    for piece in vision.pieces(mask, objects.SMALLEST * mask.size):
        if vision.colour_distances(np.median(piece.cut(colours), axis=0)).min() > _FAR:
            place = slice(piece.top, piece.top + piece.height), slice(piece.left, piece.left + piece.width)
            left[place][piece.mask > 0] = 0
    return left


def _named(pixels: vision.Pixels) -> vision.Mask:
    """Cut out what is near to a named colour."""
    return (vision.colour_names(pixels) < len(vision.COLOURS)).astype(np.uint8) * np.uint8(255)


# Faults of motion: what cannot be told counts as right.


def _motion_faults(asked: MotionCheck, seen: Seen) -> float:
    astray = 0.0 if seen.frame is None or seen.world is None else _astray(asked, seen.frame, seen.world)
    return astray + (0.0 if seen.camera is None else _misguided(asked.camera, seen.camera))


def _astray(asked: MotionCheck, frame: Vector, world: Vector) -> float:
    """Return how far the way is off in half turns; what should stand still is off by how far it goes."""
    if asked.direction == "still":
        length = float(np.hypot(*world))
        return min(1.0, length / 0.33) if length > 0.04 else 0.0
    if np.hypot(*frame) < 0.04:
        return 0.5
    heading = {"right": 0.0, "down": 0.5, "left": 1.0, "up": 1.5}[asked.direction] * math.pi
    off = abs(math.remainder(math.atan2(frame[1], frame[0]) - heading, 2 * math.pi)) / math.pi
    return off if off > 0.08 else 0.0


def _misguided(asked: str, move: Move) -> float:
    shown = "static"
    if abs(math.log(max(move.zoom, 1e-3))) > 0.1:
        shown = "zoom in" if move.zoom > 1 else "zoom out"
    elif abs(move.x) > 0.05:
        shown = "pan left" if move.x > 0 else "pan right"
    if shown == asked:
        return 0.0
    return 0.6 if asked == "static" else 0.4 if shown == "static" else 0.8


# Three ways to see motion.


def _by_colour(frames: Frames, checks: Checks, motion: MotionCheck) -> Seen:
    """Compare where the object's colour lies in the first and in the last frame."""
    ends = camera.shrunk(frames, (0, len(frames) - 1))
    move = camera.by_overlap(ends[0], ends[1])
    colour = checks.objects[motion.object].colour if motion.object < len(checks.objects) else None
    if colour not in symbols.COLOURS:
        return Seen(move)
    start, end = (_middle(_coloured(pixels, colour)) for pixels in ends)
    if start is None or end is None:
        return Seen(move)
    shift = np.array([move.x, move.y])
    return Seen(move, end - move.zoom * start, end - move.zoom * start - shift)


def _by_background(frames: Frames, checks: Checks, motion: MotionCheck) -> Seen:
    """Hold the background still and compare where something stands out of it, first and last."""
    del checks, motion
    small = camera.shrunk(frames, _spread(len(frames), 9))
    path = camera.track(small, camera.by_features) or camera.track(small, camera.by_overlap)
    if path is None:
        return Seen(None)
    differences = camera.standing_out(*camera.lay(small, path))
    start, end = (_middle(camera.distinct(differences[index])) for index in (0, -1))
    world = np.zeros(2) if start is None or end is None else end - start
    return Seen(path[-1], world + np.array([path[-1].x, path[-1].y]), world)


def _by_flow(frames: Frames, checks: Checks, motion: MotionCheck) -> Seen:
    """Add up the flow of what does not move with the background."""
    del checks, motion
    small = camera.shrunk(frames, _spread(len(frames), 17))
    path = camera.track(small, camera.by_flow) or camera.track(small, camera.by_features)
    if path is None:
        return Seen(None)
    steps = [camera.between(first, second) for first, second in pairwise(path)]
    own = [_own_flow(*pair, step) for pair, step in zip(pairwise(small), steps, strict=True)]
    world = np.sum(own, axis=0)
    return Seen(path[-1], world + np.array([path[-1].x, path[-1].y]), world)


def _own_flow(before: vision.Pixels, after: vision.Pixels, step: Move) -> Vector:
    """Return the median flow of figures against the background, in shares of the width."""
    flow = camera.dense_flow(camera.grey(before), camera.grey(after))
    height, width = flow.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    matrix = step.matrix(width, height)
    own = flow - np.stack([matrix[0, 0] * x + matrix[0, 2] - x, matrix[1, 1] * y + matrix[1, 2] - y], axis=-1)
    moving = (camera.ground(before) == 0) & (np.hypot(own[..., 0], own[..., 1]) > 0.7)
    if moving.sum() < 0.001 * moving.size:
        return np.zeros(2)
    return np.asarray(np.median(own[moving], axis=0) / width, np.float64)


def _spread(frames: int, count: int) -> list[int]:
    return sorted({round(place) for place in np.linspace(0, frames - 1, min(count, frames))})


def _coloured(pixels: vision.Pixels, colour: str) -> vision.Mask:
    near = vision.colour_names(pixels) == vision.COLOURS.index(colour)
    mask = near.astype(np.uint8) * np.uint8(255)
    return np.asarray(cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)), np.uint8)


def _middle(mask: vision.Mask) -> Vector | None:
    """Return the centre of mass, from the middle of the frame, or None if there is next to nothing."""
    found = cv2.moments(mask, binaryImage=True)
    height, width = mask.shape
    if found["m00"] < 0.001 * mask.size:
        return None
    x, y = found["m10"] / found["m00"], found["m01"] / found["m00"]
    return np.array([x / width - 0.5, (y - height / 2) / width])
