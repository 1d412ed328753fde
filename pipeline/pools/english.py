"""The English that templates need: articles, numbers, plurals, sentence case."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.media.symbols import OBJECTS

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

# What is said with a vowel is not always spelt with one: "an hourglass", "a ukiyo-e print".
_AN = re.compile(r"(?!uni|eu|ukiyo|one\b|use)[aeiou]|hour|honest|heir|8|11\b|18\b", re.IGNORECASE)
_START = re.compile(r"(^|[.] )([a-z])")


def with_article(phrase: str) -> str:
    """Return ``phrase`` after "a" or "an"."""
    return f"{'an' if _AN.match(phrase) else 'a'} {phrase}"


def noun(name: str, count: int) -> str:
    """Return an object's name in the number that ``count`` asks for."""
    return name if count == 1 else OBJECTS[name]


def some(name: str, count: int, colour: str | None) -> str:
    """Return "a red star" or "three red stars"."""
    described = f"{colour} {noun(name, count)}" if colour else noun(name, count)
    return with_article(described) if count == 1 else f"{NUMBERS[count]} {described}"


def listed(items: Iterable[str]) -> str:
    """Return "", "a hat" or "glasses and a hat"."""
    return " and ".join(items)


def sentence(text: str) -> str:
    """Return ``text`` with every sentence's first letter raised."""
    return _START.sub(lambda found: found[1] + found[2].upper(), text)
