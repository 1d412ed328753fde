"""Text as prompts have it: repaired, in NFC, without characters that nobody sees."""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftfy import TextFixerConfig

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_PIECE = re.compile(r"\w+|[^\w\s]")
_QUOTED = re.compile(
    r"\"[^\"]*\"|“[^”]*”|«[^»]*»|「[^」]*」|(?<!\w)'[^']*'(?!\w)|\u2018[^\u2019]*\u2019(?!\w)"
)
_JOINERS = "\u200c\u200d"
_PRESENTED = "\ufe0e\ufe0f"  # chooses between a sign's text and emoji form


def tidy(text: str) -> str:
    """Return ``text`` repaired (mojibake, HTML entities), in NFC, with single spaces.

    Control, zero-width, bidirectional, tag and private characters go; joiners stay where a script or an
    emoji needs them.
    """
    from ftfy import fix_text

    fixed = fix_text(text, config=_config())
    if not (fixed.isascii() and fixed.isprintable()):
        fixed = "".join(
            each for place, each in enumerate(fixed) if each.isspace() or _seen(fixed, place, each)
        )
    return unicodedata.normalize("NFC", " ".join(fixed.split()))


@cache
def _config() -> TextFixerConfig:
    """Quotes, ligatures and wide letters may be what a picture is to show: they stay."""
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html="auto", uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False
    )


def _seen(text: str, place: int, character: str) -> bool:
    if character in _JOINERS:
        before = text[place - 1] if place else " "
        return ord(before) >= 0x600 and place + 1 < len(text)  # no Latin, Greek or Cyrillic letter joins
    return character in _PRESENTED or unicodedata.category(character) not in ("Cc", "Cf", "Co", "Cn", "Cs")


def words(text: str) -> list[str]:
    """Return the words of ``text`` for comparing: NFKC, folded, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def unquoted(text: str) -> str:
    """Return ``text`` without what stands in quotes: lettering may be in any language."""
    return " ".join(_QUOTED.sub(" ", text).split())


def tokens(text: str) -> int:
    """Return about how many tokens a text encoder makes of ``text``: one for each six letters of a word."""
    return sum(-(-len(piece) // 6) for piece in _PIECE.findall(text))
