"""Pairs as a finished dataset holds them, with their media: from our shards, or from Pick-a-Pic's columns."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from glob import has_magic
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import media
from pipeline.config import nearest
from pipeline.dataset.manifest import Shard, read_manifest
from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.ids import content_id
from pipeline.judges.base import Media
from pipeline.records import Checks, Member, Prompt, ShardEntry, Side
from pipeline.stages import read_part
from pipeline.storage import Store, open_store

COLUMNS = ("jpg_0", "jpg_1", "label_0", "label_1", "caption")
"""What is read of a Pick-a-Pic row; first is 0, second is 1, the larger label wins, equal ones are a tie."""

NAMES = ("caption", "image_0_uid", "image_1_uid", "ranking_id")
"""What tells one Pick-a-Pic row from another without its media, as far as a file has these columns."""

ROWS = 32
"""Rows of a Parquet file in memory at a time."""

BUFFER = 4 << 20
"""Bytes read ahead of each column: without it the whole row group would be in memory, often a gigabyte."""


class Skip(StrEnum):
    """Why a pair is left out."""

    NO_PROMPT = "no prompt"
    MISSING_MEDIA = "a medium is missing"
    SAME_MEDIA = "both media are the same"
    DAMAGED = "damaged in its shard or file"
    UNREADABLE = "a medium does not decode"
    NO_JPEG = "a medium is no JPEG"
    NO_LABEL = "no label"
    ODD_LABEL = "labels are no two shares of 1"
    TIE = "a tie"
    CONTRADICTED = "labels and best_image_uid disagree"
    TWICE = "there already"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """A pair with its media; ``label`` is the better side (None: a tie, or not labelled)."""

    id: str
    prompt: str
    first: Media
    second: Media
    label: Side | None
    checks: Checks = field(default_factory=Checks)


def shard_pairs(
    store: Store, category: str, *, limit: int | None = None, checks: bool = False
) -> Iterator[Labelled | Skip]:
    """Yield the pairs of a category in the shards of a run; the winner is first.

    ``limit``: so many of them, drawn by pair id: the same ones each time, and among those of a higher limit.
    ``checks`` reads what of each prompt can be checked from the run's prompts, all of them into memory; a
    run that has no prompts any more has no checks. Raises ConfigError for a category without shards,
    CorruptError, StorageError.
    """
    every = read_manifest(store).shards
    shards = [shard for shard in every if shard.category == category]
    if not shards:
        known = sorted({shard.category for shard in every})
        remedy = nearest(category, known) if known else "it has none at all: build it with a higher quota"
        raise ConfigError(f"{store.uri}: no shards of category {category!r}: {remedy}")
    ids = (entry.pair_id for shard in shards for entry in read_part(ShardEntry, shard.index, store))
    drawn = None if limit is None else set(heapq.nsmallest(limit, ids, key=_rank))
    found = _checks(store, shards[0]) if checks else {}
    for shard in shards:
        size = store.size(shard.tar) or 0
        with store.open(shard.tar) as tar:
            for entry in read_part(ShardEntry, shard.index, store):
                if drawn is None or entry.pair_id in drawn:
                    yield _sample(entry, _Tar(tar, size), found)


def parquet_pairs(uri: str, *, limit: int | None = None) -> Iterator[Labelled | Skip]:
    """Yield the rows of a Parquet file in Pick-a-Pic's columns, or of all files below a folder or prefix.

    ``limit``: so many rows, drawn by what names them: the same ones each time, and among those of a higher
    limit; media of row groups without one are not read. Raises ConfigError for other columns, CorruptError
    for what is no Parquet, StorageError.
    """
    store, keys = parquet_files(uri)
    drawn = None if limit is None else _drawn(store, keys, limit)
    for key in keys:
        where = f"{store.uri}/{key}"
        with store.open(key) as raw, opened_parquet(raw, where) as file:
            require_columns(file, where, KINDS)
            yield from _rows(file, key, None if drawn is None else drawn.get(key, set()))


def _labelled(
    name: str, prompt: str, sides: tuple[Media, Media], label: Side | None, checks: Checks
) -> Labelled | Skip:
    first, second = sides
    if not prompt.strip():
        return Skip.NO_PROMPT
    if not (first.data and second.data):
        return Skip.MISSING_MEDIA
    if first.sha256 == second.sha256:
        return Skip.SAME_MEDIA
    return Labelled(id=name, prompt=prompt, first=first, second=second, label=label, checks=checks)


def _rank(name: str) -> str:
    """Return what draws by: another hash than those that pairs are sorted by."""
    return content_id("audit", pair=name)


class _Tar:
    """Members of a tar by the places that an index states."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def read(self, member: Member) -> bytes | None:
        """Return a member's bytes; None if they are not those that the index means."""
        if not 0 <= member.offset <= member.offset + member.size <= self._size:
            return None
        self._file.seek(member.offset)
        data = self._file.read(member.size)
        return data if hashlib.sha256(data).hexdigest() == member.sha256 else None


def _sample(entry: ShardEntry, tar: _Tar, checks: Mapping[str, Checks]) -> Labelled | Skip:
    by_role = {member.name.removeprefix(f"{entry.key}."): member for member in entry.members}
    held = {role: data for role, member in by_role.items() if (data := tar.read(member)) is not None}
    mimes = {kind: mime for mime, kind in media.SUFFIX.items()}
    sides = {
        role.partition(".")[0]: Media(
            sha256=by_role[role].sha256, mime=mimes[role.partition(".")[2]], data=data
        )
        for role, data in held.items()
        if role.partition(".")[2] in mimes
    }
    try:
        about = json.loads(held["json"])
        prompt, known = str(about["prompt"]), checks.get(str(about["prompt_id"]), Checks())
        return _labelled(entry.pair_id, prompt, (sides["winner"], sides["loser"]), "first", known)
    except (LookupError, ValueError, TypeError, RecursionError):
        return Skip.DAMAGED


def _checks(store: Store, shard: Shard) -> dict[str, Checks]:
    """Return the checks of each prompt of a category by its id."""
    lane = shard.tar.split("/")[1]
    keys = [entry.key for entry in store.list(f"prompts/{lane}/") if entry.key.endswith(".parquet")]
    return {row.id: row.checks for key in keys for row in read_part(Prompt, key, store)}


def parquet_files(uri: str) -> tuple[Store, list[str]]:
    """Return the store and the keys of one file, of those of a pattern, or of all below an address.

    A pattern has * ? or [] in the last part of its address. Raises StorageError if there is none.
    """
    folder, _, name = uri.rpartition("/")
    beside = folder or ("/" if uri.startswith("/") else ".")
    if has_magic(name) and (store := open_store(beside)).size(name) is None:
        held = (entry.key for entry in store.list("") if "/" not in entry.key)
        keys = [key for key in held if fnmatchcase(key, name)]
    elif uri.endswith(".parquet"):
        return open_store(beside), [name]
    else:
        store = open_store(uri)
        keys = [entry.key for entry in store.list("")]
    keys = [key for key in keys if key.endswith(".parquet")]
    if not keys:
        raise StorageError(
            f"{uri}: no .parquet files there: give a file, a folder or an s3:// prefix of them"
        )
    return store, keys


@contextmanager
def opened_parquet(raw: BinaryIO, where: str) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file to be read front to back. Raises CorruptError for what is none."""
    try:
        file = pq.ParquetFile(raw, page_checksum_verification=True, pre_buffer=False, buffer_size=BUFFER)
    except (pa.ArrowException, OSError) as error:
        cause = " ".join(str(error).split())
        raise CorruptError(f"{where}: no readable Parquet ({cause}): download it again") from error
    with file:
        yield file


def require_columns(file: pq.ParquetFile, where: str, kinds: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse a file that lacks a column, or has one of none of its ``kinds``. Raises ConfigError."""
    schema = file.schema_arrow
    for name in COLUMNS:
        if name not in schema.names:
            found = ", ".join(schema.names)[:200]
            raise ConfigError(
                f"{where}: no column {name} among {found}: give a file with {', '.join(COLUMNS)}"
            )
        kind = schema.field(name).type
        if not any(fits(kind) for fits in kinds[name.partition("_")[0]]):
            raise ConfigError(f"{where}: column {name} is {kind}, which Pick-a-Pic's is not: convert it")


KINDS: Mapping[str, tuple[Any, ...]] = {
    "jpg": (pa.types.is_binary, pa.types.is_large_binary),
    "label": (pa.types.is_floating, pa.types.is_integer),
    "caption": (pa.types.is_string, pa.types.is_large_string),
}
"""Types of the columns, by what their names begin with."""


def _drawn(store: Store, keys: Iterable[str], limit: int) -> dict[str, set[int]]:
    """Return the numbers of the rows that are drawn, by file."""

    def ranked() -> Iterator[tuple[str, str, int]]:
        for key in keys:
            with store.open(key) as raw, opened_parquet(raw, f"{store.uri}/{key}") as file:
                for number, name in enumerate(_names(file, key)):
                    yield _rank(name), key, number

    drawn: dict[str, set[int]] = {}
    for _, key, number in heapq.nsmallest(limit, ranked()):
        drawn.setdefault(key, set()).add(number)
    return drawn


def _names(file: pq.ParquetFile, key: str) -> Iterator[str]:
    """Yield what names each row; where that is missing or cannot be read, where the row stands."""
    columns = [name for name in NAMES if name in file.schema_arrow.names]
    whole = len(columns) == len(NAMES)
    start = 0
    for group in range(file.num_row_groups):
        until = start + file.metadata.row_group(group).num_rows
        names = [f"{key} {number}" for number in range(start, until)]
        if whole:
            try:
                found = file.read_row_group(group, columns=columns, use_threads=False).to_pylist()
                names = [json.dumps([row[column] for column in columns]) for row in found]
            except (pa.ArrowException, OSError, ValueError, TypeError):
                pass
        yield from names
        start = until


def _rows(file: pq.ParquetFile, key: str, drawn: set[int] | None) -> Iterator[Labelled | Skip]:
    """Yield the rows that are drawn (None: all); of a row group that breaks off, the rest as damaged."""
    start = 0
    for group in range(file.num_row_groups):
        until = start + file.metadata.row_group(group).num_rows
        wanted = [number for number in range(start, until) if drawn is None or number in drawn]
        if wanted:
            read = 0
            for row in _group(file, group, [number - start for number in wanted]):
                yield _row(row, f"{key} {wanted[read]}")
                read += 1
            yield from [Skip.DAMAGED] * (len(wanted) - read)
        start = until


def _group(file: pq.ParquetFile, group: int, wanted: Iterable[int]) -> Iterator[dict[str, Any]]:
    """Yield the rows of a row group that stand at ``wanted``, until it cannot be read any further."""
    places = iter(wanted)
    place, start = next(places, None), 0
    try:
        for batch in file.iter_batches(ROWS, [group], COLUMNS, use_threads=False):
            while place is not None and place < start + len(batch):
                yield batch.slice(place - start, 1).to_pylist()[0]
                place = next(places, None)
            start += len(batch)
    except (pa.ArrowException, OSError, UnicodeDecodeError):
        return


def _row(row: Mapping[str, Any], name: str) -> Labelled | Skip:
    one, other = row["label_0"], row["label_1"]
    label: Side | None = None
    if one is not None and other is not None:  # neither is larger in a tie, nor if one is NaN
        label = "first" if one > other else "second" if other > one else None
    sides = _medium(row["jpg_0"]), _medium(row["jpg_1"])
    return _labelled(name, row["caption"] or "", sides, label, Checks())


def _medium(data: bytes | None) -> Media:
    data = data or b""
    return Media(sha256=hashlib.sha256(data).hexdigest(), mime=media.mime_of("image"), data=data)
