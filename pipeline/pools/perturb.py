"""Small changes that make a prompt contradict itself as it was: one thing changed, all else equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools.content import Direction, Relation, directions, others
from pipeline.pools.draw import Draw
from pipeline.pools.grammar import Grammar
from pipeline.pools.literal import other_literal
from pipeline.records import Attribute, Checks, ObjectCheck

_OPPOSITE: dict[str, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
_REVERSE: dict[str, Direction] = {"left": "right", "right": "left", "up": "down", "down": "up"}

Change = Callable[[Grammar, Checks, Draw], Checks | None]


def perturbed(grammar: Grammar, checks: Checks, *key: str | int) -> list[tuple[str, Checks]]:
    """Return (kind, changed checks) for every kind that ``checks`` allow; which comes first is drawn."""
    changes = [(kind, change(grammar, checks, Draw(*key, kind))) for kind, change in _CHANGES.items()]
    possible = [(kind, changed) for kind, changed in changes if changed is not None]
    first = Draw(*key, "first").below(max(1, len(possible)))
    return possible[first:] + possible[:first]


def _with_group(checks: Checks, place: int, group: ObjectCheck) -> Checks:
    return dataclasses.replace(checks, objects=(*checks.objects[:place], group, *checks.objects[place + 1 :]))


def _object(_: Grammar, checks: Checks, draw: Draw) -> Checks | None:
    if not checks.objects:
        return None
    place = draw.below(len(checks.objects))
    name = draw.pick(others(OBJECTS, *(group.name for group in checks.objects)))
    return _with_group(checks, place, dataclasses.replace(checks.objects[place], name=name))


def _count(grammar: Grammar, checks: Checks, draw: Draw) -> Checks | None:
    spare = grammar.total - sum(group.count for group in checks.objects)
    options = [
        (place, count)
        for place, group in enumerate(checks.objects)
        for count in range(1, min(grammar.counts, group.count + spare) + 1)
        if count != group.count
    ]
    if not options:
        return None
    place, count = draw.pick(options)
    return _with_group(checks, place, dataclasses.replace(checks.objects[place], count=count))


def _colour(_: Grammar, checks: Checks, draw: Draw) -> Checks | None:
    if lettering := checks.attribute("lettering"):
        colour = draw.pick(others(COLOURS, lettering))
        return _with_attribute(checks, "lettering", colour)
    coloured = [place for place, group in enumerate(checks.objects) if group.colour]
    if not coloured:
        return None
    place = draw.pick(coloured)
    colour = draw.pick(others(COLOURS, *(group.colour for group in checks.objects)))
    return _with_group(checks, place, dataclasses.replace(checks.objects[place], colour=colour))


def _with_attribute(checks: Checks, name: str, value: str) -> Checks:
    changed = Attribute(name=name, value=value)
    return dataclasses.replace(
        checks, attributes=tuple(changed if each.name == name else each for each in checks.attributes)
    )


def _relation(_: Grammar, checks: Checks, draw: Draw) -> Checks | None:
    if not checks.relations:
        return None
    relations = list(checks.relations)
    place = draw.below(len(relations))
    relations[place] = dataclasses.replace(relations[place], relation=_OPPOSITE[relations[place].relation])
    return dataclasses.replace(checks, relations=tuple(relations))


def _text(_: Grammar, checks: Checks, draw: Draw) -> Checks | None:
    return None if checks.text is None else dataclasses.replace(checks, text=other_literal(checks.text, draw))


def _direction(_: Grammar, checks: Checks, draw: Draw) -> Checks | None:
    if not checks.motions:
        return None
    motion = checks.motions[0]
    direction = (
        draw.pick(directions(checks.relations)) if motion.direction == "still" else _REVERSE[motion.direction]
    )
    return dataclasses.replace(checks, motions=(dataclasses.replace(motion, direction=direction),))


_CHANGES: dict[str, Change] = {
    "object": _object,
    "count": _count,
    "colour": _colour,
    "relation": _relation,
    "text": _text,
    "direction": _direction,
}
