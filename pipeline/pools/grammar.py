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


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """How prompts of one category are said. ``templates`` holds the wordings of each template."""

    category: str
    version: int
    capacity: int
    subject: str
    subjects: tuple[str, ...]
    styles: tuple[str, ...]
    counts: int
    total: int
    colour: float
    still: float
    templates: tuple[tuple[Template, ...], ...]
    attributes: Mapping[str, str]


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
    attributes = raw.get("attributes", {})
    of_objects = raw["subject"] == "object"
    return Grammar(
        category=category,
        version=raw["version"],
        capacity=raw["capacity"],
        subject=raw["subject"],
        subjects=tuple(OBJECTS) if of_objects else phrases(attributes[raw["subject"]]),
        styles=tuple(words("styles")[raw["style"]]),
        counts=raw.get("counts", 0),
        total=raw.get("total", 0),
        colour=raw.get("colour", 0.0),
        still=raw.get("still", 0.0),
        templates=tuple(
            tuple(_template(wording, attributes, where) for wording in wordings(text))
            for text in raw["templates"]
        ),
        attributes=attributes,
    )


def wordings(text: str) -> Iterator[str]:
    """Yield ``text`` with each "(this|that)" resolved in every way."""
    pieces = _CHOICE.split(text)
    options = [piece.split("|") if place % 2 else [piece] for place, piece in enumerate(pieces)]
    return map("".join, itertools.product(*options))


def _template(text: str, attributes: Mapping[str, str], where: str) -> Template:
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


def _slot(name: str, spec: str, attributes: Mapping[str, str], where: str) -> Slot:
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
