"""Mend a run: what is corrupt is made again from what is not, and what cannot be is named.

Parts are read in full, media are hashed, shards are checked as ``verify`` does and against the parts that
they were cut from. Only what is proven bad is removed, and what was made from it; a store that does not
answer ends the repair instead. Killed in the middle, it is run again.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields

import pyarrow as pa

from pipeline import media
from pipeline.config import Settings
from pipeline.dataset.manifest import KEY, Manifest, Shard, describe, read_manifest
from pipeline.dataset.verify import REMEDY, check_counts, check_shard
from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.records import (
    Agreement,
    Calibration,
    Generation,
    Member,
    Pair,
    Prompt,
    Record,
    ShardEntry,
    Verdict,
)
from pipeline.stages import (
    AgreeStage,
    JudgeStage,
    Lanes,
    ShardStage,
    ShardUnit,
    Stage,
    Unit,
    commit,
    lanes,
    read_part,
    tar_key,
)
from pipeline.stages.base import open_part
from pipeline.stages.prompts import read_pool
from pipeline.storage import Store

RECORDS: dict[str, type[Record]] = {
    "prompts": Prompt,
    "rewrite": Prompt,
    "generate": Generation,
    "pair": Pair,
    "gold": Verdict,
    "calibrate": Calibration,
    "judge": Verdict,
    "agree": Agreement,
}

THREADS = 16
"""Media read at a time: on S3 each waits for its answer."""

Told = Callable[[str], object]


@dataclass(slots=True, kw_only=True)
class Repaired:
    """What a repair came to: keys, ``lost`` pairs by sample key, and in ``todo`` what only a build can do."""

    removed: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    todo: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether the dataset is complete and right now."""
        return not self.lost and not self.todo


def repair(settings: Settings, every: Sequence[Lanes], store: Store, told: Told = id) -> Repaired:
    """Check and mend all that the settings use; ``told`` is called with a line for each thing done."""
    work = _Work(settings, store, told)
    for lane in every:
        work.mend_parts(lane)
        work.mend_media(lane)
    units = [unit for lane in every for unit in work.mend_shards(lane)]
    work.check_manifest(units)
    return work.done


class _Work:
    def __init__(self, settings: Settings, store: Store, told: Told) -> None:
        self._settings, self._store, self._told = settings, store, told
        self._manifest = self._read_manifest()
        self._stuck: set[str] = set()
        self.done = Repaired()

    def mend_parts(self, lane: Lanes) -> None:
        """Remove corrupt parts, and what was made from parts of models' work that are not there."""
        if self._prompts_damage(lane) and not _pool_is_there(lane):
            self._stuck.add(lane.category.name)
            self._told(f"stuck: {lane.category.name}: prompts are damaged and their pool is not there")
            return
        for stage in _stages(lane):
            for unit in self._made(stage):
                why = self._damage(unit)
                if why:
                    self._remove(unit.key, why)
            if stage in (lane.rewrite, *lane.generate, *lane.gold, *lane.judge):
                for bucket in sorted(self._lacking(stage, lane)):
                    self._remove_made_from(stage, bucket, lane)

    def mend_media(self, lane: Lanes) -> None:
        """Restore media from shards; a part that names one that cannot be goes, with all made from it."""
        for stage in () if lane.category.name in self._stuck else lane.generate:
            bad = {unit: self._bad_media(unit) for unit in self._made(stage)}
            restored = self._restore({key: sha256 for found in bad.values() for key, sha256 in found.items()})
            for unit, found in bad.items():
                lost = found.keys() - restored
                for key in sorted(lost):  # first: while it lies there, a build cannot put a good one
                    self._remove(key, "missing or not of its SHA-256")
                if lost:
                    self._remove_made_from(stage, unit.bucket, lane)
                    self._remove(unit.key, f"names {min(lost)}")

    def mend_shards(self, lane: Lanes) -> list[ShardUnit]:
        """Make bad shards again; return all of a category that can be cut from parts, else none."""
        if lane.category.name in self._stuck:
            self.done.lost += sorted(self._lost(lane))
            return []
        stage = self._shard_stage(lane)
        if stage is None:
            self._remove_bad_shards(lane)
            return []
        units = list(stage.units(self._store))
        for unit in units:
            why = self._shard_damage(unit, stage.digests(unit, self._store))
            if why:
                for key in (tar_key(unit), unit.key):
                    self._store.delete(key)
                commit(unit, stage.process(unit, self._store), self._store)
                self.done.rebuilt.append(tar_key(unit))
                self._told(f"rebuilt: {tar_key(unit)}: {why}")
        return units

    def check_manifest(self, units: Sequence[ShardUnit]) -> None:
        """Note if the manifest lists other shards than ``units``, of the categories that these are of."""
        if self._manifest is None:
            self.done.todo.append(f"{KEY} is missing or damaged")
            return
        listed = {shard.tar: shard for shard in self._manifest.shards if shard.category not in self._stuck}
        try:
            check_counts(self._manifest)
            made = {tar_key(unit): self._described(unit) for unit in units}
        except CorruptError as error:
            self.done.todo.append(str(error))
        else:
            if made != listed and not self.done.todo:
                self.done.todo.append(f"{KEY} is not of these shards")

    # ---- parts

    def _made(self, stage: Stage) -> list[Unit]:
        """Return the units that have a part."""
        found = self._store.list(stage.folder)
        names = [entry.key.rpartition("/")[2] for entry in found if entry.key.endswith(".parquet")]
        return [stage.unit(int(name.removesuffix(".parquet"))) for name in names]

    def _lacking(self, stage: Stage, lane: Lanes) -> set[int]:
        """Return the buckets that have no part."""
        made = set(self._made(stage))
        without = (unit for unit in stage.units(self._store) if unit not in made)
        return {b for unit in without for b in stage.buckets(unit) if b < lane.prompts.bucket_count}

    def _damage(self, unit: Unit) -> str | None:
        """Return why a part is no good; its bytes are fetched first: a store at fault is no damage."""
        data = self._store.get(unit.key)
        try:
            with open_part(io.BytesIO(data), unit.key) as part:
                return _misfit(part.read().schema, RECORDS[unit.stage])
        except CorruptError as error:
            return str(error)

    def _prompts_damage(self, lane: Lanes) -> bool:
        made = self._made(lane.prompts)
        return bool(self._lacking(lane.prompts, lane)) or any(self._damage(unit) for unit in made)

    def _remove_made_from(self, stage: Stage, bucket: int, lane: Lanes) -> None:
        """Remove what was made from a part of a model's work: made again, that may be another."""
        keys = [later.unit(bucket).key for later in _made_from(stage, lane)]
        calibrate = lane.calibrate
        if calibrate and stage not in lane.judge and bucket in calibrate.buckets(calibrate.unit(0)):
            labels: tuple[JudgeStage | AgreeStage, ...] = (*lane.judge, lane.agree)
            keys += [unit.key for later in labels if later.is_calibrated for unit in self._made(later)]
            keys.append(calibrate.unit(0).key)
        for key in keys:
            if self._store.size(key) is not None:
                self._remove(key, f"was made from {stage.unit(bucket).key}")

    def _remove(self, key: str, why: str) -> None:
        self._store.delete(key)
        self.done.removed.append(key)
        self._told(f"removed: {key}: {why}")

    # ---- media

    def _bad_media(self, unit: Unit) -> dict[str, str]:
        """Return key and SHA-256 of the media that a part names and the store does not give."""
        rows = read_part(Generation, unit.key, self._store)
        named = {media.key(row.media_sha256, row.mime): row.media_sha256 for row in rows if row.media_sha256}
        with ThreadPoolExecutor(THREADS) as pool:
            good = pool.map(lambda key: self._is_good(key, named[key]), named)
            return {key: named[key] for key, fine in zip(list(named), good, strict=True) if not fine}

    def _is_good(self, key: str, sha256: str) -> bool:
        data = self._get(lambda: self._store.get(key), key)
        return data is not None and hashlib.sha256(data).hexdigest() == sha256

    def _get(self, read: Callable[[], bytes], key: str) -> bytes | None:
        """Return what ``read`` gives, None if ``key`` does not exist. Raises StorageError if it does."""
        try:
            return read()
        except StorageError:
            if self._store.size(key) is None:
                return None
            raise

    def _restore(self, wanted: Mapping[str, str]) -> set[str]:
        """Put back the media (key to SHA-256) that a shard holds; return their keys."""
        keys = {sha256: key for key, sha256 in wanted.items()}
        for tar, member in self._members() if keys else ():
            key = keys.get(member.sha256)
            data = self._get(lambda t=tar, m=member: self._read_member(t, m), tar) if key else None  # type: ignore[misc]
            if key and data is not None and hashlib.sha256(data).hexdigest() == member.sha256:
                self._store.delete(key)
                self._store.put(key, data)
                del keys[member.sha256]
                self.done.restored.append(key)
                self._told(f"restored: {key}: from {tar}")
        return wanted.keys() - keys.values()

    def _members(self) -> Iterator[tuple[str, Member]]:
        for entry in self._store.list("shard/"):
            if entry.key.endswith(".parquet"):
                with suppress(CorruptError):
                    for row in read_part(ShardEntry, entry.key, self._store):
                        for member in row.members:
                            yield entry.key.removesuffix(".parquet") + ".tar", member

    def _read_member(self, tar: str, member: Member) -> bytes:
        with self._store.open(tar) as file:
            file.seek(member.offset)
            return file.read(member.size)

    # ---- shards

    def _shard_stage(self, lane: Lanes) -> ShardStage | None:
        """Return the stage whose shards can be cut now; None, and a note, if a build must come first."""
        name, count = lane.category.name, lane.prompts.bucket_count
        unlabelled = self._lacking(lane.agree, lane)
        if any(self._lacking(stage, lane) - unlabelled for stage in _stages(lane)):
            self.done.todo.append(f"{name}: parts are to be made again")
            return None
        skipped = tuple(sorted(unlabelled))
        stage = lanes(lane.category, self._settings, buckets=count, skipped=skipped).shard
        folder = stage.folder
        shipped = self._manifest is not None and any(
            shard.index.startswith(folder) for shard in self._manifest.shards
        )
        if shipped or (not skipped and any(self._store.list(folder))):
            return stage
        problem = f"{len(skipped)} of {count} buckets are not labelled" if skipped else "has no shards yet"
        self.done.todo.append(f"{name}: {problem}")
        return None

    def _remove_bad_shards(self, lane: Lanes) -> None:
        """Clear the way for a build: it takes a shard that lies there for done."""
        folder = lane.shard.folder
        names = {entry.key.removeprefix(folder).rpartition(".")[0] for entry in self._store.list(folder)}
        for name in sorted(names):
            unit = ShardUnit(
                stage="shard",
                lane=lane.shard.lane,
                fingerprint=lane.shard.fingerprint,
                name=name,
                bucket=0,  # from where to where it was cut is not known without all parts
                until=0,
                licence_profile="research",
            )
            why = self._shard_damage(unit)
            for key in (tar_key(unit), unit.key):
                if why and self._store.size(key) is not None:
                    self._remove(key, why)

    def _shard_damage(self, unit: ShardUnit, expected: Mapping[str, str] | None = None) -> str | None:
        """Return why a shard is no good, by its index and, if given, by what it should hold."""
        for key in (unit.key, tar_key(unit)):
            if self._store.size(key) is None:
                return f"{key} is missing"
        try:
            entries = check_shard(self._described(unit), self._store)
        except CorruptError as error:
            return str(error).removesuffix(f": {REMEDY}")
        held = {member.name: member.sha256 for entry in entries for member in entry.members}
        return None if expected in (None, held) else "holds other samples than the parts say"

    def _described(self, unit: ShardUnit) -> Shard:
        return describe(unit, sum(1 for _ in read_part(ShardEntry, unit.key, self._store)), self._store)

    def _lost(self, lane: Lanes) -> set[str]:
        """Return the keys of pairs that no good shard holds, of a category that cannot be cut again."""
        kept: set[str] = set()
        for unit in self._made(lane.agree):
            with suppress(CorruptError):
                for row in read_part(Agreement, unit.key, self._store):
                    if row.kept and row.licence_profile in lane.shard.licence_profiles:
                        kept.add(f"{lane.category.name}-{row.pair_id}")
        for shard in self._manifest.shards if self._manifest else ():
            if shard.category == lane.category.name:
                kept -= self._good_keys(shard)
        return kept

    def _good_keys(self, shard: Shard) -> set[str]:
        try:
            return {entry.key for entry in check_shard(shard, self._store)}
        except CorruptError:
            return set()
        except StorageError:
            if None in (self._store.size(shard.tar), self._store.size(shard.index)):
                return set()
            raise

    def _read_manifest(self) -> Manifest | None:
        if self._store.size(KEY) is None:
            return None
        try:
            return read_manifest(self._store)
        except CorruptError as error:
            self._told(f"damaged: {error}")
            return None


def _stages(lane: Lanes) -> tuple[Stage, ...]:
    """Return the stages before the shards."""
    return lane.all[:-1]


def _made_from(stage: Stage, lane: Lanes) -> tuple[Stage, ...]:
    """Return the stages whose parts are made from those of a model's stage, last first."""
    if stage is lane.rewrite:
        return (lane.agree, *reversed(lane.judge), *lane.gold, lane.pair, *reversed(lane.generate))
    if stage in lane.judge:
        waiting = [other for other in lane.judge if other.wave > stage.wave]
        return (lane.agree, *reversed(waiting))
    if stage in lane.gold:
        return (lane.agree,)
    started = [other for other in lane.generate if stage in other.sources]
    return (lane.agree, *reversed(lane.judge), *lane.gold, lane.pair, *started)


def _misfit(found: pa.Schema, record: type[Record]) -> str | None:
    """Return how the columns of a part differ from its record's; older code may have written fewer."""
    known = record.schema()
    optional = {f.name for f in fields(record) if f.default is not MISSING}  # type: ignore[arg-type]
    for column in found:
        if column.name not in known.names or not column.equals(known.field(column.name)):
            return f"has a column {column} that no {record.__name__} has"
    lacking = sorted(set(known.names) - set(found.names) - optional)
    return f"lacks the columns {', '.join(lacking)}" if lacking else None


def _pool_is_there(lane: Lanes) -> bool:
    """Say whether prompts can be made again: a user's pool may be gone or changed."""
    if lane.category.pool.uri is None:
        return True
    try:
        read_pool(lane.category, bucket_size=lane.prompts.bucket_size)
    except (ConfigError, StorageError):
        return False
    return True
