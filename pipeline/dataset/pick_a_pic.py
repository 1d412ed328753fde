"""A row of a file in Pick-a-Pic's columns: the pair that it gives, or the one reason why it gives none.

The side with the larger label won. Labels are shares of a whole, whatever their type: 1 and 0, "1.0" and
"0.0", true and false, or 0.7 and 0.3, of which the larger is the pair's confidence. Scores, which add up to
something else, are none. Where best_image_uid names a side, it has to be the same one. Images keep their
bytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline import media
from pipeline.dataset.labelled import COLUMNS, KINDS, Skip
from pipeline.errors import MediaError
from pipeline.ids import content_id
from pipeline.records import LicenceProfile, ShardEntry

MIME = media.mime_of("image")
JPEG = b"\xff\xd8"
"""How a JPEG begins; shards hold no other images."""

USED = (*COLUMNS, "has_label", "best_image_uid", "image_0_uid", "image_1_uid", "model_0", "model_1")
"""Columns that are read, the first ones of every file, the others where it has them."""

TYPES = {
    "jpg": (*KINDS["jpg"], pa.types.is_struct),  # {bytes, path}, as the library `datasets` stores images
    "label": (*KINDS["label"], *KINDS["caption"], pa.types.is_boolean),
    "caption": KINDS["caption"],
}

EVEN = 1e-6
"""Shares that differ by less are a tie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What all rows of a file share; ``digest`` tells the file from others of its name."""

    category: str
    licence: LicenceProfile
    file: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedPair:
    """A row that gives a pair; ``about`` is its JSON."""

    id: str
    about: Mapping[str, Any]
    winner: bytes
    loser: bytes

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Yield the members of its sample."""
        key, suffix = f"{self.about['category']}-{self.id}", media.SUFFIX[MIME]
        yield f"{key}.json", json.dumps(self.about, ensure_ascii=False, sort_keys=True).encode()
        yield f"{key}.loser.{suffix}", self.loser
        yield f"{key}.prompt.txt", self.about["prompt"].encode()
        yield f"{key}.winner.{suffix}", self.winner

    def entry(self, shard: str) -> Callable[..., ShardEntry]:
        """Return its line of the index, which lacks ``members``."""
        return partial(
            ShardEntry,
            pair_id=self.id,
            shard=shard,
            key=f"{self.about['category']}-{self.id}",
            category=self.about["category"],
            winner_generator=self.about["winner"]["generator"],
            loser_generator=self.about["loser"]["generator"],
            licence_profile=self.about["licence_profile"],
            confidence=self.about["confidence"],
        )


def pair_of(origin: Origin, row: Mapping[str, Any], number: int) -> ImportedPair | Skip:
    """Return the pair of row ``number``, counted from 0, or the first reason why it gives none.

    Text may be bytes: a row that is not UTF-8 must not cost others.
    """
    share = _preference(row)
    if isinstance(share, Skip):
        return share
    prompt = _text(row["caption"])
    if not prompt.strip():
        return Skip.NO_PROMPT
    images = [_medium(row[name]) for name in ("jpg_0", "jpg_1")]
    if not all(images):
        return Skip.MISSING_MEDIA
    if images[0] == images[1]:
        return Skip.SAME_MEDIA
    if not all(image.startswith(JPEG) for image in images):
        return Skip.NO_JPEG
    try:
        sides = [_side(row, place, data) for place, data in enumerate(images)]
    except MediaError:
        return Skip.UNREADABLE
    won = 0 if share > 0.5 else 1
    winner, loser = sides[won], sides[1 - won]
    pair_id = content_id("imported", prompt=prompt, winner=winner["sha256"], loser=loser["sha256"])
    confidence = round(max(share, 1 - share), 6)
    about = {
        "pair_id": pair_id,
        "category": origin.category,
        "prompt": prompt,
        "prompt_id": content_id("prompt", category=origin.category, text=prompt),
        "subject": "",
        "style": "",
        "prompt_source": origin.file,
        "prompt_licence": "not stated",
        "recipe": "imported",
        "policy": "label",
        "confidence": confidence,
        "licence_profile": origin.licence,
        "winner": winner,
        "loser": loser,
        "verdicts": [
            {
                "judge": "label",
                "order": "loser_first" if won else "winner_first",
                "choice": "winner",
                "p_winner": confidence,
            }
        ],
        "imported": {"file": origin.file, "digest": origin.digest, "row": number},
    }
    return ImportedPair(id=pair_id, about=about, winner=images[won], loser=images[1 - won])


def _preference(row: Mapping[str, Any]) -> float | Skip:
    """Return the share of side 0, which is not that of a tie."""
    first, second = (_number(row[name]) for name in ("label_0", "label_1"))
    if first is None or second is None or _number(row.get("has_label")) == 0:
        return Skip.NO_LABEL
    if not (0 <= first <= 1 and abs(first + second - 1) < EVEN):
        return Skip.ODD_LABEL
    if abs(first - second) < EVEN:
        return Skip.TIE
    uids = [_text(row.get(f"image_{side}_uid")) for side in (0, 1)]
    best = _text(row.get("best_image_uid")) or None
    if best in uids and uids[0] != uids[1] and uids.index(best) != int(first < second):
        return Skip.CONTRADICTED
    return first


def _number(value: object) -> float | None:
    """Return a label of any type as a number; infinity for what says none, None where nothing is said."""
    text = (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip().lower()
    if value is None or text in ("", "nan"):
        return None
    if text in ("true", "false"):
        return float(text == "true")
    try:
        return float(text)
    except ValueError:
        return math.inf


def _text(value: object) -> str:
    """Return a text; an empty one where there is none, or none that is UTF-8."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return ""
    return "" if value is None else str(value)


def _medium(value: Any) -> bytes:
    return (value.get("bytes") if isinstance(value, dict) else value) or b""


def _side(row: Mapping[str, Any], place: int, data: bytes) -> dict[str, Any]:
    """Describe a side as shards do, decoded in full. Raises MediaError."""
    _, height, width, _ = media.decode(data, MIME).shape
    sha256 = hashlib.sha256(data).hexdigest()
    return {
        "generation_id": content_id("imported", sha256=sha256),
        "generator": _text(row.get(f"model_{place}")) or "unknown",
        "seed": -1,  # not known
        "width": width,
        "height": height,
        "frames": 1,
        "fps": 0,
        "sha256": sha256,
        "licence": "not stated",
    }
