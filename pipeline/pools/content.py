"""What a prompt asks for, drawn at random within what its template can say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools.draw import Draw
from pipeline.pools.grammar import Grammar, Template, words
from pipeline.pools.literal import draw_literal
from pipeline.records import Attribute, Checks, MotionCheck, ObjectCheck, RelationCheck

Relation: TypeAlias = Literal["left of", "right of", "above", "below"]
Direction: TypeAlias = Literal["left", "right", "up", "down", "still"]
Camera: TypeAlias = Literal["static", "pan left", "pan right", "zoom in", "zoom out"]

SIDEWAYS: tuple[Relation, ...] = ("left of", "right of")
UPRIGHT: tuple[Relation, ...] = ("above", "below")
_CAMERAS: tuple[Camera, ...] = get_args(Camera)
_WORN = {"wearing", "and_wears"}
_PLURAL_ATTRIBUTES = {"eyewear", "headwear"}


def draw_checks(grammar: Grammar, template: Template, subject: str, style: str, draw: Draw) -> Checks:
    """Return content of ``subject`` and ``style`` that ``template`` can say in full."""
    relations = _relations(template, draw)
    return Checks(
        objects=_objects(grammar, template, subject, draw),
        relations=relations,
        motions=_motions(grammar, template, relations, draw),
        attributes=_attributes(grammar, template, subject, style, draw),
        text=draw_literal(draw) if "text" in template.names else None,
    )


def _objects(grammar: Grammar, template: Template, subject: str, draw: Draw) -> tuple[ObjectCheck, ...]:
    groups: list[ObjectCheck] = []
    spare = grammar.total - template.groups
    for _ in range(template.groups):
        name = draw.pick(others(OBJECTS, *(group.name for group in groups)))
        count = 1 + draw.below(min(grammar.counts - 1, spare) + 1)
        spare -= count - 1
        colour = None
        if draw.chance(grammar.colour):
            colour = draw.pick(others(COLOURS, *(group.colour for group in groups)))
        groups.append(ObjectCheck(name=name if groups else subject, count=count, colour=colour))
    return tuple(groups)


def others(options: Iterable[str], *taken: str | None) -> list[str]:
    """Return ``options`` without those taken."""
    return [each for each in options if each not in taken]


def _relations(template: Template, draw: Draw) -> tuple[RelationCheck, ...]:
    """The first group stands somewhere of the second; the third at a right angle to that."""
    axes = (SIDEWAYS, UPRIGHT) if draw.chance(0.5) else (UPRIGHT, SIDEWAYS)
    ends = ((0, 1), (2, 1))
    return tuple(
        RelationCheck(subject=ends[turn][0], relation=draw.pick(axes[turn]), object=ends[turn][1])
        for turn in range(template.relations)
    )


def directions(relations: tuple[RelationCheck, ...]) -> tuple[Direction, ...]:
    """Return the directions in which the first group can move and stay where its relation says."""
    sideways: tuple[Direction, ...] = ("left", "right")
    upright: tuple[Direction, ...] = ("up", "down")
    if not relations:
        return sideways + upright
    return upright if relations[0].relation in SIDEWAYS else sideways


def _motions(
    grammar: Grammar, template: Template, relations: tuple[RelationCheck, ...], draw: Draw
) -> tuple[MotionCheck, ...]:
    """A still object needs a moving camera, else nothing would move; a camera not named is static."""
    if not template.moves:
        return ()
    camera = draw.pick(_CAMERAS) if "camera" in template.names else "static"
    direction = draw.pick(directions(relations))
    if camera != "static" and draw.chance(grammar.still):
        direction = "still"
    return (MotionCheck(object=0, direction=direction, camera=camera),)


def _attributes(
    grammar: Grammar, template: Template, subject: str, style: str, draw: Draw
) -> tuple[Attribute, ...]:
    """Only what the sentence says; places and lights of one setting."""
    setting = draw.pick(("indoors", "outdoors"))
    given = {"style": style, grammar.subject: subject}
    names = template.names | (_PLURAL_ATTRIBUTES if template.names & _WORN else frozenset())
    return tuple(
        Attribute(name=name, value=given.get(name) or draw.pick(_options(vocabulary, setting)))
        for name, vocabulary in (("style", "styles"), *grammar.attributes.items())
        if name in names
    )


def _options(vocabulary: str, setting: str) -> list[str]:
    found = words(vocabulary)
    if isinstance(found, dict):
        return [*found.get("any", ()), *found.get(setting, ())]
    return list(found)
