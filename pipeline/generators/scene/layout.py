"""Where groups of objects stand: relations hold, nothing overlaps, nothing leaves the frame."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.errors import ItemError
from pipeline.records import RelationCheck

Side = Literal["left of", "right of", "above", "below"]

MIRROR: dict[Side, Side] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
"""Relation -> the relation that contradicts it."""

_TRIES = 400


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    @property
    def width(self) -> float:
        """Pixels across."""
        return self.x1 - self.x0

    @property
    def height(self) -> float:
        """Pixels down."""
        return self.y1 - self.y0


@dataclass(frozen=True, slots=True)
class Spot:
    """The middle of one object, in pixels."""

    x: float
    y: float


def boxes(rng: np.random.Generator, count: int, relations: Sequence[RelationCheck], frame: Box) -> list[Box]:
    """Cut ``frame`` into one box a group so that every relation holds between whole boxes.

    Raises ItemError if no cut does, as when relations contradict each other.
    """
    cut = _search(rng, count, relations, frame)
    if cut is None:
        raise ItemError(f"no arrangement of {count} groups fits all {len(relations)} relations: give fewer")
    return [cut[index] for index in range(count)]


def fits(count: int, relations: Sequence[RelationCheck]) -> bool:
    """Tell whether groups can be arranged so that every relation holds."""
    rng = np.random.Generator(np.random.PCG64(0))
    return _search(rng, count, relations, Box(0, 0, 1, 1)) is not None


def _search(
    rng: np.random.Generator, count: int, relations: Sequence[RelationCheck], frame: Box
) -> dict[int, Box] | None:
    for _ in range(_TRIES):
        cut: dict[int, Box] = {}
        _cut(rng, [int(group) for group in rng.permutation(count)], frame, cut)
        if all(_holds(relation, cut) for relation in relations):
            return cut
    return None


def spots(
    rng: np.random.Generator, count: int, aspect: float, box: Box, tallest: float
) -> tuple[int, list[Spot]]:
    """Return the common ink height in pixels and one spot an object; ``aspect`` is width over height."""
    rows = max(range(1, count + 1), key=lambda rows: _fit(count, rows, aspect, box))
    size = min(_fit(count, rows, aspect, box), tallest, tallest / aspect) * float(rng.uniform(0.88, 1.0))
    height = max(8, int(size) // 4 * 4)
    columns = math.ceil(count / rows)
    cell_height, cell_width = box.height / rows, box.width / columns
    slack_x, slack_y = (cell_width - height * aspect * _ROOM) / 2, (cell_height - height * _ROOM) / 2
    found = []
    for index in range(count):
        row = index // columns
        in_row = min(columns, count - row * columns)
        left = box.x0 + (box.width - in_row * cell_width) / 2
        x = left + (index % columns + 0.5) * cell_width + slack_x * float(rng.uniform(-0.5, 0.5))
        y = box.y0 + (row + 0.5) * cell_height + slack_y * float(rng.uniform(-0.5, 0.5))
        found.append(Spot(x, y))
    return height, found


_ROOM = 1.34
"""Share of its ink that an object needs in each direction, with shadow and a gap."""


def _fit(count: int, rows: int, aspect: float, box: Box) -> float:
    columns = math.ceil(count / rows)
    return min(box.height / rows / _ROOM, box.width / columns / _ROOM / aspect)


def _cut(rng: np.random.Generator, groups: list[int], box: Box, cut: dict[int, Box]) -> None:
    """Split ``box`` at random, upright or across, until every group has its own part."""
    if len(groups) == 1:
        cut[groups[0]] = box
        return
    split = int(rng.integers(1, len(groups)))
    share = split / len(groups)
    if rng.random() < 0.5:
        at = box.x0 + box.width * share
        first, second = Box(box.x0, box.y0, at, box.y1), Box(at, box.y0, box.x1, box.y1)
    else:
        at = box.y0 + box.height * share
        first, second = Box(box.x0, box.y0, box.x1, at), Box(box.x0, at, box.x1, box.y1)
    _cut(rng, groups[:split], first, cut)
    _cut(rng, groups[split:], second, cut)


def _holds(relation: RelationCheck, cut: dict[int, Box]) -> bool:
    a, b = cut[relation.subject], cut[relation.object]
    slack = 1e-6
    return {
        "left of": a.x1 <= b.x0 + slack,
        "right of": a.x0 >= b.x1 - slack,
        "above": a.y1 <= b.y0 + slack,
        "below": a.y0 >= b.y1 - slack,
    }[relation.relation]
