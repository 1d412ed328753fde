"""Grammars and vocabularies as they stand in ``prompts/``, read once and checked."""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from string import Formatter
from typing import Any

from pipeline.config import data_root
from pipeline.errors import ConfigError
from pipeline.media.symbols import OBJECTS

LICENCE = "CC0-1.0"

HEADINGS = ("toward", "across", "edge")
GROUP_SLOTS = ("group", "counted", "the", "pronoun", "agree")
WORN = ("eyewear", "headwear")
SCORED = ("lettering", "placement", "hair", "skin", "expression", *WORN)
"""Attributes that a picture gets right or wrong; the others are a matter of taste."""

MOST_WORDS = 6
"""Words of a literal text."""

_WEARING = {"wearing", "and_wears"}
_INDEXED = re.compile(r"(group|counted|the|pronoun|agree|relation|toward|across|edge)_([0-2])")
_FIXED = {"text": "text", "words": "text", "camera": "camera", "wearing": "eyewear", "and_wears": "eyewear"}
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")


@dataclass(frozen=True, slots=True)
class Slot:
    """A gap in a template. ``index`` is an object group or a relation; ``forms`` singular and plural."""

    name: str
    index: int = 0
    article: bool = False
    forms: tuple[str, str] = ("", "")


@dataclass(frozen=True, slots=True)
class Template:
    """A sentence with gaps, and what the gaps ask for."""

    parts: tuple[str | Slot, ...]
    names: frozenset[str]
    groups: int
    relations: int

    @property
    def moves(self) -> bool:
        """Whether the sentence says how its first object group moves."""
        return not self.names.isdisjoint(HEADINGS)

    @property
    def attributes(self) -> frozenset[str]:
        """Names of the attributes that the sentence says."""
        return self.names | frozenset(WORN) if self.names & _WEARING else self.names


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """How prompts of one category are said. ``templates`` holds the wordings of each template.

    ``levels`` are the difficulties of its prompts, each as frequent. ``attributes`` are phrases by
    setting (one without a name where the setting does not matter), all as long as the shortest.
    ``apart`` names the attributes that keep prompts apart from each other.
    """

    category: str
    version: int
    capacity: int
    levels: range
    subject: str
    subjects: tuple[str, ...]
    settings: Mapping[str, str]
    styles: tuple[str, ...]
    counts: int
    total: int
    coloured: bool
    still: float
    templates: tuple[tuple[Template, ...], ...]
    attributes: Mapping[str, Mapping[str, tuple[str, ...]]]
    apart: tuple[str, ...]


@cache
def categories() -> tuple[str, ...]:
    """Return the categories that have a grammar, sorted."""
    names = (entry.name for entry in (data_root() / "prompts" / "grammars").iterdir())
    return tuple(sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml")))


def words(name: str) -> Any:
    """Return a vocabulary: a list of phrases, or a table of them by setting or direction."""
    found = _vocabulary()
    if name not in found:
        raise ConfigError(f"prompts/vocabulary: no {name!r}; add it or use one of {', '.join(sorted(found))}")
    return found[name]


@cache
def phrases(name: str) -> tuple[str, ...]:
    """Return a vocabulary that is one list."""
    return tuple(words(name))


@cache
def grammar(category: str) -> Grammar:
    """Return the grammar of ``category``. Raises ConfigError if there is none or it is malformed."""
    if category not in categories():
        raise ConfigError(f"no grammar for category {category!r}; use one of {', '.join(categories())}")
    raw = tomllib.loads((data_root() / "prompts" / "grammars" / f"{category}.toml").read_text("utf-8"))
    where = f"prompts/grammars/{category}.toml"
    lists = raw["attributes"]
    subjects, settings = _subjects(raw["subject"], lists)
    low, high = raw["difficulty"]
    return Grammar(
        category=category,
        version=raw["version"],
        capacity=raw["capacity"],
        levels=range(low, high + 1),
        subject=raw["subject"],
        subjects=subjects,
        settings=settings,
        styles=tuple(words("styles")[raw["style"]]),
        counts=raw.get("counts", 0),
        total=raw.get("total", 0),
        coloured=raw.get("coloured", False),
        still=raw.get("still", 0.0),
        templates=tuple(
            tuple(_template(wording, lists, where) for wording in wordings(text)) for text in raw["templates"]
        ),
        attributes={name: _options(given) for name, given in lists.items()},
        apart=tuple(raw["apart"]),
    )


def wordings(text: str) -> Iterator[str]:
    """Yield ``text`` with each "(this|that)" resolved in every way."""
    pieces = _CHOICE.split(text)
    options = [piece.split("|") if place % 2 else [piece] for place, piece in enumerate(pieces)]
    return map("".join, itertools.product(*options))


def _subjects(subject: str, lists: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return what prompts are about, and the setting of those that have only one."""
    if subject == "object":
        return tuple(OBJECTS), dict.fromkeys(words("outdoor_objects"), "outdoors")
    options = words(lists[subject])
    if isinstance(options, list):
        return tuple(options), {}
    settings = {phrase: setting for setting, found in options.items() for phrase in found}
    return tuple(settings), settings


def _options(given: Any) -> dict[str, tuple[str, ...]]:
    """Return phrases by setting from the names of lists: one name, or several for each setting.

    The lists of all settings are cut to one length, and begin with what fits anywhere: so a place in
    one list and a place in another are of the same phrase only if they are the same place.
    """
    if isinstance(given, str):
        found = words(given)
        if isinstance(found, list):
            return {"": tuple(found)}
        anywhere = found.get("any", [])
        lists = {name: [*anywhere, *found[name]] for name in found if name != "any"}
    else:
        lists = {
            setting: [each for name in names for each in words(name)] for setting, names in given.items()
        }
    shortest = min(map(len, lists.values()))
    return {setting: tuple(found[:shortest]) for setting, found in lists.items()}


def _template(text: str, attributes: Mapping[str, Any], where: str) -> Template:
    parts: list[str | Slot] = []
    for literal, name, spec, _ in Formatter().parse(text):
        if literal:
            parts.append(literal)
        if name is not None:
            parts.append(_slot(name, spec or "", attributes, where))
    slots = [part for part in parts if isinstance(part, Slot)]
    grouped = {slot.index for slot in slots if slot.name in GROUP_SLOTS}
    related = {slot.index for slot in slots if slot.name == "relation"}
    return Template(tuple(parts), frozenset(slot.name for slot in slots), len(grouped), len(related))


def _slot(name: str, spec: str, attributes: Mapping[str, Any], where: str) -> Slot:
    singular, _, plural = spec.partition("/")
    if found := _INDEXED.fullmatch(name):
        return Slot(found[1], int(found[2]), forms=(singular, plural))
    plain = name.removeprefix("a_")
    if _FIXED.get(name, plain) in {*attributes, "style", "text", "camera"}:
        return Slot(name if name in _FIXED else plain, article=name != plain)
    raise ConfigError(f"{where}: no slot {{{name}}}; use its attributes or see prompts/README.md")


@cache
def _vocabulary() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for entry in sorted((data_root() / "prompts" / "vocabulary").iterdir(), key=lambda each: each.name):
        loaded = tomllib.loads(entry.read_text("utf-8"))
        if entry.name == "styles.toml":
            loaded = {"styles": loaded}
        found.update(loaded)
    return found
