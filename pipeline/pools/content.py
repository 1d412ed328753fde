"""What a prompt asks for, drawn at random within what its turn and its template say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias, get_args

from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools.draw import Draw
from pipeline.pools.grammar import SCORED, WORN, Grammar, Template
from pipeline.pools.literal import draw_literal
from pipeline.pools.turns import AHEAD, Extra, Turn, Wording
from pipeline.records import Attribute, Checks, MotionCheck, ObjectCheck, RelationCheck

Relation: TypeAlias = Literal["left of", "right of", "above", "below"]
Direction: TypeAlias = Literal["left", "right", "up", "down", "still"]
Camera: TypeAlias = Literal["static", "pan left", "pan right", "zoom in", "zoom out"]
Extras: TypeAlias = frozenset[Extra]

SIDEWAYS: tuple[Relation, ...] = ("left of", "right of")
UPRIGHT: tuple[Relation, ...] = ("above", "below")
_MOVES: tuple[Camera, ...] = get_args(Camera)[1:]
_OBJECTS = tuple(OBJECTS)
_COLOURS = tuple(COLOURS)


def draw_checks(rules: Grammar, turn: Turn, wording: Wording, draw: Draw, *key: str | int) -> Checks:
    """Return what ``wording`` says in full, as difficult as ``turn`` wants; ``key`` is that of the pool."""
    template = wording.template
    chosen = _extras(wording, turn.entry.level, draw)
    symbols = _symbols(turn, draw, *key)
    names = [_OBJECTS[symbols[name]] for name in ("object_1", "object_2") if name in symbols]
    subject = rules.subjects[turn.subject]
    setting = _setting(rules, [subject, *names], draw)
    named = {**symbols, "subject": turn.subject, "style": turn.style}
    symbols[turn.entry.shape.check] = turn.entry.shape.checked(named, turn.shift)
    relations = _relations(template, draw)
    return Checks(
        objects=_objects(rules, template, [subject, *names], chosen, draw),
        relations=relations,
        motions=_motions(rules, template, relations, chosen, draw),
        attributes=_attributes(rules, template, turn, setting, symbols, chosen, draw),
        text=_text(template, chosen, draw),
    )


def difficulty(checks: Checks) -> int:
    """Return how many things a picture must get right; ``Prompt`` says which."""
    points = len(checks.relations) + len((checks.text or "").split())
    for group in checks.objects:
        points += 1 + (group.colour is not None) + (group.count > 1)
    for motion in checks.motions:
        points += 1 + (motion.camera != "static")
    return points + sum(each.name in SCORED and each.value != "none" for each in checks.attributes)


def _extras(wording: Wording, level: int, draw: Draw) -> Extras:
    """Return as many of what may be asked for as make the prompt as difficult as wanted."""
    options = list(wording.extras)
    return frozenset(options.pop(draw.below(len(options))) for _ in range(level - wording.least))


def _symbols(turn: Turn, draw: Draw, *key: str | int) -> dict[str, int]:
    """Return which option each thing is that the shape names, but its check.

    The key goes on by one with each prompt of equal subject, style and shape, so none comes again.
    """
    shape = turn.entry.shape
    first = Draw(*key, shape.key, turn.subject, turn.style, bits=64).below(shape.keys)
    found = {shape.key: (first + turn.entry.rank) % shape.keys}
    found |= {name: draw.below(size) for name, size in shape.others}
    steps = list(range(1, AHEAD + 1))
    ahead = sorted(steps.pop(found[name]) for name in sorted(found) if name in ("object_1", "object_2"))
    for place, step in enumerate(ahead, start=1):
        found[f"object_{place}"] = (turn.subject + step) % len(_OBJECTS)
    return found


def _setting(rules: Grammar, subjects: Iterable[str], draw: Draw) -> str:
    """Return the setting that one of the subjects needs, or either."""
    needed = [rules.settings[subject] for subject in subjects if subject in rules.settings]
    return needed[0] if needed else draw.pick(("indoors", "outdoors"))


def _objects(
    rules: Grammar, template: Template, names: list[str], chosen: Extras, draw: Draw
) -> tuple[ObjectCheck, ...]:
    groups: list[ObjectCheck] = []
    spare = rules.total - template.groups - sum(extra == "count" for extra, _ in chosen)
    for place, name in enumerate(names[: template.groups]):
        count, colour = 1, None
        if ("count", place) in chosen:
            count = 2 + draw.below(min(rules.counts - 2, spare) + 1)
            spare -= count - 2
        if rules.coloured or ("colour", place) in chosen:
            colour = draw.pick(others(_COLOURS, *(group.colour for group in groups)))
        groups.append(ObjectCheck(name=name, count=count, colour=colour))
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
    rules: Grammar, template: Template, relations: tuple[RelationCheck, ...], chosen: Extras, draw: Draw
) -> tuple[MotionCheck, ...]:
    """A still object needs a moving camera, else nothing would move; a camera not named is static."""
    if not template.moves:
        return ()
    camera: Camera = draw.pick(_MOVES) if ("camera", 0) in chosen else "static"
    direction = draw.pick(directions(relations))
    if camera != "static" and draw.chance(rules.still):
        direction = "still"
    return (MotionCheck(object=0, direction=direction, camera=camera),)


def _attributes(
    rules: Grammar,
    template: Template,
    turn: Turn,
    setting: str,
    symbols: dict[str, int],
    chosen: Extras,
    draw: Draw,
) -> tuple[Attribute, ...]:
    """Only what the sentence says; places and lights of one setting."""
    found = [Attribute(name="style", value=rules.styles[turn.style])]
    for name, lists in rules.attributes.items():
        if name not in template.attributes:
            continue
        options = lists.get(setting) or lists[""]
        if name == rules.subject:
            value = rules.subjects[turn.subject]
        elif name in WORN:
            value = options[0] if (name, 0) in chosen else "none"
        else:
            value = options[symbols[name]] if name in symbols else draw.pick(options)
        found.append(Attribute(name=name, value=value))
    return tuple(found)


def _text(template: Template, chosen: Extras, draw: Draw) -> str | None:
    if "text" not in template.names:
        return None
    return draw_literal(draw, 1 + sum(extra == "word" for extra, _ in chosen))
