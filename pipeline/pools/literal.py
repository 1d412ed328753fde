"""The literal text that a text_rendering prompt wants drawn: 1 to 4 words of Latin letters and digits."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.pools.draw import Draw
from pipeline.pools.grammar import phrases

SHORTEST, LONGEST = 3, 22


def draw_literal(draw: Draw) -> str:
    """Return a phrase, a name of two or three words, or a word with a number."""
    kind = draw.below(10)
    upper = draw.chance(0.5)
    if kind < 2:
        return draw.pick(phrases("phrases"))
    if kind < 4:
        drawn = f"{draw.pick(phrases('numbered'))} {1 + draw.below(999)}"
    elif kind < 7:
        drawn = f"{draw.pick(phrases('first'))} {draw.pick(phrases('second'))}"
    else:
        drawn = " ".join(draw.pick(phrases(name)) for name in ("first", "first", "second"))
    if len(drawn) > LONGEST or len(set(drawn.split())) < len(drawn.split()):
        return draw.pick(phrases("phrases"))
    return drawn.upper() if upper else drawn


def other_literal(text: str, draw: Draw) -> str:
    """Return ``text`` with one word of it replaced by one of its kind; a set phrase by another."""
    parts = text.split()
    places = [place for place, part in enumerate(parts) if _kin(part)]
    if not places or text in phrases("phrases"):
        like = [each for each in phrases("phrases") if len(each.split()) == len(parts)]
        return draw.pick([each for each in like if each != text])
    place = draw.pick(places)
    room = LONGEST - len(text) + len(parts[place])
    options = [each for each in _kin(parts[place]) if len(each) <= room and each not in _cased(parts, each)]
    chosen = draw.pick(options)
    parts[place] = chosen.upper() if text.isupper() else chosen
    return " ".join(parts)


def _cased(parts: list[str], like: str) -> list[str]:
    return [like for part in parts if part.casefold() == like.casefold()]


def _kin(word: str) -> Sequence[str]:
    """Words that could stand in the place of ``word``; none if it is of no list."""
    if word.isdigit():
        return [str(number) for number in range(1, 1000)]
    for name in ("first", "second", "numbered"):
        if word.casefold() in (each.casefold() for each in phrases(name)):
            return phrases(name)
    return []
