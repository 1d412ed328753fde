"""``manifest.json``: what the dataset holds; written last, so what it lists is complete."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata

from pipeline.config import Settings
from pipeline.errors import CorruptError, StorageError
from pipeline.records import LicenceProfile
from pipeline.stages import Lanes, ShardUnit, read_columns, tar_key
from pipeline.stages.base import read_metadata
from pipeline.storage import Store

KEY = "manifest.json"
SHARD_KEY = re.compile(r"shard/[a-z0-9_]{1,100}/[0-9a-f]{16}/[a-z0-9_-]{1,200}\.(tar|parquet)")
PACKAGES = ("vipo", "av", "numpy", "pillow", "pyarrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar and the index beside it, by their keys in the run."""

    tar: str
    index: str
    category: str
    licence_profile: LicenceProfile
    pairs: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a category gives: pairs against its quota, and how often each generator won and lost."""

    name: str
    modality: str
    pairs: int
    quota: int
    generators: tuple[Standing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Wins and losses of a generator among the pairs that ship, and the licence of what it made."""

    generator: str
    wins: int
    losses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The whole dataset. ``versions`` are those of the driver that wrote it."""

    format: int
    categories: tuple[Contents, ...]
    shards: tuple[Shard, ...]
    versions: dict[str, str]


def write_manifest(settings: Settings, lanes: Sequence[Lanes], store: Store) -> Manifest:
    """Describe the shards of ``lanes`` in ``manifest.json``."""
    shards: list[Shard] = []
    contents: list[Contents] = []
    for lane in lanes:
        wins: Counter[str] = Counter()
        losses: Counter[str] = Counter()
        for unit in lane.shard.units(store):
            rows = read_columns(["winner_generator", "loser_generator"], unit.key, store)
            shards.append(describe(unit, rows.num_rows, store))
            wins.update(rows["winner_generator"].to_pylist())
            losses.update(rows["loser_generator"].to_pylist())
        category = lane.category
        contents.append(contents_of(category.name, category.modality, settings.quota(category), wins, losses))
    return put_manifest(contents, shards, store)


def put_manifest(contents: Sequence[Contents], shards: Sequence[Shard], store: Store) -> Manifest:
    """Write ``manifest.json``."""
    versions = {name: metadata.version(name) for name in PACKAGES}
    manifest = Manifest(format=1, categories=tuple(contents), shards=tuple(shards), versions=versions)
    store.replace(KEY, (json.dumps(asdict(manifest), indent=1, sort_keys=True) + "\n").encode())
    return manifest


def read_manifest(store: Store) -> Manifest:
    """Read ``manifest.json``. Raises StorageError if there is none yet, CorruptError if it is damaged."""
    if store.size(KEY) is None:
        raise StorageError(f"{store.uri}: no {KEY}: the build has not finished: run build again")
    try:
        given = json.loads(store.get(KEY))
        shards = tuple(Shard(**shard) for shard in given["shards"])
        contents = tuple(
            Contents(**{**item, "generators": tuple(Standing(**row) for row in item["generators"])})
            for item in given["categories"]
        )
        made = Manifest(
            format=given["format"], categories=contents, shards=shards, versions=given["versions"]
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        cause = repr(error)[:200]
        raise CorruptError(f"{store.uri}/{KEY}: damaged ({cause}): run build to write it again") from error
    for key in (key for shard in shards for key in (shard.tar, shard.index)):
        if not isinstance(key, str) or not SHARD_KEY.fullmatch(key):
            raise CorruptError(f"{store.uri}/{KEY}: names {key!r:.100}, where no shard lies: do not use it")
    return made


def describe(unit: ShardUnit, pairs: int, store: Store) -> Shard:
    """Return what the index of a shard says of its tar. Raises CorruptError, StorageError."""
    about = read_metadata(unit.key, store)
    if not {"bytes", "sha256"} <= about.keys():
        raise CorruptError(f"{unit.key}: does not say what its tar is: run `vipo repair`")
    return Shard(
        tar=tar_key(unit),
        index=unit.key,
        category=unit.lane,
        licence_profile=unit.licence_profile,
        pairs=pairs,
        bytes=int(about["bytes"]),
        sha256=about["sha256"],
    )


def contents_of(name: str, modality: str, quota: int, wins: Counter[str], losses: Counter[str]) -> Contents:
    """Return what a category gives, by how often each generator won and lost."""
    names = sorted(wins.keys() | losses.keys())
    return Contents(
        name=name,
        modality=modality,
        pairs=wins.total(),
        quota=quota,
        generators=tuple(Standing(generator=n, wins=wins[n], losses=losses[n]) for n in names),
    )
