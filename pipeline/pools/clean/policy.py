"""Which prompts a pool may hold. The words are in words.toml.

What is caught is what these words say, in English, each whole or in the usual disguises ("f*ck", "n u d e").
What is not: other languages, new slang, what is only meant (a pose, a situation, a famous name), and ages
that are not said. A pool of prompts needs the safety checker of the media as well.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.pools.clean.text import words

if TYPE_CHECKING:
    from glin_profanity import Filter

ADULT = 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is kept. Lengths in characters and in about so many tokens of a text encoder.

    ``minors``: what to do with prompts that mention children in no sexual or violent context; in such a
    context they are always dropped.
    """

    languages: tuple[str, ...] = ("en",)
    shortest: int = 3
    longest: int = 2_000
    tokens: int = 400
    minors: Literal["keep", "drop"] = "keep"


def minors(text: str, *, mention: bool = False) -> str | None:
    """Return what puts a minor into a sexual or violent context, or None; with ``mention`` any minor.

    A minor is a word such as child or schoolgirl, or an age below 18; in such a context also girl and boy,
    whose age is not said. A context is a word anywhere in the prompt: "a child on a swing under a dead tree"
    is dropped too.
    """
    said = _without(words(text.replace("_", " ")), _phrases("innocent"))
    if always := _phrases("always").first(said):
        return always
    minor = _minor(said, text)
    if mention and minor:
        return minor
    if (young := minor or _phrases("young").first(said)) and (context := _context(said, text)):
        return f"{young}, {context}"
    return None


def nsfw(text: str) -> str | None:
    """Return the first sexual or profane word of ``text``, or None."""
    # The filter takes an accented letter for the end of a word.
    plain = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))
    if not _disguised(plain) and not _suspects().first(words(_single(plain))):
        return None  # what the filter would say, ten times as fast
    found = _filter().check_profanity(plain)["profane_words"]
    return str(found[0]) if found else None


def _single(text: str) -> str:
    """Return ``text`` as the filter reads it too: no letter twice in a row, no apostrophes."""
    return _REPEATED.sub(r"\1", text.lower()).replace("'", " ")


def _disguised(text: str) -> bool:
    """Say whether ``text`` may hold a word in disguise: digits, signs or spaces within words."""
    return bool(_ODD.search(_MEASURE.sub(" ", text)))


_REPEATED = re.compile(r"([a-z])\1+")
_MEASURE = re.compile(r"(?<![\w.])\d+(?:[.:]\d+)?(?:k|mm|cm|d|px|fps|s|th|st|nd|rd)?(?!\w)", re.I)
_ODD = re.compile(
    r"[^\sA-Za-z,.;:?'\"-]|[A-Za-z][,.;:?'\"-]+[A-Za-z]|(?<![A-Za-z])[A-Za-z][^A-Za-z]+[A-Za-z](?![A-Za-z])"
)


def _minor(said: Sequence[str], text: str) -> str | None:
    if word := _phrases("minor").first(said):
        return word
    ages = (age for age in _AGE.finditer(text) if _years(next(filter(None, age.groups()))) < ADULT)
    return next((age[0] for age in ages), None)


def _years(said: str) -> int:
    return int(said) if said.isdecimal() else 0


def _context(said: Sequence[str], text: str) -> str | None:
    return _phrases("suggestive").first(said) or nsfw(text) or _phrases("violent").first(said)


class _Phrases:
    """Phrases to look for among words, the longest at each place."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self._by_first: dict[str, list[list[str]]] = {}
        for phrase in sorted(map(words, phrases), key=len, reverse=True):
            self._by_first.setdefault(phrase[0], []).append(phrase)

    def at(self, said: Sequence[str], place: int) -> int:
        """Return how many words of ``said`` from ``place`` on are one of the phrases."""
        phrases = self._by_first.get(said[place], ())
        return next((len(each) for each in phrases if said[place : place + len(each)] == each), 0)

    def first(self, said: Sequence[str]) -> str | None:
        """Return the first phrase in ``said``, or None."""
        found = ((place, self.at(said, place)) for place in range(len(said)))
        return next((" ".join(said[place : place + length]) for place, length in found if length), None)


def _without(said: Sequence[str], phrases: _Phrases) -> list[str]:
    """Return ``said`` with a full stop, which no phrase has, in place of each of ``phrases``."""
    rest, place = [], 0
    while place < len(said):
        length = phrases.at(said, place)
        rest.append("." if length else said[place])
        place += length or 1
    return rest


_BELOW_ADULT = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve"
    "|thirteen|fourteen|fifteen|sixteen|seventeen"
)
_AGE = re.compile(
    rf"(?<![\w-])(?<!ty )(\d{{1,2}}|{_BELOW_ADULT})[\s-]*(?:years?|yrs?)[\s-]*old\b"
    r"|\b(\d{1,2})\s?(?:yo|y/o|y\.o\.)(?!\w)|\baged?\s+(\d{1,2})\b",
    re.I,
)


@cache
def _lists() -> dict[str, list[str]]:
    return tomllib.loads(Path(__file__).with_name("words.toml").read_text(encoding="utf-8"))


@cache
def _phrases(name: str) -> _Phrases:
    return _Phrases(_lists()[name])


@cache
def _suspects() -> _Phrases:
    """All that the filter looks for, without repeated letters, as it reads words too."""
    from glin_profanity.data.dictionary import dictionary

    listed = [*dictionary.get_words("english"), *_lists()["explicit"]]
    return _Phrases(sorted({_single(each) for each in listed if words(each) and not _disguised(each)}))


@cache
def _filter() -> Filter:
    from glin_profanity import Filter

    lists = _lists()
    return Filter(
        {
            "languages": ["english"],
            "detect_leetspeak": True,
            "custom_words": lists["explicit"],
            "ignore_words": lists["harmless"],
            "whitelist": lists["innocent"],
        }
    )
