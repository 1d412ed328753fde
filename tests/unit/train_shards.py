"""Finished runs in miniature: real tars, indices and a manifest, as the shard stage writes them."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from pipeline import media
from pipeline.ids import content_id
from pipeline.records import LicenceProfile, ShardEntry
from pipeline.storage import Store, open_store
from pipeline.storage.tar import write_tar


def picture(seed: int, width: int, height: int, frames: int = 1) -> media.Encoded:
    """A smooth picture or video of its own colour."""
    colour = np.random.default_rng(seed).integers(0, 255, 3)
    ramp = np.linspace(0.5, 1.0, width)[None, None, :, None]
    pixels = np.broadcast_to(colour * ramp, (frames, height, width, 3)).astype(np.uint8)
    return media.encode(pixels, 8 if frames > 1 else 0)


def write_run(
    uri: str,
    pairs: int,
    *,
    category: str = "alignment",
    shards: int = 2,
    sizes: Sequence[tuple[int, int]] = ((32, 32),),
    frames: int = 1,
    licence: LicenceProfile = "permissive",
) -> None:
    """Write a run of ``pairs`` pairs, or add a category's shards to one; sizes take turns."""
    store = open_store(uri)
    held = json.loads(store.get("manifest.json"))["shards"] if store.size("manifest.json") else []
    for number in range(shards):
        mine = range(number, pairs, shards)
        held.append(
            _shard(store, number, category, [_pair(category, n, sizes, frames) for n in mine], licence)
        )
    store.replace("manifest.json", json.dumps({"format": 1, "shards": held}).encode())


def _pair(
    category: str, number: int, sizes: Sequence[tuple[int, int]], frames: int
) -> tuple[str, list[tuple[str, bytes]]]:
    pair_id = content_id("test", category=category, number=number)
    key, (width, height) = f"{category}-{pair_id}", sizes[number % len(sizes)]
    winner, loser = (picture(2 * number + side, width, height, frames) for side in (0, 1))
    about = {
        "pair_id": pair_id,
        "prompt_id": content_id("prompt", number=number),
        "winner": {"width": width, "height": height, "frames": frames},
    }
    suffix = media.SUFFIX[winner.mime]
    return pair_id, [
        (f"{key}.json", json.dumps(about).encode()),
        (f"{key}.loser.{suffix}", loser.data),
        (f"{key}.prompt.txt", f"a red cat and {number} trees".encode()),
        (f"{key}.winner.{suffix}", winner.data),
    ]


def _shard(
    store: Store,
    number: int,
    category: str,
    pairs: list[tuple[str, list[tuple[str, bytes]]]],
    licence: LicenceProfile,
) -> dict[str, object]:
    pairs = sorted(pairs)
    name = f"shard/{category}/{'0' * 16}/{category}-{licence}-{number:05d}"
    with tempfile.TemporaryDirectory() as folder:
        tar, index = Path(folder) / "a.tar", Path(folder) / "a.parquet"
        members, sha256, size = write_tar(tar, [file for _, files in pairs for file in files])
        rows = [
            ShardEntry(
                pair_id=pair_id,
                shard=name,
                key=f"{category}-{pair_id}",
                category=category,
                winner_generator="one",
                loser_generator="other",
                licence_profile=licence,
                confidence=0.5 + int(pair_id[:2], 16) / 512,
                members=tuple(members[4 * place : 4 * place + 4]),
            )
            for place, (pair_id, _) in enumerate(pairs)
        ]
        pq.write_table(ShardEntry.table(rows), index)
        store.put_file(f"{name}.tar", tar)
        store.put_file(f"{name}.parquet", index)
        assert hashlib.sha256(tar.read_bytes()).hexdigest() == sha256
    return {
        "tar": f"{name}.tar",
        "index": f"{name}.parquet",
        "category": category,
        "licence_profile": licence,
        "pairs": len(rows),
        "bytes": size,
        "sha256": sha256,
    }
