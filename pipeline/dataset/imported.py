"""Files in Pick-a-Pic's columns as a run, whose shards are trained on beside those of builds.

Images in Parquet can only be read front to back, a row group of up to a gigabyte at a time, so rows are
packed once. Some row groups of a file are a unit. Its shard's index is its part, and one that exists is done,
as in a build (stages/COMMIT.md): the same command goes on behind it. Equal files in equal order give equal
bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import check_category_name
from pipeline.dataset.labelled import KINDS, ROWS, Skip, opened_parquet, parquet_files, require_columns
from pipeline.dataset.manifest import KEY, contents_of, describe, put_manifest, read_manifest
from pipeline.dataset.pick_a_pic import TYPES, USED, ImportedPair, Origin, pair_of
from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.ids import content_id
from pipeline.records import LicenceProfile, ShardEntry
from pipeline.stages import ShardUnit, commit, read_columns, tar_key
from pipeline.stages.base import read_metadata
from pipeline.storage import Store, open_store
from pipeline.storage.tar import write_tar

SHARD_BYTES = 1 << 30
THREADS = 16
"""Files looked at side by side: on S3 each waits for its answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A Parquet file; ``digest`` tells it from others without reading its images.

    ``rows`` and ``sizes`` (bytes, decompressed) are those of its row groups.
    """

    store: Store
    key: str
    digest: str
    rows: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its name without its folder."""
        return self.key.rpartition("/")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportUnit(ShardUnit):
    """Row groups ``bucket`` to ``until`` (exclusive) of a file."""

    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What became of some rows: ``kept`` ones lie in ``tar``, the others are ``dropped`` by reason."""

    tar: str
    source: str
    rows: int
    kept: int
    dropped: Mapping[str, int]


def import_pairs(
    uris: Sequence[str],
    run: str,
    *,
    category: str = "pick_a_pic",
    licence: LicenceProfile = "research",
    shard_bytes: int = SHARD_BYTES,
    told: Callable[[Packed], object] = id,
) -> list[Packed]:
    """Pack the rows of Parquet files into shards of ``run``, or go on with it; return what became of them.

    ``uris`` are files, folders, prefixes or patterns, local or s3://. All pairs are of one ``category`` and
    ``licence`` profile. A shard has about ``shard_bytes``, but never less than a row group; ``told`` is
    called with each. Raises ConfigError for other columns and for a run that holds something else,
    CorruptError, StorageError.
    """
    check_category_name(category, "category")
    store = open_store(run)
    units = list(_units(_sources(uris), category, licence, shard_bytes))
    _require_own(units, store)
    seen: set[bytes] = set()
    wins, losses = Counter[str](), Counter[str]()
    packed = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for unit in units:
            if not _is_packed(unit, store):
                _pack(unit, store, seen, pool)
            index = read_columns(["pair_id", "winner_generator", "loser_generator"], unit.key, store)
            seen.update(map(bytes.fromhex, index["pair_id"].to_pylist()))
            wins.update(index["winner_generator"].to_pylist())
            losses.update(index["loser_generator"].to_pylist())
            packed.append(_packed(unit, len(index), store))
            told(packed[-1])
    if not seen:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in dropped(packed).items())
        raise ConfigError(f"{run}: no row gives a pair ({counts or 'there are none'}): check the files")
    shards = [describe(unit, one.kept, store) for unit, one in zip(units, packed, strict=True) if one.kept]
    put_manifest([contents_of(category, "image", 0, wins, losses)], shards, store)
    return packed


def dropped(packed: Sequence[Packed]) -> dict[str, int]:
    """Return how many rows were dropped for each reason, most first."""
    counts = Counter[str]()
    for one in packed:
        counts.update(one.dropped)
    return dict(counts.most_common())


def _sources(uris: Sequence[str]) -> list[Source]:
    """Return the files, each once, in the order given."""
    places = {}
    for uri in uris:
        store, keys = parquet_files(uri)
        places.update({(store.uri, key): (store, key) for key in keys})
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda place: _source(*place), places.values()))


def _source(store: Store, key: str) -> Source:
    where = f"{store.uri}/{key}"
    with store.open(key) as raw, opened_parquet(raw, where) as file:
        require_columns(file, where, TYPES)
        groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
        return Source(
            store=store,
            key=key,
            digest=_digest(raw, file, where),
            rows=tuple(group.num_rows for group in groups),
            sizes=tuple(group.total_byte_size for group in groups),
        )


def _digest(raw: BinaryIO, file: pq.ParquetFile, where: str) -> str:
    """Return a SHA-256 of a file's footer and of all that is used of it but images.

    The footer holds every size. It alone would not do: labels that are swapped leave it as it was.
    """
    raw.seek(-8, os.SEEK_END)
    size = int.from_bytes(raw.read(4), "little")
    raw.seek(-8 - size, os.SEEK_END)
    digest = hashlib.sha256(raw.read(size))
    columns = [name for name in USED if not name.startswith("jpg")]
    for group in range(file.num_row_groups):
        for rows in _batches(file, group, columns, where):
            digest.update(repr(rows).encode())
    return digest.hexdigest()


def _units(
    sources: Sequence[Source], category: str, licence: LicenceProfile, shard_bytes: int
) -> Iterator[ImportUnit]:
    """Cut files into units. A fingerprint covers the files before it too, since no pair is packed twice."""
    before = content_id("import", category=category, licence=licence, shard_bytes=shard_bytes)
    for source in sources:
        before = content_id("import", before=before, name=source.name, digest=source.digest)
        for number, (start, until) in enumerate(_runs(source.sizes, shard_bytes)):
            yield ImportUnit(
                stage="shard",
                lane=category,
                fingerprint=before[:16],
                name=f"{category}-{licence}-{number:05d}",
                bucket=start,
                until=until,
                licence_profile=licence,
                source=source,
            )


def _runs(sizes: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Yield runs of neighbours that add up to ``limit`` at most, or of one that is larger."""
    start = total = 0
    for number, size in enumerate(sizes):
        if number > start and total + size > limit:
            yield start, number
            start, total = number, 0
        total += size
    if sizes:
        yield start, len(sizes)


def _require_own(units: Sequence[ImportUnit], store: Store) -> None:
    """Refuse a run that holds anything but an import of these files, or of the first of them."""
    held = {shard.index for shard in read_manifest(store).shards} if store.size(KEY) is not None else set()
    if store.size("settings.json") is not None or held - {unit.key for unit in units}:
        raise ConfigError(
            f"{store.uri}: holds a build, or an import of other files or under other settings: import into "
            "a run of its own (training takes several), or name the same files first, then the new ones"
        )


def _is_packed(unit: ImportUnit, store: Store) -> bool:
    """Say whether a unit has its index, and beside it the tar that this means."""
    if store.size(unit.key) is None:
        return False
    return store.size(tar_key(unit)) == int(read_metadata(unit.key, store)["bytes"])


def _packed(unit: ImportUnit, kept: int, store: Store) -> Packed:
    about = read_metadata(unit.key, store)
    return Packed(
        tar=tar_key(unit),
        source=unit.source.name,
        rows=sum(unit.source.rows[unit.bucket : unit.until]),
        kept=kept,
        dropped=json.loads(about["dropped"]),
    )


def _pack(unit: ImportUnit, store: Store, seen: set[bytes], pool: ThreadPoolExecutor) -> None:
    """Write a unit's tar, then its index. A pair that was ``seen`` in a unit before is dropped."""
    entries: dict[str, Callable[..., ShardEntry]] = {}
    counts = Counter[str]()

    def files() -> Iterator[tuple[str, bytes]]:
        for row in _rows(unit, pool):
            if isinstance(row, ImportedPair) and row.id not in entries and bytes.fromhex(row.id) not in seen:
                entries[row.id] = row.entry(unit.name)
                yield from row.files()
            else:
                counts[Skip.TWICE if isinstance(row, ImportedPair) else row] += 1

    with tempfile.TemporaryDirectory(prefix="vipo-shard-") as folder:
        path = Path(folder) / "shard.tar"
        members, sha256, size = write_tar(path, files())
        key = tar_key(unit)
        if not store.put_file(key, path) and store.size(key) != size:
            raise CorruptError(f"{store.uri}/{key}: is not the shard of its fingerprint: delete it")
    rows = [make(members=tuple(members[4 * n : 4 * n + 4])) for n, make in enumerate(entries.values())]
    metadata = {"sha256": sha256, "bytes": str(size), "dropped": json.dumps(counts, sort_keys=True)}
    commit(unit, ShardEntry.table(rows).replace_schema_metadata(metadata), store)


def _rows(unit: ImportUnit, pool: ThreadPoolExecutor) -> Iterator[ImportedPair | Skip]:
    """Yield what each row of a unit gives, in order; of a row group that breaks off, the rest as damaged."""
    source, number = unit.source, sum(unit.source.rows[: unit.bucket])
    origin = Origin(category=unit.lane, licence=unit.licence_profile, file=source.name, digest=source.digest)
    where = f"{source.store.uri}/{source.key}"
    with source.store.open(source.key) as raw, opened_parquet(raw, where) as file:
        for group in range(unit.bucket, unit.until):
            until = number + source.rows[group]
            for rows in _batches(file, group, USED, where):
                yield from pool.map(partial(pair_of, origin), rows, range(number, until))
                number += len(rows)
            yield from [Skip.DAMAGED] * (until - number)
            number = until


def _batches(
    file: pq.ParquetFile, group: int, columns: Sequence[str], where: str
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of a row group, some at a time, until it cannot be read any further; text as bytes."""
    held = [name for name in columns if name in file.schema_arrow.names]
    batches = file.iter_batches(ROWS, [group], held, use_threads=False)
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk, not the file
                raise StorageError(f"{where}: {error.strerror}: mend the disk, then import again") from error
            return
        if batch is None:
            return
        cells = [_plain(batch.column(name)) for name in held]
        yield [dict(zip(held, row, strict=True)) for row in zip(*cells, strict=True)]


def _plain(column: pa.Array) -> list[Any]:
    """Return a column's values; text that is not UTF-8 could not be returned as text."""
    text = any(fits(column.type) for fits in KINDS["caption"])
    return list((column.cast(pa.large_binary()) if text else column).to_pylist())
