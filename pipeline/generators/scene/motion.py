"""Where every object and the camera are in every frame of a video, and how motion goes wrong.

A moving object travels in its direction both across the frame and against the background; an object that
stands still stays where it is in the world, so it drifts with the background when the camera pans.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.config import Size
from pipeline.generators.scene.script import Cast, Script
from pipeline.media import symbols

ZOOM = 1.25
"""How much larger the world is at the near end of a zoom."""

_HEADINGS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
_TRAVEL = 0.45  # of the room that a group has
_PAN = 0.12  # of the width in all: slower than any moving object
_PAD = 0.02  # of the height, kept free round each group's room
_BOB = 0.012  # of the height: moving objects follow a slight arc

Points = NDArray[np.float64]
"""[frames, 2]: x and y in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """How far the view has moved right, in pixels [frames], and its zoom about the middle [frames]."""

    pan: NDArray[np.int64]
    zoom: NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """One object of ``height`` pixels at zoom 1; ``path`` is where its middle is in each frame."""

    name: str
    colour: str
    height: int
    path: Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a group may occupy: its top left corner and its extent, [x, y] in pixels."""

    corner: NDArray[np.float64]
    extent: NDArray[np.float64]


def camera(move: str, size: Size) -> Camera:
    """Return the camera for a ``MotionCheck.camera``; a pan is whole pixels a frame, so it is smooth."""
    steps = np.arange(size.frames)
    pan, zoom = np.zeros(size.frames, np.int64), np.ones(size.frames)
    if move.startswith("pan"):
        speed = max(1, round(_PAN * size.width / size.frames))
        pan = steps * (speed if move == "pan right" else -speed)
    elif move.startswith("zoom"):
        nearness = steps / max(1, size.frames - 1)
        zoom = ZOOM ** (nearness if move == "zoom in" else 1 - nearness)
    return Camera(pan=pan, zoom=zoom)


def stage(script: Script, view: Camera, size: Size, rng: np.random.Generator) -> list[list[Actor]]:
    """Place the groups so that every object stays in the frame, and clear of the others, throughout."""
    rooms = _rooms(len(script.casts), script.side_by_side, view, size)
    return [_place(cast, room, view, size, rng) for cast, room in zip(script.casts, rooms, strict=True)]


def _rooms(count: int, side_by_side: bool, view: Camera, size: Size) -> list[Room]:
    frame = np.array([size.width, size.height], np.float64)
    seen = frame / view.zoom.max()
    share = np.array([1 / count, 1.0] if side_by_side else [1.0, 1 / count])
    pad = _PAD * size.height
    corner = (frame - seen) / 2
    step = seen * share * ([1, 0] if side_by_side else [0, 1])
    return [Room(corner=corner + i * step + pad, extent=seen * share - 2 * pad) for i in range(count)]


def _place(cast: Cast, room: Room, view: Camera, size: Size, rng: np.random.Generator) -> list[Actor]:
    travel = _travel(cast, room)
    moves = bool(travel.any())
    bob = _BOB * size.height if moves else 0.0
    shift = travel if moves else np.array([-float(view.pan[-1]), 0.0])
    corner = room.corner + bob + np.maximum(0, -shift)
    spots, height = _spots(cast, room.extent - 2 * bob - np.abs(shift), size, rng)
    course = _course(size.frames, shift, bob, rng)
    middle = np.array([size.width, size.height]) / 2
    return [
        Actor(
            name=piece.name,
            colour=piece.colour,
            height=height,
            path=middle + (corner + spot + course - middle) * view.zoom[:, None],
        )
        for piece, spot in zip(cast.pieces, spots, strict=True)
    ]


def _travel(cast: Cast, room: Room) -> NDArray[np.float64]:
    """Return how far a group moves in all; a group that should stand still wrongly moves by its turn."""
    x, y = _HEADINGS[cast.direction]
    if (x, y) == (0, 0):
        return np.array([_TRAVEL * cast.turn, 0.0]) * room.extent
    cos, sin = math.cos(math.pi * cast.turn), math.sin(math.pi * cast.turn)
    reach = np.abs([x, y]) @ room.extent
    limit = 0.6 * room.extent
    return np.clip(np.array([x * cos - y * sin, x * sin + y * cos]) * _TRAVEL * reach, -limit, limit)


def _course(frames: int, shift: NDArray[np.float64], bob: float, rng: np.random.Generator) -> Points:
    """Return offsets from 0 to ``shift``: even without ``bob``, else gently eased on a slight arc."""
    time = np.linspace(0, 1, frames)
    if not bob:
        return time[:, None] * shift
    eased = 0.8 * time + 0.2 * time * time * (3 - 2 * time)
    across = np.array([-shift[1], shift[0]]) / float(np.hypot(*shift))
    arc: Points = (bob * rng.uniform(-1, 1) * np.sin(np.pi * time))[:, None] * across
    return arc + eased[:, None] * shift


def _spots(
    cast: Cast, box: NDArray[np.float64], size: Size, rng: np.random.Generator
) -> tuple[list[NDArray[np.float64]], int]:
    """Return the members' middles inside ``box`` and the height that all of them share."""
    count = len(cast.pieces)
    aspect = max(symbols.silhouette(piece.name, 64).shape[1] / 64 for piece in cast.pieces)
    grids = [(columns, -(-count // columns)) for columns in range(1, count + 1)]
    heights = [0.8 * min(box[0] / columns / aspect, box[1] / rows) for columns, rows in grids]
    columns, rows = grids[int(np.argmax(heights))]
    height = min(max(heights), 0.34 * size.height)
    cell = np.array([height * aspect, height]) / 0.8
    origin = rng.uniform(0.2, 0.8, 2) * (box - cell * (columns, rows))
    spots = []
    for index in range(count):
        row, column = divmod(index, columns)
        missing = columns - min(columns, count - row * columns)
        wobble = rng.uniform(-0.05, 0.05, 2)
        spots.append(origin + (np.array([column + missing / 2, row]) + 0.5 + wobble) * cell)
    return spots, max(8, int(height))


def shake(actor: Actor, severity: float, size: Size, rng: np.random.Generator) -> Actor:
    """Jitter: the object trembles, by 5 to 18 pixels at 720 lines."""
    tremble = rng.uniform(-1, 1, (size.frames, 2)) * (0.003 + 0.022 * severity) * size.height
    return replace(actor, path=actor.path + tremble)


def jump(group: list[Actor], severity: float, size: Size, start: int, stop: int) -> list[Actor]:
    """Teleport: from ``start`` to ``stop`` a group is elsewhere, across its way, where there is more room."""
    paths = np.stack([actor.path for actor in group])
    span = np.abs(paths[0, -1] - paths[0, 0])
    axis = 0 if span[1] > span[0] else 1
    places = paths[:, start:stop, axis]
    side = 1 if (size.width, size.height)[axis] - places.max() > places.min() else -1
    shift = np.zeros_like(group[0].path)
    shift[start:stop, axis] = side * (0.04 + 0.26 * severity) * size.height
    return [replace(actor, path=actor.path + shift) for actor in group]


def held(frames: int, severity: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Freeze: return the moment that each frame shows; up to 45 % repeat one, then time catches up."""
    length = max(2, round(0.45 * severity * frames))
    start = int(rng.integers(1, max(2, frames - length - 1)))
    moments = np.arange(frames)
    moments[start : start + length] = start - 1
    return moments
