"""Stage 8: kept pairs fill WebDataset shards.

A sample is ``<key>.json``, ``<key>.loser.<ext>``, ``<key>.prompt.txt``, ``<key>.winner.<ext>``, in this
order. The label lives in the member names, where no reader can take it for a string or a class number.
Keys hold no dot (readers split names at the first one), and the JSON has one fixed shape with lists of
structs (readers that infer columns from the first samples drop keys that appear later).
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import media
from pipeline.config import Category
from pipeline.errors import CorruptError
from pipeline.records import (
    Agreement,
    Choice,
    Generation,
    LicenceProfile,
    Member,
    Pair,
    Prompt,
    ShardEntry,
    Side,
    Verdict,
)
from pipeline.stages.agree import AgreeStage
from pipeline.stages.base import Stage, Unit, read_columns, read_part
from pipeline.storage import Store
from pipeline.storage.tar import write_tar

PROFILES: Mapping[LicenceProfile, tuple[LicenceProfile, ...]] = {
    "permissive": ("permissive",),
    "research": ("permissive", "research"),
}
"""What each licence profile of a build may ship; a shard never mixes them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardUnit(Unit):
    """The kept pairs of one licence profile in buckets ``bucket`` to ``until`` (exclusive)."""

    until: int
    licence_profile: LicenceProfile


class ShardStage(Stage):
    """Lane: category. The part of a unit is the index of the tar that stands beside it.

    ``skipped`` buckets have units that failed for good; the shards are made without them, under a
    fingerprint of their own. So are shards of more buckets: a fingerprint's folder is one dataset.
    """

    name = "shard"

    def __init__(
        self,
        category: Category,
        *,
        agree: AgreeStage,
        shard_bytes: int,
        licence_profile: LicenceProfile,
        skipped: tuple[int, ...] = (),
    ) -> None:
        self.shipped = [b for b in range(agree.pair.prompts.bucket_count) if b not in skipped]
        super().__init__(
            lane=category.name,
            agree=agree.fingerprint,
            shard_bytes=shard_bytes,
            licence_profile=licence_profile,
            buckets=self.shipped,
        )
        self.category, self.agree, self.shard_bytes = category, agree, shard_bytes
        self.licence_profiles = PROFILES[licence_profile]

    def buckets(self, unit: Unit) -> Iterable[int]:
        """Return the buckets that the shard is cut from."""
        return [b for b in self.shipped if isinstance(unit, ShardUnit) and unit.bucket <= b < unit.until]

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield the labels of all buckets that the shard is cut from."""
        return (self.agree.unit(bucket) for bucket in self.buckets(unit))

    def units(self, store: Store) -> Iterator[ShardUnit]:
        """Cut the buckets into runs of about ``shard_bytes`` per licence profile."""
        for profile in self.licence_profiles:
            runs = list(self._runs(self._sizes(profile, store)))
            for number, (start, until) in enumerate(runs):
                yield ShardUnit(
                    stage=self.name,
                    lane=self.lane,
                    fingerprint=self.fingerprint,
                    name=f"{self.category.name}-{profile}-{number:05d}",
                    bucket=start,
                    until=until,
                    licence_profile=profile,
                )

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Write one tar, then return its index."""
        if not isinstance(unit, ShardUnit):
            raise TypeError(f"{unit.key}: a shard needs a ShardUnit")
        samples = sorted(self._samples(unit, store), key=lambda sample: sample.key)
        with tempfile.TemporaryDirectory(prefix="vipo-shard-") as folder:
            path = Path(folder) / "shard.tar"
            files = (file for sample in samples for file in sample.files(store))
            members, sha256, size = write_tar(path, files)
            key = tar_key(unit)
            if not store.put_file(key, path) and store.size(key) != size:
                raise CorruptError(f"{store.uri}/{key}: is not the shard of its fingerprint: delete it")
        rows = [sample.entry(unit.name, members[4 * i : 4 * i + 4]) for i, sample in enumerate(samples)]
        metadata = {"sha256": sha256, "bytes": str(size)}
        return ShardEntry.table(rows).replace_schema_metadata(metadata)

    def digests(self, unit: Unit, store: Store) -> dict[str, str]:
        """Return name and SHA-256 of every file that the shard of ``unit`` holds, from the parts alone."""
        if not isinstance(unit, ShardUnit):
            raise TypeError(f"{unit.key}: a shard needs a ShardUnit")
        return dict(item for sample in self._samples(unit, store) for item in sample.digests())

    def _sizes(self, profile: LicenceProfile, store: Store) -> Iterator[tuple[int, int]]:
        """Yield the bytes that each bucket would put into shards of a licence profile."""
        for bucket in self.shipped:
            key = self.agree.unit(bucket).key
            columns = read_columns(["kept", "bytes", "licence_profile"], key, store).to_pydict()
            rows = zip(columns["kept"], columns["bytes"], columns["licence_profile"], strict=True)
            total = sum(size for kept, size, licence in rows if kept and licence == profile)
            if total:
                yield bucket, total

    def _runs(self, sizes: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
        start, until, total = None, 0, 0
        for bucket, size in sizes:
            if start is not None and total + size > self.shard_bytes:
                yield start, until
                start, total = None, 0
            start = bucket if start is None else start
            until, total = bucket + 1, total + size
        if start is not None:
            yield start, until

    def _samples(self, unit: ShardUnit, store: Store) -> Iterator[_Sample]:
        for bucket in self.buckets(unit):
            yield from self._bucket(bucket, unit.licence_profile, store)

    def _bucket(self, bucket: int, profile: LicenceProfile, store: Store) -> Iterator[_Sample]:
        pair_stage = self.agree.pair
        prompts = {family.root.id: family.root for family in pair_stage.prompts.families(bucket, store)}
        made = pair_stage.generations(bucket, store)
        pairs = {row.id: row for row in read_part(Pair, pair_stage.unit(bucket).key, store)}
        verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
        for stage in self.agree.judge:
            for verdict in read_part(Verdict, stage.unit(bucket).key, store):
                verdicts[verdict.pair_id].append(verdict)
        for row in read_part(Agreement, self.agree.unit(bucket).key, store):
            if row.kept and row.licence_profile == profile:
                yield _Sample(
                    category=self.category,
                    prompt=prompts[row.root_id],
                    pair=pairs[row.pair_id],
                    winner=made[str(row.winner_id)],
                    loser=made[str(row.loser_id)],
                    agreement=row,
                    verdicts=verdicts[row.pair_id],
                )


def tar_key(unit: Unit) -> str:
    """Return where the tar of a shard unit stands: beside its index."""
    return unit.key.removesuffix(".parquet") + ".tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """One kept pair as it ships."""

    category: Category
    prompt: Prompt
    pair: Pair
    winner: Generation
    loser: Generation
    agreement: Agreement
    verdicts: Sequence[Verdict]

    @property
    def key(self) -> str:
        return f"{self.category.name}-{self.pair.id}"

    def files(self, store: Store) -> Iterator[tuple[str, bytes]]:
        for name, content in self._contents():
            yield name, _blob(content, store) if isinstance(content, Generation) else content

    def digests(self) -> Iterator[tuple[str, str]]:
        for name, content in self._contents():
            if isinstance(content, Generation):
                yield name, str(content.media_sha256)
            else:
                yield name, hashlib.sha256(content).hexdigest()

    def _contents(self) -> Iterator[tuple[str, bytes | Generation]]:
        suffix = media.SUFFIX[self.winner.mime]
        described = json.dumps(self.described(), ensure_ascii=False, sort_keys=True)
        yield f"{self.key}.json", described.encode()
        yield f"{self.key}.loser.{suffix}", self.loser
        yield f"{self.key}.prompt.txt", self.prompt.text.encode()
        yield f"{self.key}.winner.{suffix}", self.winner

    def described(self) -> dict[str, Any]:
        """Return the sample's JSON; every key is always there and always of one type."""
        return {
            "pair_id": self.pair.id,
            "category": self.category.name,
            "prompt": self.prompt.text,
            "prompt_id": self.prompt.id,
            "subject": self.prompt.subject,
            "style": self.prompt.style,
            "prompt_source": self.prompt.source,
            "prompt_licence": self.prompt.licence,
            "recipe": self.pair.recipe,
            "policy": self.agreement.policy,
            "confidence": _number(self.agreement.confidence),
            "licence_profile": self.agreement.licence_profile,
            "winner": _side(self.winner),
            "loser": _side(self.loser),
            "verdicts": [self._verdict(verdict) for verdict in self.verdicts],
        }

    def entry(self, shard: str, members: list[Member]) -> ShardEntry:
        return ShardEntry(
            pair_id=self.pair.id,
            shard=shard,
            key=self.key,
            category=self.category.name,
            winner_generator=self.winner.generator,
            loser_generator=self.loser.generator,
            licence_profile=self.agreement.licence_profile or "research",
            confidence=self.agreement.confidence or 0.0,
            members=tuple(members),
        )

    def _verdict(self, verdict: Verdict) -> dict[str, Any]:
        """Say in terms of winner and loser what the judge said of first and second."""
        winner: Side = "first" if self.winner.id == self.pair.first_id else "second"
        names: dict[Choice, str] = {"tie": "tie", "invalid": "invalid", "first": "loser", "second": "loser"}
        names[winner] = "winner"
        p_first = 0.5 if verdict.p_first is None else verdict.p_first
        shown_first = (verdict.order == "forward") == (winner == "first")
        return {
            "judge": verdict.judge,
            "order": "winner_first" if shown_first else "loser_first",
            "choice": names[verdict.choice],
            "p_winner": _number(p_first if winner == "first" else 1 - p_first),
        }


def _side(generation: Generation) -> dict[str, Any]:
    return {
        "generation_id": generation.id,
        "generator": generation.generator,
        "seed": generation.seed,
        "width": generation.width,
        "height": generation.height,
        "frames": generation.frames,
        "fps": generation.fps,
        "sha256": generation.media_sha256,
        "licence": generation.licence,
    }


def _blob(generation: Generation, store: Store) -> bytes:
    return store.get(media.key(str(generation.media_sha256), generation.mime))


def _number(value: float | None) -> float:
    """Round to what a probability means; the last bits would only make the JSON longer."""
    return round(float(value or 0.0), 6)
