"""Which prompt is number ``index`` of a pool, without a look at those before it.

Every prompt names a subject, a style and an even number of further things (attributes that keep prompts
apart, and other objects): its *shape*. One of them, the check, follows from a weighted sum of all others
modulo a prime, as in a code with one check symbol: whoever changes one thing changes the check too. So two
prompts of one shape differ in at least two of the things that they name; two of different shapes do as
well, because what they name is even in number. No prompt is near another, and none has to be compared.
Objects count in any order: all have one weight, and the subject is the first of them around the list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from itertools import count
from math import ceil, gcd, isqrt
from typing import TypeAlias

from pipeline.errors import ConfigError
from pipeline.media.symbols import OBJECTS
from pipeline.pools.draw import Draw, in_turn, shuffled
from pipeline.pools.grammar import MOST_WORDS, SCORED, WORN, Grammar, Template, grammar

_WEIGHTS = {"subject": 1, "object_1": 1, "object_2": 1, "style": 2}
_FURTHER_WEIGHTS = (3, 5, 7, 11)

AHEAD = len(OBJECTS) // 2
"""How far from the subject, around the list, other objects are: so of two, each can be first only once."""


Extra: TypeAlias = tuple[str, int]
"""A colour, a number, a camera move, something worn or one more word, and of which object group."""

Sentences: TypeAlias = "tuple[tuple[Wording, ...], ...]"
"""The wordings of every template."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a kind of sentence names beside subject and style.

    ``key`` tells prompts of equal subject and style apart, out of ``keys`` options; ``check`` follows
    from all others, out of ``checks`` options, a prime number. ``others`` are neither, with their options.
    """

    key: str
    keys: int
    check: str
    checks: int
    others: tuple[tuple[str, int], ...]

    def checked(self, symbols: dict[str, int], shift: int) -> int:
        """Return the option of the check for the options of all other things."""
        further = zip(sorted(symbols.keys() - _WEIGHTS.keys()), _FURTHER_WEIGHTS, strict=False)
        weights = {**_WEIGHTS, **dict(further)}
        return (shift + sum(weights[name] * symbol for name, symbol in symbols.items())) % self.checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """A template of a grammar, how difficult it is at least, and what makes it more so."""

    template: Template
    least: int
    extras: tuple[Extra, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A difficulty and a shape, and the sentences that can have both; ``rank`` counts those of the shape."""

    level: int
    shape: Shape
    rank: int
    sentences: Sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What a prompt shall be: subject and style by their numbers, and the rest as ``entry`` says.

    ``shift`` is added to checks: pools of different seeds differ in it.
    """

    subject: int
    style: int
    entry: Entry
    shift: int


class Turns:
    """The turns of one pool: every subject, style and difficulty as often, in each stretch of it."""

    def __init__(self, rules: Grammar, *key: str | int) -> None:
        self._key = key
        self._entries = entries(rules.category)
        self._turns = range(len(self._entries))
        self._subjects = range(len(rules.subjects))
        self._styles = shuffled(len(rules.styles), *key, "style")
        styles = len(self._styles)
        self._stride = next(stride for stride in count(styles * 3 // 8) if gcd(stride, styles) == 1)
        self._shift = Draw(*key, "check").below(1 << 32)

    def turn(self, index: int) -> Turn:
        """Return the turn of prompt number ``index``.

        A lap holds each pair of subject and style once; from lap to lap a pair goes on by one entry.
        """
        lap, place = divmod(index, len(self._subjects) * len(self._styles))
        subject = in_turn(self._subjects, place, *self._key, "subject")
        style = self._styles[(place // len(self._subjects) * self._stride + subject) % len(self._styles)]
        entry = in_turn(self._turns, place, *self._key, "entry") + lap
        chosen = self._entries[entry % len(self._entries)]
        return Turn(subject=subject, style=style, entry=chosen, shift=self._shift)


@cache
def entries(category: str) -> tuple[Entry, ...]:
    """Return the entries that a pair of subject and style takes in turn, as many as the capacity needs.

    Raises ConfigError if the words and templates of the grammar do not give them.
    """
    rules = grammar(category)
    where = f"prompts/grammars/{category}.toml"
    able = {level: _able(rules, level, where) for level in rules.levels}
    wanted = ceil(rules.capacity / (len(rules.subjects) * len(rules.styles)))
    ranks: Counter[Shape] = Counter()
    found: list[Entry] = []
    for number in range(wanted):
        lap, place = divmod(number, len(rules.levels))
        shape, sentences = able[rules.levels[place]][lap % len(able[rules.levels[place]])]
        entry = Entry(level=rules.levels[place], shape=shape, rank=ranks[shape], sentences=sentences)
        ranks[shape] += 1
        if ranks[shape] > shape.keys:
            raise ConfigError(
                f"{where}: capacity = {rules.capacity} is more than its words give: "
                f"lower it, or add to the list of {shape.key}"
            )
        found.append(entry)
    return tuple(found)


def _wording(rules: Grammar, template: Template) -> Wording:
    scored = len(template.attributes.intersection(SCORED) - set(WORN))
    least = template.groups + template.relations + template.moves + scored
    least += template.groups * rules.coloured + ("text" in template.names)
    return Wording(template=template, least=least, extras=_extras(rules, template))


def _extras(rules: Grammar, template: Template) -> tuple[Extra, ...]:
    """Return what a template can ask for or not, each one point of difficulty."""
    groups = range(template.groups)
    found: list[Extra] = [] if rules.coloured else [("colour", group) for group in groups]
    found += [("count", group) for group in groups] if rules.counts > 1 else []
    found += [("camera", 0)] if template.moves and "camera" in template.names else []
    found += [(name, 0) for name in WORN if name in template.attributes]
    found += [("word", each) for each in range(1, MOST_WORDS) if "text" in template.names]
    return tuple(found)


def _able(rules: Grammar, level: int, where: str) -> list[tuple[Shape, Sentences]]:
    """Return the shapes that reach a difficulty, each with the sentences that do."""
    found: dict[frozenset[str], list[tuple[Wording, ...]]] = {}
    for templates in rules.templates:
        wordings = tuple(_wording(rules, template) for template in templates)
        if wordings[0].least <= level <= wordings[0].least + len(wordings[0].extras):
            found.setdefault(_named(rules, templates[0]), []).append(wordings)
    if not found:
        raise ConfigError(f"{where}: no template has a difficulty of {level}: add one, or mend difficulty")
    return [(_shape(rules, names, where), tuple(sentences)) for names, sentences in found.items()]


def _named(rules: Grammar, template: Template) -> frozenset[str]:
    others = {f"object_{group}" for group in range(1, template.groups)}
    return frozenset(others | template.names.intersection(rules.apart))


def _shape(rules: Grammar, names: Iterable[str], where: str) -> Shape:
    """The longest list is the check, the second longest the key."""
    sizes = {name: _size(rules, name) for name in names}
    said = ", ".join(sorted(sizes))
    if not sizes or len(sizes) % 2:
        raise ConfigError(f"{where}: a template names {said or 'nothing'}: make it an even number of things")
    attributes = [name for name in sizes if not name.startswith("object")]
    check = max(attributes, key=lambda name: (sizes[name], name), default="")
    prime = _prime(sizes[check]) if check else 0
    named = [sizes[name] for name in sizes if name != check]
    largest = max(len(rules.subjects), len(rules.styles), *named)
    if prime < largest:
        raise ConfigError(f"{where}: {check or 'no attribute'} of {said} has {prime} options, not {largest}")
    key = max((name for name in sizes if name != check), key=lambda name: (sizes[name], name))
    others = tuple((name, sizes[name]) for name in sorted(sizes) if name not in (key, check))
    return Shape(key=key, keys=sizes[key], check=check, checks=prime, others=others)


def _size(rules: Grammar, name: str) -> int:
    """Return among how many options a thing is drawn."""
    if name.startswith("object"):
        return AHEAD + 1 - int(name[-1])
    return len(next(iter(rules.attributes[name].values())))


def _prime(limit: int) -> int:
    """Return the largest prime number up to ``limit``."""
    return next(
        number for number in count(limit, -1) if all(number % each for each in range(2, isqrt(number) + 1))
    )
