"""Read everything back: every byte of every shard against its index, and every medium decoded."""

from __future__ import annotations

import hashlib
import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipeline import media
from pipeline.dataset.manifest import KEY, Manifest, Shard, read_manifest
from pipeline.errors import CorruptError, MediaError
from pipeline.media.frames import Probe
from pipeline.records import Member, ShardEntry
from pipeline.stages import read_part
from pipeline.storage import Store

CHUNK = 8 << 20
"""Bytes read at a time where nothing is to be looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was read back and found right."""

    shards: int
    pairs: int
    media: int
    bytes: int


def verify(store: Store, seen: Callable[[Shard], object] = id) -> Verified:
    """Check the whole dataset; ``seen`` is called after each shard.

    Raises CorruptError naming the first shard, and the record in it, that is not what the index says.
    """
    manifest = read_manifest(store)
    if not manifest.shards:
        raise CorruptError(f"{store.uri}/{KEY}: names no shard: nothing was kept, or the build failed")
    keys: set[str] = set()
    for shard in manifest.shards:
        for entry in check_shard(shard, store):
            if entry.pair_id in keys:
                raise CorruptError(f"{shard.tar}: {entry.key}: its pair is in the dataset twice: {REMEDY}")
            keys.add(entry.pair_id)
        seen(shard)
    check_counts(manifest)
    return Verified(
        shards=len(manifest.shards),
        pairs=len(keys),
        media=2 * len(keys),
        bytes=sum(shard.bytes for shard in manifest.shards),
    )


def check_shard(shard: Shard, store: Store) -> list[ShardEntry]:
    """Check one shard and return its index. Raises CorruptError, StorageError."""
    for key in (shard.index, shard.tar):
        if store.size(key) is None:
            raise CorruptError(f"{key}: is missing, {KEY} names it: {REMEDY}")
    entries = list(read_part(ShardEntry, shard.index, store))
    if len(entries) != shard.pairs:
        raise CorruptError(f"{shard.index}: {len(entries)} pairs, the manifest says {shard.pairs}: {REMEDY}")
    for entry in entries:
        _check_names(entry, shard)
    _check_tar(shard, entries, store)
    return entries


def _check_tar(shard: Shard, entries: list[ShardEntry], store: Store) -> None:
    """Read the tar once from front to back: every header and member against the index, and the whole."""
    with store.open(shard.tar) as file:
        reader = _Hashing(file, store.size(shard.tar) or 0)
        for entry in entries:
            sample = {member.name: _member(reader, member, shard) for member in entry.members}
            _check_sample(entry, sample, shard)
        if reader.drain():
            raise CorruptError(f"{shard.tar}: holds more than its index names: {REMEDY}")
    if reader.position != shard.bytes:
        raise CorruptError(f"{shard.tar}: {reader.position} bytes, the manifest says {shard.bytes}: {REMEDY}")
    if reader.sha256.hexdigest() != shard.sha256:
        raise CorruptError(f"{shard.tar}: SHA-256 differs from the manifest's: {REMEDY}")


REMEDY = "run `vipo repair`"
SAMPLE_KEY = re.compile(r"[a-z0-9_-]{1,200}")


def _check_names(entry: ShardEntry, shard: Shard) -> None:
    """Refuse keys and members that could leave a folder, and any that a sample does not have."""
    if not SAMPLE_KEY.fullmatch(entry.key):
        raise CorruptError(f"{shard.tar}: {entry.key[:80]!r} is no key of a sample: do not use this shard")
    expected = [
        [
            f"{entry.key}.json",
            f"{entry.key}.loser.{kind}",
            f"{entry.key}.prompt.txt",
            f"{entry.key}.winner.{kind}",
        ]
        for kind in media.SUFFIX.values()
    ]
    names = [member.name for member in entry.members]
    if names not in expected:
        shown = ", ".join(repr(name[:80]) for name in names[:6])
        raise CorruptError(f"{shard.tar}: {entry.key} holds {shown}, not the files of a sample: {REMEDY}")


def _member(reader: _Hashing, member: Member, shard: Shard) -> bytes:
    """Return a member's bytes. Raises CorruptError if header or content are not what the index says."""
    where = f"{shard.tar}: {member.name}"
    padding = -reader.position % tarfile.BLOCKSIZE
    if not 0 <= member.size <= reader.size - member.offset:
        raise CorruptError(f"{where}: its index places it outside of the tar: {REMEDY}")
    if member.offset != reader.position + padding + tarfile.BLOCKSIZE:
        raise CorruptError(f"{where}: the tar holds what its index does not name before it: {REMEDY}")
    between = reader.read(member.offset - reader.position)
    data = reader.read(member.size)
    try:
        found = tarfile.TarInfo.frombuf(between[padding:], "utf-8", "strict")
    except tarfile.HeaderError as error:
        raise CorruptError(f"{where}: torn at byte {member.offset} ({error}): {REMEDY}") from error
    if (found.name, found.size, len(data)) != (member.name, member.size, member.size):
        raise CorruptError(f"{where}: the tar holds {found.name!r} of {found.size} bytes there: {REMEDY}")
    if found.type != tarfile.REGTYPE:
        raise CorruptError(
            f"{where}: is no plain file but of tar's type {found.type!r}: do not use this shard"
        )
    if hashlib.sha256(data).hexdigest() != member.sha256:
        raise CorruptError(f"{where}: SHA-256 differs from the index's: {REMEDY}")
    return data


def _check_sample(entry: ShardEntry, sample: dict[str, bytes], shard: Shard) -> None:
    """Decode both media in full and compare them with the sample's JSON."""
    where = f"{shard.tar}: {entry.key}"
    by_role = {name.removeprefix(f"{entry.key}."): data for name, data in sample.items()}
    try:
        described: dict[str, Any] = json.loads(by_role.pop("json"))
        if by_role.pop("prompt.txt").decode() != described["prompt"]:
            raise CorruptError(f"{where}: prompt.txt and json disagree: {REMEDY}")
        if sorted(role.partition(".")[0] for role in by_role) != ["loser", "winner"]:
            raise CorruptError(
                f"{where}: its media are {sorted(by_role)}, not a loser and a winner: {REMEDY}"
            )
        for role, data in by_role.items():
            side, _, suffix = role.partition(".")
            _check_medium(described[side], data, suffix, f"{where}.{role}")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        cause = f"{type(error).__name__}: {error}"[:200]
        raise CorruptError(f"{where}: its json is not that of a sample ({cause}): {REMEDY}") from error


def _check_medium(side: dict[str, Any], data: bytes, suffix: str, where: str) -> None:
    mime = {known: mime for mime, known in media.SUFFIX.items()}[suffix]
    if hashlib.sha256(data).hexdigest() != side["sha256"]:
        raise CorruptError(f"{where}: is not the medium that the json names: {REMEDY}")
    try:
        frames = media.decode(data, mime)
        fps = media.probe(data, mime).fps
    except MediaError as error:
        raise CorruptError(f"{where}: {error}") from error
    found = Probe(width=frames.shape[2], height=frames.shape[1], frames=frames.shape[0], fps=fps)
    stated = Probe(**{name: side[name] for name in ("width", "height", "frames", "fps")})
    if found != stated:
        raise CorruptError(f"{where}: decodes to {found}, its json says {stated}: {REMEDY}")


def check_counts(manifest: Manifest) -> None:
    """Compare the pairs of categories with those of their shards. Raises CorruptError."""
    pairs = Counter[str]()
    for shard in manifest.shards:
        pairs[shard.category] += shard.pairs
    for category in manifest.categories:
        if pairs[category.name] != category.pairs:
            raise CorruptError(
                f"{KEY}: {category.name} has {pairs[category.name]} pairs in its shards, "
                f"{category.pairs} are stated: run build to write the manifest again"
            )


class _Hashing:
    """Reads forward only and hashes all that it passes."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.size = size
        self.sha256 = hashlib.sha256()
        self.position = 0

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes, fewer at the end."""
        data = self._file.read(max(0, count))
        self.sha256.update(data)
        self.position += len(data)
        return data

    def drain(self) -> bool:
        """Read to the end; say whether there was more than the zeros that end a tar."""
        more = False
        while data := self.read(CHUNK):
            more = more or bool(data.strip(b"\0"))
        return more
