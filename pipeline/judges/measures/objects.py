"""Does the picture show the objects that the prompt names: which, how many, what colour, where?

Three ways of looking, one way of counting faults (``faults``). ``pieces`` cuts figure from ground and
overlays each piece with every known silhouette. ``outlines`` follows edges and compares how far an
outline runs from its middle. ``palette`` collects the pixels of each named colour and knows of a shape
only its moments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.judges.measures import vision
from pipeline.media import symbols
from pipeline.media.frames import Frames
from pipeline.records import Checks, ObjectCheck, RelationCheck

SIDE = 512
SMALLEST = 0.0004
"""Smallest piece that counts as an object, as a share of the picture."""

LEAST_GAIN = 1.1
"""Pictures that need less brightening than this are left alone."""

NAMES = tuple(symbols.OBJECTS)

Features = NDArray[np.float32]
Cut = Callable[[vision.Pixels], vision.Mask]
Describe = Callable[[vision.Mask], Features]


@dataclass(frozen=True, slots=True)
class Found:
    """One object found; ``name`` is None where it is nothing that the prompt names."""

    name: str | None
    colour: str
    x: float
    y: float


def pieces(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen in pieces named by overlay; None where no known object is asked for."""
    return _measured(frames, checks, _by_ground, overlay)


def outlines(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen in closed edges named by their run; None as above."""
    return _measured(frames, checks, _by_edges, outline, side=2 * SIDE)


def palette(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen in patches of named colours, told apart by moments; None as above."""
    return _measured(frames, checks, _by_colour, moments)


def _measured(frames: Frames, checks: Checks, cut: Cut, describe: Describe, side: int = SIDE) -> float | None:
    if not any(wanted.name in symbols.OBJECTS for wanted in checks.objects):
        return None
    pixels = np.asarray(
        cv2.GaussianBlur(_exposed(vision.shrink(frames, side)), (0, 0), 0.8 * side / SIDE), np.uint8
    )
    return -faults(find(pixels, checks.objects, cut, describe), checks)


def _exposed(pixels: vision.Pixels) -> vision.Pixels:
    """Scale a dark picture so that its lightest surface is near to white: colours get their names back."""
    lightest = float(np.percentile(pixels.max(axis=2)[::4, ::4], 90))
    gain = min(2.5, 235 / max(lightest, 1.0))
    if gain < LEAST_GAIN:
        return pixels
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=gain), np.uint8)


def find(pixels: vision.Pixels, wanted: Sequence[ObjectCheck], cut: Cut, describe: Describe) -> list[Found]:
    """Return what stands out of the picture, largest first; positions in pixels."""
    known = [check.name for check in wanted if check.name in symbols.OBJECTS]
    colours, mask = vision.lab(pixels), cut(pixels)
    return [
        Found(_name(piece.mask, known, describe), vision.nearest_colour(piece.cut(colours)), piece.x, piece.y)
        for piece in vision.pieces(mask, SMALLEST * mask.size)
    ]


# Three ways to cut figures out of a picture.


def _by_ground(pixels: vision.Pixels) -> vision.Mask:
    """Cut out what differs in colour, or strongly in lightness, from both ends of its row."""
    colours = vision.lab(pixels)
    rim = max(2, pixels.shape[1] // 32)
    ends = np.concatenate([colours[:, :rim], colours[:, -rim:]], axis=1)
    difference = np.abs(colours - np.median(ends, axis=1)[:, None])
    figure = (np.hypot(difference[..., 1], difference[..., 2]) > 15) | (difference[..., 0] > 36)
    return vision.as_mask(figure)


def _by_edges(pixels: vision.Pixels) -> vision.Mask:
    """Fill the outer contours of strong edges."""
    edges = cv2.dilate(cv2.Canny(pixels, 30, 100, L2gradient=True), np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(edges, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(edges), contours, -1, 255, cv2.FILLED)
    return np.asarray(cv2.erode(filled, np.ones((3, 3), np.uint8)), np.uint8)


def _by_colour(pixels: vision.Pixels) -> vision.Mask:
    """Cut out what is near to a named colour."""
    return vision.as_mask(vision.colour_names(pixels) < len(vision.COLOURS))


# Three ways to tell shapes apart: nearer features, likelier the same.

GRID = 32
RAYS = 64
UNSURE = 1.15
"""A wanted name stands unless another object is nearer by this factor."""


def _name(mask: vision.Mask, known: Sequence[str], describe: Describe) -> str | None:
    """Return the wanted name that fits best, or None where another object fits clearly better."""
    distances = np.linalg.norm(_album(describe) - describe(mask), axis=1).reshape(-1, len(NAMES)).min(axis=0)
    best = min(known, key=lambda name: float(distances[NAMES.index(name)]))
    return best if distances[NAMES.index(best)] <= UNSURE * distances.min() else None


@cache
def _album(describe: Describe) -> Features:
    """Return the features of every silhouette, then of its mirror images: [2 * objects, features]."""
    masks = [np.ascontiguousarray(symbols.silhouette(name, 96)) for name in NAMES]
    masks = [vision.as_mask(mask > 127) for mask in masks]
    mirrored = [np.ascontiguousarray(mask[:, ::-1]) for mask in masks]
    return np.stack([describe(mask) for mask in masks + mirrored])


def overlay(mask: vision.Mask) -> Features:
    """Return the ink on a common grid, and the aspect."""
    grid = cv2.resize(mask, (GRID, GRID), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    grid = cv2.GaussianBlur(grid, (0, 0), 1.0).ravel() / GRID
    return np.append(grid, 0.3 * np.log(mask.shape[1] / mask.shape[0])).astype(np.float32)


def outline(mask: vision.Mask) -> Features:
    """Return how far the outline lies from the middle of its box in each direction, in mean radii."""
    contours, _ = cv2.findContours(np.pad(mask, 1), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate([contour[:, 0] for contour in contours]).astype(np.float32)
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    x, y = (points - middle).T
    ray = np.floor((np.arctan2(y, x) / (2 * np.pi) + 0.5) * RAYS).astype(int) % RAYS
    reach = np.zeros(RAYS, np.float32)
    np.maximum.at(reach, ray, np.hypot(x, y))
    return np.asarray(reach / max(float(reach.mean()), 1e-6), np.float32)


def moments(mask: vision.Mask) -> Features:
    """Return central moments up to the third order, free of size, the aspect and the share of ink."""
    found = cv2.moments(mask, binaryImage=True)
    moments = [6 * found[name] for name in ("nu20", "nu11", "nu02", "nu30", "nu21", "nu12", "nu03")]
    aspect = 0.5 * np.log(mask.shape[1] / mask.shape[0])
    return np.array([*moments, aspect, (mask > 0).mean()], np.float32)


# Faults, in the same currency for all: 0.4 for one object too many, 1 for a whole group gone wrong.


def faults(found: Sequence[Found], checks: Checks) -> float:
    """Return the summed faults of groups and relations."""
    groups = _grouped(found, checks.objects)
    own = sum(_group_faults(group, wanted) for group, wanted in zip(groups, checks.objects, strict=True))
    return own + 0.8 * sum(not _holds(relation, groups) for relation in checks.relations)


def _grouped(found: Sequence[Found], wanted: Sequence[ObjectCheck]) -> list[list[Found]]:
    """Give every object to the group of its name; a stranger to the group of its colour, or the emptiest."""
    groups = [[thing for thing in found if thing.name == check.name] for check in wanted]
    usual = [check.colour or _usual_colour(group) for check, group in zip(wanted, groups, strict=True)]
    for thing in found:
        if thing.name is None:
            missing = [check.count - len(group) for check, group in zip(wanted, groups, strict=True)]
            alike = [colour == thing.colour for colour in usual]
            groups[max(range(len(wanted)), key=lambda i: (alike[i], missing[i]))].append(thing)
    return groups


def _usual_colour(group: Sequence[Found]) -> str | None:
    colours = [thing.colour for thing in group]
    return max(colours, key=colours.count) if colours else None


def _group_faults(group: Sequence[Found], wanted: ObjectCheck) -> float:
    off = abs(len(group) - wanted.count)
    miscoloured = sum(thing.colour != wanted.colour for thing in group) if wanted.colour else 0
    return (
        (min(2.0, 0.1 + 0.3 * off) if off else 0.0)
        + _share(miscoloured, len(group))
        + _share(sum(thing.name is None for thing in group), len(group))
    )


def _share(wrong: int, count: int) -> float:
    """Return the share of a group that is wrong: at least 0.3 if any is, at most 1."""
    return min(1.0, max(0.3, wrong / count)) if wrong else 0.0


def _holds(relation: RelationCheck, groups: Sequence[Sequence[Found]]) -> bool:
    """Tell whether the middle of one group stands as it should to the middle of the other."""
    subject, other = groups[relation.subject], groups[relation.object]
    if not subject or not other:
        return False
    across, down = (
        float(np.mean([getattr(thing, axis) for thing in subject]))
        - float(np.mean([getattr(thing, axis) for thing in other]))
        for axis in ("x", "y")
    )
    return {"left of": across < 0, "right of": across > 0, "above": down < 0, "below": down > 0}[
        relation.relation
    ]
