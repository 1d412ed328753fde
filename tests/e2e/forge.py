"""Datasets that somebody else has made: whole and true to their index and manifest, but hostile."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from pipeline import media
from pipeline.dataset.manifest import PACKAGES
from pipeline.media.frames import Probe
from pipeline.records import Member, ShardEntry

CHEAP = {"preset": "ultrafast", "crf": "51", "tune": "zerolatency"}
TAR, INDEX = "shard/alignment/0123456789abcdef/a.tar", "shard/alignment/0123456789abcdef/a.parquet"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A member of a tar."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""


def forge(run: Path, files: Sequence[File], *, key: str = "sample", **manifest: Any) -> None:
    """Write a run of one shard with one pair; ``manifest`` replaces what its one shard says of itself."""
    (run / TAR).parent.mkdir(parents=True)
    members = _write_tar(run / TAR, files)
    entry = ShardEntry(
        pair_id="0" * 32,
        shard="a",
        key=key,
        category="alignment",
        winner_generator="one",
        loser_generator="other",
        licence_profile="permissive",
        confidence=1.0,
        members=tuple(members),
    )
    pq.write_table(ShardEntry.table([entry]), run / INDEX)
    write_manifest(run, **manifest)


def sample(loser: bytes, suffix: str, *, key: str = "sample", **says: Any) -> list[File]:
    """Return the files of a pair whose loser is ``loser``; ``says`` replaces what the JSON says of it."""
    mime = {known: mime for mime, known in media.SUFFIX.items()}[suffix]
    good = media.encode(
        np.full((2, 16, 16, 3), 128, np.uint8)[: 2 if suffix == "mp4" else 1], _fps(mime)
    ).data
    described = {
        "prompt": "p",
        "winner": _side(good, media.probe(good, mime)),
        "loser": {**_side(loser, media.probe(good, mime)), **says},
    }
    return [
        File(name=f"{key}.json", data=json.dumps(described).encode()),
        File(name=f"{key}.loser.{suffix}", data=loser),
        File(name=f"{key}.prompt.txt", data=b"p"),
        File(name=f"{key}.winner.{suffix}", data=good),
    ]


def write_manifest(run: Path, **changes: Any) -> None:
    """Write a manifest of the one shard."""
    data = (run / TAR).read_bytes() if (run / TAR).exists() else b""
    shard = {
        "tar": TAR,
        "index": INDEX,
        "category": "alignment",
        "licence_profile": "permissive",
        "pairs": 1,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        **changes,
    }
    category = {"name": "alignment", "modality": "image", "pairs": 1, "quota": 1, "generators": []}
    given = {
        "format": 1,
        "categories": [category],
        "shards": [shard],
        "versions": dict.fromkeys(PACKAGES, "1"),
    }
    run.mkdir(exist_ok=True)
    (run / "manifest.json").write_text(json.dumps(given))


def picture(width: int, height: int) -> bytes:
    """Return a JPEG of 16x16 pixels whose header promises another size."""
    data = bytearray(media.encode(np.full((1, 16, 16, 3), 128, np.uint8), 0).data)
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(data)


def footage(width: int, height: int, frames: int) -> bytes:
    """Return a real MP4 in which nothing moves: a few bytes a frame."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options=CHEAP)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(_still(width, height, number)))
        container.mux(stream.encode())
    return buffer.getvalue()


def growing(first: tuple[int, int], then: tuple[int, int], count: int) -> bytes:
    """Return an MP4 with one frame of a size and ``count`` frames of another."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options=CHEAP)
        stream.width, stream.height = first
        stream.pix_fmt = "yuv420p"
        container.mux([*stream.encode(_still(*first, 0)), *stream.encode()])
        other = av.CodecContext.create("libx264", "w")
        other.width, other.height = then
        other.pix_fmt, other.time_base, other.options = "yuv420p", Fraction(1, 25), CHEAP
        packets = [packet for number in range(count) for packet in other.encode(_still(*then, number))]
        for number, packet in enumerate([*packets, *other.encode(None)]):
            packet.pts = packet.dts = number + 1
            packet.time_base, packet.stream = Fraction(1, 25), stream
            container.mux(packet)
    return buffer.getvalue()


def promising(video: bytes, width: int, height: int) -> bytes:
    """Return an MP4 whose sample description promises another size than its stream has."""
    data = bytearray(video)
    at = data.index(b"avc1", data.index(b"stsd")) + 4 + 24
    data[at : at + 4] = width.to_bytes(2, "big") + height.to_bytes(2, "big")
    return bytes(data)


def with_frames(video: bytes, count: int) -> bytes:
    """Return an MP4 whose tables promise ``count`` frames."""
    data = bytearray(video)
    at = data.index(b"stsz") + 4 + 8
    data[at : at + 4] = count.to_bytes(4, "big")
    return bytes(data)


def _still(width: int, height: int, number: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.zeros((height * 3 // 2, width), np.uint8), format="yuv420p")
    frame.pts = number
    return frame


def _write_tar(path: Path, files: Sequence[File]) -> list[Member]:
    members = []
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for file in files:
            info = tarfile.TarInfo(file.name)
            info.type, info.linkname, info.size = file.kind, file.link, len(file.data)
            tar.addfile(info, io.BytesIO(file.data))
            offset = tar.offset - -(-len(file.data) // 512) * 512
            digest = hashlib.sha256(file.data).hexdigest()
            members.append(Member(name=file.name, offset=offset, size=len(file.data), sha256=digest))
    return members


def _fps(mime: str) -> int:
    return 8 if mime == "video/mp4" else 0


def _side(data: bytes, probe: Probe) -> dict[str, Any]:
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": probe.width,
        "height": probe.height,
        "frames": probe.frames,
        "fps": probe.fps,
    }
