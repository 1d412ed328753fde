"""The literal text that a text_rendering prompt wants drawn: words of languages written in Latin letters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache

from pipeline.pools.draw import Draw
from pipeline.pools.grammar import MOST_WORDS, phrases, words

SHORTEST, LONGEST = 3, 44

_SLOT = re.compile(r"\{(\w+)\}")
_NUMBERS = {"number": range(1, 1000), "year": range(1881, 2030), "hour": range(1, 13)}
_PHRASES = 0.45
"""Share of the texts that are set phrases of one of the languages; the others are made up in English."""


def draw_literal(draw: Draw, count: int) -> str:
    """Return a text of ``count`` words, 1 to MOST_WORDS."""
    languages = [name for name, found in _by_length().items() if count in found]
    if draw.chance(_PHRASES):
        return draw.pick(_by_length()[draw.pick(languages)][count])
    patterns = [pattern for pattern in phrases("patterns") if len(pattern.split()) == count]
    for _ in range(4):
        drawn = _filled(draw.pick(patterns), draw)
        if len(drawn) <= LONGEST and len(set(drawn.casefold().split())) == count:
            return drawn.upper() if draw.chance(0.4) else drawn
    return draw.pick(_by_length()["english"][count])


def other_literal(text: str, draw: Draw) -> str:
    """Return ``text`` with one word replaced by another of its kind, or another set phrase."""
    parts = text.split()
    for found in _by_length().values():
        if text in found.get(len(parts), ()):
            return draw.pick([each for each in found[len(parts)] if each != text])
    places = [place for place, part in enumerate(parts) if _kin(part)]
    place = draw.pick(places)
    room = LONGEST - len(text) + len(parts[place])
    said = {part.casefold() for part in parts}
    chosen = draw.pick(
        [each for each in _kin(parts[place]) if len(each) <= room and each.casefold() not in said]
    )
    parts[place] = chosen.upper() if text.isupper() else chosen
    return " ".join(parts)


@cache
def _by_length() -> dict[str, dict[int, tuple[str, ...]]]:
    """Return the set phrases by language and number of words."""
    return {
        language: {
            count: tuple(phrase for phrase in found if len(phrase.split()) == count)
            for count in range(1, MOST_WORDS + 1)
            if any(len(phrase.split()) == count for phrase in found)
        }
        for language, found in words("phrases").items()
    }


def _filled(pattern: str, draw: Draw) -> str:
    return _SLOT.sub(lambda found: draw.pick(_words(found[1])), pattern)


@cache
def _words(name: str) -> Sequence[str]:
    return tuple(map(str, _NUMBERS[name])) if name in _NUMBERS else phrases(name)


@cache
def _kin(word: str) -> Sequence[str]:
    """Words that could stand in the place of ``word``; none if it is of no list."""
    if word.isdigit():
        name = "year" if len(word) == 4 else "number"
        return _words(name)
    for name in ("first", "second", "numbered", "day", "thing", "things"):
        if word.casefold() in (each.casefold() for each in phrases(name)):
            return phrases(name)
    return ()
