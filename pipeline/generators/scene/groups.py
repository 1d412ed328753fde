"""What a prompt asks to be drawn, as groups of objects, and how to get a group wrong on purpose."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.errors import ItemError
from pipeline.generators.scene.layout import MIRROR, fits
from pipeline.media.symbols import COLOURS, OBJECTS, silhouette
from pipeline.records import Checks, Defect, RelationCheck

MOST = 40
"""Objects that one picture can hold."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One object to draw."""

    name: str
    colour: str


@dataclass(frozen=True, slots=True)
class Group:
    """The pieces of one object check; ``named_colour`` tells whether the prompt asked for the colour."""

    pieces: tuple[Piece, ...]
    named_colour: bool = True


@dataclass(frozen=True, slots=True)
class Plan:
    """Every group of a picture, and the relations between their indices."""

    groups: tuple[Group, ...]
    relations: tuple[RelationCheck, ...]


def plan(rng: np.random.Generator, checks: Checks, filler: int = 1) -> Plan:
    """Turn checks into groups; what ``drawable`` leaves out is not there, nor are its relations.

    A prompt that names nothing known gets ``filler`` objects drawn at random. Raises ItemError for a
    count that cannot be drawn.
    """
    known = drawable(checks)
    if any(wanted.count < 0 for wanted in checks.objects) or sum(o.count for o in checks.objects) > MOST:
        raise ItemError(f"cannot draw these counts: give 0 to {MOST} objects in all")
    taken = {checks.objects[index].colour for index in known}
    groups = []
    for index in known:
        wanted = checks.objects[index]
        named = wanted.colour in COLOURS
        colour = wanted.colour if wanted.colour in COLOURS and wanted.colour else _fresh(rng, taken)
        taken.add(colour)
        groups.append(Group((Piece(wanted.name, colour),) * wanted.count, named))
    place = {index: position for position, index in enumerate(known)}
    relations = tuple(
        replace(r, subject=place[r.subject], object=place[r.object])
        for r in checks.relations
        if r.subject in place and r.object in place
    )
    return Plan(tuple(groups) or _filler(rng, filler), relations)


def drawable(checks: Checks) -> list[int]:
    """Return the indices of the objects that are drawn: of known name, and one or more."""
    return [index for index, wanted in enumerate(checks.objects) if wanted.name in OBJECTS and wanted.count]


def possible(checks: Checks) -> frozenset[str]:
    """Return the kinds of content defect that a prompt can show."""
    known = [checks.objects[index] for index in drawable(checks)]
    kinds = {"wrong_count", "wrong_object"} if known else set()
    if any(wanted.colour in COLOURS for wanted in known):
        kinds.add("wrong_colour")
    if checks.relations and len(known) == len(checks.objects):
        kinds.add("swapped_relation")
    return frozenset(kinds)


def spoil(
    rng: np.random.Generator, drawn: Plan, defects: Collection[Defect]
) -> tuple[Plan, tuple[Defect, ...]]:
    """Apply the content defects to a plan; return it with the defects at the severity they really have."""
    done = []
    for defect in defects:
        if defect.kind in _SPOILERS:
            drawn, severity = _SPOILERS[defect.kind](rng, drawn, defect.severity)
            done.append(Defect(kind=defect.kind, severity=severity))
    return drawn, tuple(done)


def _wrong_count(rng: np.random.Generator, drawn: Plan, severity: float) -> tuple[Plan, float]:
    """One, two or three pieces too many or too few."""
    off, real = (1, 0.4) if severity < 0.55 else (2, 0.7) if severity < 0.8 else (3, 1.0)
    index = int(rng.integers(len(drawn.groups)))
    pieces = drawn.groups[index].pieces
    fewer = len(pieces) > off and rng.random() < 0.5
    pieces = pieces[:-off] if fewer else pieces + pieces[-1:] * off
    return _with(drawn, index, pieces), real


def _wrong_colour(rng: np.random.Generator, drawn: Plan, severity: float) -> tuple[Plan, float]:
    """A share of one group in a colour that nobody asked for."""
    named = [index for index, group in enumerate(drawn.groups) if group.named_colour]
    index = named[int(rng.integers(len(named)))]
    colour = _fresh(rng, {piece.colour for group in drawn.groups for piece in group.pieces})
    wrong = [Piece(piece.name, colour) for piece in drawn.groups[index].pieces]
    return _partly(drawn, index, wrong, severity)


def _wrong_object(rng: np.random.Generator, drawn: Plan, severity: float) -> tuple[Plan, float]:
    """A share of one group replaced by an object of a clearly different outline."""
    index = int(rng.integers(len(drawn.groups)))
    taken = {piece.name for group in drawn.groups for piece in group.pieces}
    name = _unlike(rng, drawn.groups[index].pieces[0].name, taken)
    wrong = [Piece(name, piece.colour) for piece in drawn.groups[index].pieces]
    return _partly(drawn, index, wrong, severity)


def _swapped_relation(rng: np.random.Generator, drawn: Plan, severity: float) -> tuple[Plan, float]:  # noqa: ARG001
    """One relation turned round; there is no half of it, so its severity is always 0.8."""
    turned = int(rng.integers(len(drawn.relations)))
    relation = drawn.relations[turned]
    swapped = replace(relation, relation=MIRROR[relation.relation])
    relations = (*drawn.relations[:turned], swapped, *drawn.relations[turned + 1 :])
    # In a ring of relations one cannot turn alone: then the others are let go.
    return Plan(drawn.groups, relations if fits(len(drawn.groups), relations) else (swapped,)), 0.8


_SPOILERS = {
    "swapped_relation": _swapped_relation,
    "wrong_colour": _wrong_colour,
    "wrong_count": _wrong_count,
    "wrong_object": _wrong_object,
}


def _partly(drawn: Plan, index: int, wrong: Sequence[Piece], severity: float) -> tuple[Plan, float]:
    """Replace a share of a group; the real severity is that share, at least 0.3."""
    pieces = drawn.groups[index].pieces
    count = min(len(pieces), max(1, round(severity * len(pieces))))
    changed = (*wrong[:count], *pieces[count:])
    return _with(drawn, index, changed), round(max(0.3, count / len(pieces)), 3)


def _with(drawn: Plan, index: int, pieces: tuple[Piece, ...]) -> Plan:
    groups = list(drawn.groups)
    groups[index] = replace(groups[index], pieces=pieces)
    return Plan(tuple(groups), drawn.relations)


def _fresh(rng: np.random.Generator, taken: Collection[str | None]) -> str:
    free = [colour for colour in COLOURS if colour not in taken] or list(COLOURS)
    return free[int(rng.integers(len(free)))]


def _filler(rng: np.random.Generator, count: int) -> tuple[Group, ...]:
    names = rng.choice(list(OBJECTS), size=count, replace=False)
    colours = rng.choice(list(COLOURS), size=count, replace=False)
    pairs = zip(names, colours, strict=True)
    return tuple(Group((Piece(str(name), str(colour)),), False) for name, colour in pairs)


def _unlike(rng: np.random.Generator, name: str, taken: Collection[str]) -> str:
    """Return the least similar of eight random objects."""
    free = [other for other in OBJECTS if other not in taken]
    tried = [str(other) for other in rng.choice(free, size=8, replace=False)]
    return min(tried, key=lambda other: _overlap(name, other))


def _overlap(first: str, second: str) -> float:
    """Intersection over union of two outlines stretched to one square."""
    a, b = (cv2.resize(silhouette(name, 64), (32, 32)) > 127 for name in (first, second))
    return float((a & b).sum() / (a | b).sum())
