"""Content ids: the same recipe always has the same id, on every machine and in every rerun."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Part: TypeAlias = "bool | int | float | str | Sequence[Part] | Mapping[str, Part] | None"


def content_id(kind: str, **parts: Part) -> str:
    """Return 32 hex digits: the first 128 bits of SHA-256 over NFC canonical JSON.

    ``kind`` separates records whose parts happen to be equal. Floats must be finite.
    Raises ValueError for NaN and infinities, TypeError for parts JSON cannot say.
    """
    given = {"kind": kind, **parts}
    try:
        canonical = _json(given)
    except TypeError:  # not a dict or a list, but a mapping or a sequence
        canonical = ""
    if not canonical or not canonical.isascii():
        canonical = _json(_nfc(given))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def seed_of(content: str) -> int:
    """Return a 63-bit seed drawn from a content id (torch and NumPy both take 63 bits)."""
    return int(content[:16], 16) >> 1


def unit_interval(content: str) -> float:
    """Return a number in [0, 1) drawn from a content id: a coin that every rerun tosses alike."""
    return int(content[16:29], 16) / 16**13


def _json(value: Part) -> str:
    """Return JSON of one spelling only."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _nfc(value: Part) -> Part:
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, Sequence):
        return [_nfc(item) for item in value]
    if isinstance(value, Mapping):
        return {unicodedata.normalize("NFC", key): _nfc(item) for key, item in value.items()}
    return value
