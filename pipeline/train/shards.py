"""What shards hold, as columns: where each pair lies, from the indices beside the tars.

A pair's four members lie side by side, so a pair is one read of one range, on disk or in S3.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import media
from pipeline.config import nearest
from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.records import LicenceProfile
from pipeline.storage import Store, open_store
from pipeline.storage.s3 import S3Store

ROLES = ("json", "loser", "prompt", "winner")
"""The members of a pair in the order in which they lie in a tar."""

COLUMNS = ["pair_id", "category", "licence_profile", "confidence", "members"]
OPEN_FILES = 256
MANIFEST = "manifest.json"
THREADS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A pair as it lies in a shard: encoded media, and what its label is worth."""

    pair_id: str
    category: str
    confidence: float
    described: bytes
    prompt: str
    winner: bytes
    loser: bytes
    mime: str

    @property
    def about(self) -> Mapping[str, Any]:
        """What the shard's JSON says of the pair."""
        return dict(json.loads(self.described))


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A category to train on; an epoch shows ``weight`` x its pairs."""

    name: str
    weight: float = 1.0


class Catalogue:
    """All pairs of the runs that are trained on, a row each. Raises ConfigError, CorruptError, StorageError.

    ``licence``: permissive leaves out what may not train every model. ``shares``: only these categories
    (none: all). ``exact`` compares the SHA-256 of every member that is read; sizes are compared always.
    """

    def __init__(
        self,
        runs: Sequence[str],
        *,
        shares: Sequence[Share] = (),
        licence: LicenceProfile = "permissive",
        exact: bool = False,
    ) -> None:
        tars = _chosen({run: list(_tars(open_store(run))) for run in runs}, shares, licence)
        with ThreadPoolExecutor(THREADS) as pool:
            parts = list(pool.map(_columns, tars))
        self._tars, self._exact = tars, exact
        table = pa.concat_tables([table for table, _ in parts])
        self._ids, self._hashes = (table[name].combine_chunks() for name in ("pair_id", "sha256"))
        self.categories: list[str] = table["category"].to_pylist()
        self.confidences: NDArray[np.float64] = table["confidence"].to_numpy()
        self._tar = np.repeat(np.arange(len(tars)), [len(table) for table, _ in parts])
        self._spans = np.concatenate([spans for _, spans in parts])
        self._video = table["video"].to_numpy()

    def __len__(self) -> int:
        return len(self._ids)

    def pair_id(self, row: int) -> str:
        """Return the id of a pair."""
        return str(self._ids[row].as_py())

    def read(self, row: int) -> Sample:
        """Return a pair; one read. Raises CorruptError for other bytes than the index means, StorageError."""
        parts = self._parts(row, len(ROLES))
        return Sample(
            pair_id=self.pair_id(row),
            category=self.categories[row],
            confidence=float(self.confidences[row]),
            described=parts[0],
            prompt=parts[2].decode(),
            winner=parts[3],
            loser=parts[1],
            mime=media.mime_of("video" if self._video[row] else "image"),
        )

    def about(self, row: int) -> Mapping[str, Any]:
        """Return what the JSON says of a pair, without reading its media. Raises as ``read`` does."""
        return dict(json.loads(self._parts(row, 1)[0]))

    def _parts(self, row: int, count: int) -> list[bytes]:
        """Return the first ``count`` members of a pair."""
        spans, tar = self._spans[row][:count].tolist(), self._tars[self._tar[row]]
        start, end = spans[0][0], sum(spans[-1])
        data = tar.read(start, end)
        parts = [data[offset - start : offset - start + size] for offset, size in spans]
        pair_id = self.pair_id(row)
        # The JSON names its pair, so another tar's bytes are seen without hashing them.
        right = len(data) == end - start and pair_id.encode() in parts[0]
        if right and self._exact:
            hashes = [hashlib.sha256(part).hexdigest() for part in parts]
            right = hashes == self._hashes[row].as_py()[:count]
        if not right:
            raise CorruptError(f"{tar.store.uri}/{tar.key}: pair {pair_id} is damaged: run `vipo repair`")
        return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tar:
    """One shard: its tar and the index beside it."""

    store: Store
    key: str
    index: str
    category: str
    licence: LicenceProfile
    size: int
    pairs: int

    def read(self, start: int, end: int) -> bytes:
        """Return bytes [start, end); fewer if the file is shorter."""
        if isinstance(self.store, S3Store):
            return self.store.get_range(self.key, start, end)
        try:
            file = _opened(self.store.uri, self.key)  # held, or another thread's eviction would close it
            return os.pread(file.fileno(), end - start, start)
        except OSError as error:
            raise StorageError(f"{self.store.uri}/{self.key}: {error.strerror}: mend the disk") from error


@lru_cache(OPEN_FILES)
def _opened(uri: str, key: str) -> BinaryIO:
    """Return an open file; the one that was not used for longest closes once nobody reads it."""
    return open_store(uri).open(key)


def _tars(store: Store) -> Iterator[_Tar]:
    if store.size(MANIFEST) is None:
        raise StorageError(f"{store.uri}: no {MANIFEST}: no finished build lies there: see data.runs")
    try:
        for shard in json.loads(store.get(MANIFEST))["shards"]:
            yield _Tar(
                store=store,
                key=str(shard["tar"]),
                index=str(shard["index"]),
                category=str(shard["category"]),
                licence=shard["licence_profile"],
                size=int(shard["bytes"]),
                pairs=int(shard["pairs"]),
            )
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise CorruptError(f"{store.uri}/{MANIFEST}: damaged ({error!r:.100}): run build again") from error


def _chosen(
    runs: Mapping[str, Sequence[_Tar]], shares: Sequence[Share], licence: LicenceProfile
) -> list[_Tar]:
    """Return what is trained on. Raises ConfigError for a run or category of which nothing would be."""
    known = {tar.category for tars in runs.values() for tar in tars}
    wanted = {share.name for share in shares} or known
    if unknown := sorted(wanted - known):
        where = f"{', '.join(runs)}: no shards of {unknown[0]!r}"
        raise ConfigError(f"{where}: {nearest(unknown[0], known)}")
    chosen = []
    for run, tars in runs.items():
        named = [tar for tar in tars if tar.category in wanted]
        if tars and not named:
            raise ConfigError(f"{run}: no shards of data.categories: name one that it has, or leave it out")
        allowed = [tar for tar in named if licence == "research" or tar.licence == "permissive"]
        if not allowed:
            raise ConfigError(f"{run}: no shards of licence profile {licence}: see data.licence")
        chosen += allowed
    if barred := sorted(wanted - {tar.category for tar in chosen}) if shares else []:
        raise ConfigError(f"no shards of {barred[0]!r} of licence profile {licence}: see data.licence")
    return chosen


def _columns(tar: _Tar) -> tuple[pa.Table, NDArray[np.int64]]:
    """Return an index's columns, and [pairs, 4, 2] offset and size of each pair's members."""
    size = tar.store.size(tar.key)
    if size != tar.size:
        raise CorruptError(
            f"{tar.store.uri}/{tar.key}: {size or 0:,} bytes, by the manifest {tar.size:,}: run `vipo verify`"
        )
    try:
        with tar.store.open(tar.index) as file:
            table = pq.read_table(file, columns=COLUMNS, page_checksum_verification=True)
        spans, more = _members(table["members"].combine_chunks(), len(table))
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())[:100]
        raise CorruptError(f"{tar.store.uri}/{tar.index}: no index ({cause}): run `vipo repair`") from error
    if len(table) != tar.pairs or (len(spans) and int(spans.sum(2).max()) > tar.size):
        raise CorruptError(f"{tar.store.uri}/{tar.index}: is not that of its tar: run `vipo repair`")
    return table.drop_columns(["members", "licence_profile"]).append_column(*more[0]).append_column(
        *more[1]
    ), spans


def _members(members: pa.ListArray, pairs: int) -> tuple[NDArray[np.int64], list[tuple[str, pa.Array]]]:
    """Return where the members lie, and the columns sha256 (lists of four) and video."""
    flat = members.flatten()
    if len(flat) != pairs * len(ROLES):
        raise ValueError(f"{len(flat)} members of {pairs} pairs")
    names = pc.split_pattern(flat.field("name"), ".", max_splits=1)
    suffixes = pc.list_element(names, 1)
    roles = pc.list_element(pc.split_pattern(suffixes, "."), 0).to_pylist()
    if roles != list(ROLES) * pairs:
        raise ValueError("members are not json, loser, prompt, winner")
    spans = np.stack([flat.field(name).to_numpy() for name in ("offset", "size")], axis=1)
    video = pc.ends_with(suffixes, ".mp4").take(pa.array(np.arange(3, len(flat), len(ROLES))))
    hashes = pa.ListArray.from_arrays(
        np.arange(0, len(flat) + 1, len(ROLES), dtype=np.int32), flat.field("sha256")
    )
    return spans.reshape(pairs, len(ROLES), 2), [("sha256", hashes), ("video", video)]
