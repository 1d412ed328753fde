"""Small changes that make a prompt contradict itself as it was: one thing changed, all else equal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise

from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools.content import Direction, Relation, directions, others
from pipeline.pools.draw import Draw
from pipeline.pools.grammar import Grammar, Slot, Template, phrases
from pipeline.pools.literal import other_literal
from pipeline.records import Attribute, Checks, ObjectCheck

VERSION = 3
"""Rises whenever perturbed prompts change and the prompts that they are made from do not."""

_OPPOSITE: dict[str, Relation] = {
    "left of": "right of",
    "right of": "left of",
    "above": "below",
    "below": "above",
}
_REVERSE: dict[str, Direction] = {"left": "right", "right": "left", "up": "down", "down": "up"}
_SAID_AGAIN = ("the", "pronoun", "counted")


@dataclass(frozen=True, slots=True)
class Sentence:
    """What a root prompt says, and in which words."""

    grammar: Grammar
    template: Template
    checks: Checks


Change = Callable[[Sentence, Draw], Checks | None]


def perturbed(said: Sentence, *key: str | int) -> list[tuple[str, Checks]]:
    """Return (kind, changed checks) for every kind that ``said`` allows; which comes first is drawn."""
    changes = [(kind, change(said, Draw(*key, kind))) for kind, change in _CHANGES.items()]
    possible = [(kind, changed) for kind, changed in changes if changed is not None]
    first = Draw(*key, "first").below(max(1, len(possible)))
    return possible[first:] + possible[:first]


def _object(said: Sentence, draw: Draw) -> Checks | None:
    """Another object in the place of one."""
    checks = said.checks
    if not checks.objects:
        return None
    place = draw.below(len(checks.objects))
    # Where all are small the place may be a shelf: nothing large comes there.
    bound = said.grammar.settings.keys()
    large = set[str]() if any(group.name in bound for group in checks.objects) else bound
    name = draw.pick(others(OBJECTS, *(group.name for group in checks.objects), *large))
    return _with_group(checks, place, name=name)


def _count(said: Sentence, draw: Draw) -> Checks | None:
    """More or fewer objects in one group."""
    checks = said.checks
    spare = said.grammar.total - sum(group.count for group in checks.objects)
    options = [
        (place, count)
        for place, group in enumerate(checks.objects)
        for count in range(1, min(said.grammar.counts, group.count + spare) + 1)
        if count != group.count
    ]
    if not options:
        return None
    place, count = draw.pick(options)
    return _with_group(checks, place, count=count)


def _colour(said: Sentence, draw: Draw) -> Checks | None:
    """Another colour of one group, of the letters or of the hair; one that the prompt does not name."""
    checks = said.checks
    for name, options in (("lettering", tuple(COLOURS)), ("hair", phrases("hair"))):
        if has := checks.attribute(name):
            return _with_attribute(checks, name, draw.pick(others(options, has)))
    coloured = [place for place, group in enumerate(checks.objects) if group.colour]
    if not coloured:
        return None
    place = draw.pick(coloured)
    colour = draw.pick(others(COLOURS, *(group.colour for group in checks.objects)))
    return _with_group(checks, place, colour=colour)


def _relation(said: Sentence, draw: Draw) -> Checks | None:
    """The opposite of one relation."""
    checks = said.checks
    if not checks.relations:
        return None
    relations = list(checks.relations)
    place = draw.below(len(relations))
    relations[place] = dataclasses.replace(relations[place], relation=_OPPOSITE[relations[place].relation])
    return dataclasses.replace(checks, relations=tuple(relations))


def _order(said: Sentence, draw: Draw) -> Checks | None:
    """The same words in another order: two objects, or two neighbours of the text, change places."""
    checks = said.checks
    if checks.text is not None:
        return _reordered_text(checks, checks.text.split(), draw)
    pairs = [pair for pair in combinations(range(len(checks.objects)), 2) if _distinct(checks, *pair)]
    if not pairs:
        return None
    one, other = draw.pick(pairs)
    names = [group.name for group in checks.objects]
    return _with_group(_with_group(checks, one, name=names[other]), other, name=names[one])


def _distinct(checks: Checks, one: int, other: int) -> bool:
    """Say whether no picture shows both what ``checks`` say and the same with two objects exchanged."""
    if any({relation.subject, relation.object} == {one, other} for relation in checks.relations):
        return True
    first, second = checks.objects[one], checks.objects[other]
    recoloured = first.colour and second.colour and first.colour != second.colour
    return bool(recoloured) or first.count != second.count


def _reordered_text(checks: Checks, words: list[str], draw: Draw) -> Checks | None:
    places = [place for place in range(1, len(words)) if words[place - 1] != words[place]]
    if not places:
        return None
    place = draw.pick(places)
    words[place - 1], words[place] = words[place], words[place - 1]
    return dataclasses.replace(checks, text=" ".join(words))


def _negation(said: Sentence, draw: Draw) -> Checks | None:
    """No objects of one group, or a hat or glasses that are not worn.

    Not of a group that the sentence goes on to speak of, or that another is placed by.
    """
    checks = said.checks
    worn = [
        each for each in checks.attributes if each.name in ("eyewear", "headwear") and each.value != "none"
    ]
    if worn:
        chosen = draw.pick(worn)
        return _with_attribute(checks, chosen.name, f"no {chosen.value}")
    kept = {relation.object for relation in checks.relations} | _kept_by_words(said.template)
    places = [place for place in range(len(checks.objects)) if place not in kept]
    return _with_group(checks, draw.pick(places), count=0) if places else None


def _kept_by_words(template: Template) -> set[int]:
    """Return the groups of which "no" cannot be said; "next to no stars" would mean "nearly none"."""
    return {
        part.index
        for before, part in pairwise(("", *template.parts))
        if isinstance(part, Slot) and (part.name in _SAID_AGAIN or str(before).endswith("next to "))
    }


def _text(said: Sentence, draw: Draw) -> Checks | None:
    """Another word or phrase to letter."""
    checks = said.checks
    return None if checks.text is None else dataclasses.replace(checks, text=other_literal(checks.text, draw))


def _motion(said: Sentence, draw: Draw) -> Checks | None:
    """The opposite direction; any direction where nothing moved."""
    checks = said.checks
    if not checks.motions:
        return None
    motion = checks.motions[0]
    direction = (
        draw.pick(directions(checks.relations)) if motion.direction == "still" else _REVERSE[motion.direction]
    )
    return dataclasses.replace(checks, motions=(dataclasses.replace(motion, direction=direction),))


def _with_group(
    checks: Checks,
    place: int,
    *,
    name: str | None = None,
    count: int | None = None,
    colour: str | None = None,
) -> Checks:
    was = checks.objects[place]
    group = ObjectCheck(
        name=name or was.name,
        count=was.count if count is None else count,
        colour=colour or was.colour,
    )
    return dataclasses.replace(checks, objects=(*checks.objects[:place], group, *checks.objects[place + 1 :]))


def _with_attribute(checks: Checks, name: str, value: str) -> Checks:
    changed = Attribute(name=name, value=value)
    return dataclasses.replace(
        checks, attributes=tuple(changed if each.name == name else each for each in checks.attributes)
    )


_CHANGES: dict[str, Change] = {
    "object": _object,
    "count": _count,
    "colour": _colour,
    "relation": _relation,
    "order": _order,
    "negation": _negation,
    "text": _text,
    "motion": _motion,
}
