"""Remove what a run no longer needs: parts that its settings do not use, media that no part names,
unfinished writes.

A generator puts media before the part that names them, so media that nobody names may belong to a unit at
work: the media of a dead attempt that the unit is making again are old, and still about to be named. Age
alone is no proof. So nothing goes while a driver may be at work (``idle`` says so, before every batch), and
nothing younger than the age that the caller gives. What is left can always be gone on with: a category's
unused parts go together, the last stage first, media last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset.manifest import KEY, read_manifest
from pipeline.stages import ORDER, Lanes, read_columns
from pipeline.storage import Entry, Store
from pipeline.storage.base import TEMPORARY

FOLDER = re.compile(r"[a-z]+/[^/]+/[0-9a-f]{16}/")
MEDIUM = re.compile(r"media/[0-9a-f]{2}/([0-9a-f]{16})[0-9a-f]{48}\.\w+")

BATCH = 1000
"""Objects deleted between two looks for a driver at work."""

THREADS = 16
"""A delete waits for its answer: these many wait at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stale:
    """Parts (and tars) of one fingerprint that the settings do not use; ``youngest`` by the store's clock."""

    stage: str
    lane: str
    fingerprint: str
    parts: int
    bytes: int
    youngest: float

    @property
    def folder(self) -> str:
        """Where they lie."""
        return f"{self.stage}/{self.lane}/{self.fingerprint}/"

    @property
    def category(self) -> str:
        """The category that they belong to."""
        return self.lane.partition(".")[0]


@dataclass(slots=True, kw_only=True)
class Heap:
    """Things of one kind that nothing needs: gone, or ``kept`` for the reason given."""

    what: str
    fingerprint: str = ""
    objects: int = 0
    bytes: int = 0
    kept: str = ""

    def add(self, entry: Entry) -> None:
        """Count one object."""
        self.objects += 1
        self.bytes += entry.size


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What may go: only what was written ``before`` (store's clock); parts of ``categories`` only, if given.

    ``idle`` raises if a driver may be at work.
    """

    before: float
    idle: Callable[[], object]
    categories: Collection[str] | None = None
    dry_run: bool = False


def stale(every: Sequence[Lanes], store: Store) -> Iterator[Stale]:
    """Yield what neither the stages of ``every`` nor the manifest use, in the order of stages."""
    used = {stage.folder for lane in every for kind in ORDER for stage in lane.of(kind)}
    if store.size(KEY) is not None:
        used |= {shard.index.rpartition("/")[0] + "/" for shard in read_manifest(store).shards}
    for kind in ORDER:
        for folder, entries in groupby(store.list(f"{kind.name}/"), key=_folder):
            if folder and folder not in used:
                yield _stale(folder, entries)


def gc(every: Sequence[Lanes], store: Store, terms: Terms) -> list[Heap]:
    """Remove what may go, or only say what would; return it by kind, with what was kept and why.

    Raises CorruptError if a generation part or the manifest cannot be read: what it names is unknown.
    """
    terms.idle()
    found = list(stale(every, store))
    heaps: list[Heap] = []
    gone: set[str] = set()
    for item in reversed(found):
        kept = _why_kept(item, found, terms)
        if not kept:
            _clear(store.list(item.folder), store, terms)
            gone.add(item.folder)
        what, objects = f"{item.stage}/{item.lane}", item.parts
        heap = Heap(what=what, fingerprint=item.fingerprint, objects=objects, bytes=item.bytes, kept=kept)
        heaps.append(heap)
    heaps += _clear_old(_unnamed(_named(gone, store), store), "media that no part names", store, terms)
    heaps += _clear_old(store.list(TEMPORARY), "unfinished writes", store, terms)
    return [heap for heap in heaps if heap.objects]


def _folder(entry: Entry) -> str | None:
    found = FOLDER.match(entry.key)
    return found[0] if found else None


def _stale(folder: str, entries: Iterable[Entry]) -> Stale:
    stage, lane, fingerprint, _ = folder.split("/")
    parts = size = 0
    youngest = 0.0
    for entry in entries:
        parts += entry.key.endswith(".parquet")
        size += entry.size
        youngest = max(youngest, entry.modified)
    return Stale(stage=stage, lane=lane, fingerprint=fingerprint, parts=parts, bytes=size, youngest=youngest)


def _why_kept(item: Stale, found: Sequence[Stale], terms: Terms) -> str:
    """A stage's parts outlive none that were made from them: verdicts must not meet newer generations."""
    if terms.categories is not None and item.category not in terms.categories:
        return "category is not in the settings"
    if max(other.youngest for other in found if other.category == item.category) >= terms.before:
        return "category has a younger one"
    return ""


def _named(gone: Collection[str], store: Store) -> NDArray[np.uint64]:
    """Return the first 64 bits of every medium's SHA-256 that a part names, sorted: 8 bytes a medium.

    A medium that shares them with a named one is kept; no chance makes a named one go.
    """
    found = [np.empty(0, np.uint64)]
    for entry in store.list("generate/"):
        if entry.key.endswith(".parquet") and _folder(entry) not in gone:
            column = read_columns(["media_sha256"], entry.key, store)["media_sha256"].drop_null()
            found.append(np.array([int(name[:16], 16) for name in column.to_pylist()], np.uint64))
    return np.unique(np.concatenate(found))


def _unnamed(named: NDArray[np.uint64], store: Store) -> Iterator[Entry]:
    """Yield the media that are not named; the listing is sorted as ``named`` is, so both are walked once."""
    place = 0
    for entry in store.list("media/"):
        if medium := MEDIUM.fullmatch(entry.key):
            digest = int(medium[1], 16)
            while place < len(named) and named[place] < digest:
                place += 1
            if place == len(named) or named[place] != digest:
                yield entry


def _clear_old(entries: Iterable[Entry], what: str, store: Store, terms: Terms) -> list[Heap]:
    old, young = Heap(what=what), Heap(what=what, kept="too young")

    def those_old() -> Iterator[Entry]:
        for entry in entries:
            (old if entry.modified < terms.before else young).add(entry)
            if entry.modified < terms.before:
                yield entry

    _clear(those_old(), store, terms)
    return [old, young]


def _clear(entries: Iterable[Entry], store: Store, terms: Terms) -> None:
    remaining = iter(entries)
    with ThreadPoolExecutor(THREADS) as pool:
        while batch := list(islice(remaining, BATCH)):
            if not terms.dry_run:
                terms.idle()
                list(pool.map(store.delete, [entry.key for entry in batch]))
