"""What somebody else's dataset can do to those who read it: nothing but a line that names the file."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
import tarfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import api, media
from pipeline.cli import main
from pipeline.config import to_json
from pipeline.pools import user
from pipeline.records import ShardEntry
from tests.e2e.forge import (
    INDEX,
    TAR,
    File,
    footage,
    forge,
    growing,
    picture,
    promising,
    sample,
    with_frames,
    write_manifest,
)
from tests.e2e.world import QUIET, Project

pytestmark = pytest.mark.slow

MOST = 1_500
"""MiB that a reader of hostile bytes may take; without any it takes about 150."""

LIMIT = 6_000_000_000
"""Bytes of data at which the kernel stops a reader, for the sake of this machine."""

MEASURED = f"""\
import resource, subprocess, sys
resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))
status = subprocess.call([sys.executable, "-m", "pipeline", *sys.argv[1:]], stderr=subprocess.STDOUT)
print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""
"""Linux counts what a process took before its exec: one between keeps pytest's own out of the peak."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A command that has ended, and the MiB that it took at most."""

    status: int
    said: str
    peak: float


def command(*arguments: str) -> Ended:
    """Run ``vipo`` with a limit to its memory."""
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments],
        env={**os.environ, **QUIET},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    status, kibibytes = map(int, ended.stderr.split())
    return Ended(status=status, said=ended.stdout, peak=kibibytes / 1024)


def assert_refused(run: Path, *named: str, by: str = "verify") -> None:
    """``vipo`` ends with 1 and one printable line that names the file, and writes nothing anywhere."""
    before = sorted(run.parent.rglob("*"))
    with redirect_stderr(StringIO()) as written:
        assert main([by, "--run", str(run)]) == 1
    assert_one_line(written.getvalue(), *named)
    assert sorted(run.parent.rglob("*")) == before


def assert_refused_in_little_memory(run: Path, *named: str) -> None:
    ended = command("verify", "--run", str(run))
    assert ended.status == 1, ended.said
    assert_one_line(ended.said, *named)
    assert ended.peak < MOST


def assert_one_line(said: str, *named: str) -> None:
    assert said.startswith("vipo: "), said
    (line,) = said.splitlines()
    assert line.isprintable()
    assert len(line) < 1000
    assert all(name in line for name in named), line


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_what_the_forge_makes_is_good_where_nothing_is_hostile(run: Path) -> None:
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    forge(run, sample(good, "jpg"))
    assert api.verify(str(run)).pairs == 1


@pytest.mark.parametrize("side", [9_500, 12_000, 60_000])
def test_a_picture_that_promises_too_many_pixels_is_not_decoded(side: int, run: Path) -> None:
    forge(run, sample(picture(side, side), "jpg", width=side, height=side))
    assert_refused_in_little_memory(run, TAR, "sample.loser.jpg")


@pytest.mark.parametrize(("width", "height"), [(65_535, 65_535), (8_192, 8_192)])
def test_a_video_that_promises_huge_frames_is_not_decoded(width: int, height: int, run: Path) -> None:
    video = promising(footage(64, 64, 2), width, height)
    forge(run, sample(video, "mp4", width=width, height=height, frames=2, fps=25))
    assert_refused_in_little_memory(run, TAR, "sample.loser.mp4")


@pytest.mark.parametrize("count", [3, 1_999, 4_000_000_000])
def test_a_video_that_promises_frames_it_lacks_is_refused(count: int, run: Path) -> None:
    video = with_frames(footage(64, 64, 2), count)
    forge(run, sample(video, "mp4", width=64, height=64, frames=count, fps=25))
    assert_refused_in_little_memory(run, TAR, "sample.loser.mp4")


def test_a_video_of_many_large_frames_is_refused_before_they_fill_the_memory(run: Path) -> None:
    video = with_frames(footage(4096, 4096, 2), 150)
    forge(run, sample(video, "mp4", width=4096, height=4096, frames=150, fps=25))
    assert_refused_in_little_memory(run, TAR, "sample.loser.mp4")


def test_a_video_with_more_frames_than_its_header_says_is_refused(run: Path) -> None:
    """5 GB of pixels in less than a megabyte, said to be one frame."""
    video = footage(4096, 4096, 100)
    assert len(video) < 1_000_000
    forge(run, sample(with_frames(video, 1), "mp4", width=4096, height=4096, frames=1, fps=25))
    assert_refused_in_little_memory(run, TAR, "sample.loser.mp4")


def test_a_video_whose_frames_grow_is_refused(run: Path) -> None:
    """The header tells the size of the first frame; a later one brings a size of its own."""
    video = growing((64, 64), (8192, 4096), 12)
    forge(run, sample(video, "mp4", width=64, height=64, frames=13, fps=25))
    assert_refused_in_little_memory(run, TAR, "sample.loser.mp4")


@pytest.mark.parametrize(
    "key", ["../../etc/evil", "/etc/evil", "..", "a/../../b", "C:\\evil", "a.b", "", "-rf\n", "\x1b[2J"]
)
def test_a_sample_whose_name_could_leave_a_folder_is_refused(key: str, run: Path) -> None:
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    forge(run, sample(good, "jpg", key=key), key=key)
    assert_refused(run, TAR)


@pytest.mark.parametrize("name", ["../../etc/evil", "/etc/evil", "sample.extra", "sample.loser.pyd"])
def test_a_member_that_no_sample_has_is_refused(name: str, run: Path) -> None:
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    forge(run, [*sample(good, "jpg"), File(name=name, data=b"x")])
    assert_refused(run, TAR)


@pytest.mark.parametrize(
    "kind",
    [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE],
)
def test_a_member_that_is_no_plain_file_is_refused(kind: bytes, run: Path) -> None:
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    described, loser, prompt, winner = sample(good, "jpg")
    evil = File(name=loser.name, data=loser.data, kind=kind, link="/etc/passwd")
    forge(run, [described, evil, prompt, winner])
    assert_refused(run, TAR, loser.name)


@pytest.mark.parametrize("offset", [-1, 1 << 40, 1 << 62])
def test_an_index_that_points_outside_the_tar_is_refused(offset: int, run: Path) -> None:
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    forge(run, sample(good, "jpg"))
    table = pq.read_table(run / INDEX).to_pylist()
    table[0]["members"][1]["offset"] = offset
    pq.write_table(pa.Table.from_pylist(table, schema=ShardEntry.schema()), run / INDEX)
    assert_refused_in_little_memory(run, TAR)
    table[0]["members"][0]["size"] = 1 << 62
    pq.write_table(pa.Table.from_pylist(table, schema=ShardEntry.schema()), run / INDEX)
    assert_refused_in_little_memory(run, TAR)


class Canary:
    """Unpickling it leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
        return os.mkdir, (str(self._file),)


def test_a_pickle_in_a_part_is_never_opened(run: Path, tmp_path: Path) -> None:
    payload = pickle.dumps(Canary(tmp_path / "canary"))
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    forge(run, sample(good, "jpg"))
    extension = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": payload}
    for field in (
        pa.field("pair_id", pa.binary(), metadata=extension),
        pa.field("members", pa.binary(), metadata={b"PARQUET:pandas": payload}),
    ):
        schema = pa.schema([field], metadata={b"pandas": payload, b"sha256": payload})
        pq.write_table(pa.table([pa.array([payload])], schema=schema), run / INDEX)
        assert_refused(run, INDEX)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("data", [b"", b"PAR1", pickle.dumps({"a": 1}), b"PAR1" + b"\xff" * 64 + b"PAR1"])
def test_an_index_that_is_no_parquet_is_refused(data: bytes, run: Path) -> None:
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    forge(run, sample(good, "jpg"))
    (run / INDEX).write_bytes(data)
    assert_refused(run, INDEX)


@pytest.mark.parametrize(
    "described", [b"[]", b"3", b'{"prompt": "p", "loser": 3}', b"[" * 200_000, b"\xff", b"NaN"]
)
def test_a_sample_whose_json_is_not_a_sample_is_refused(described: bytes, run: Path) -> None:
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    _, *rest = sample(good, "jpg")
    forge(run, [File(name="sample.json", data=described), *rest])
    assert_refused(run, TAR, "sample")


@pytest.mark.parametrize("field", ["tar", "index"])
@pytest.mark.parametrize(
    "key",
    [
        "../secret",
        "/etc/passwd",
        "shard/../../secret",
        "a" * 5000,
        "nul\0byte",
        "[/red]",
        "\x1b[2J\nvipo: good",
        "",
        ".",
    ],
)
def test_a_manifest_that_names_other_files_is_refused(key: str, field: str, run: Path) -> None:
    good = media.encode(np.zeros((1, 16, 16, 3), np.uint8), 0).data
    forge(run, sample(good, "jpg"))
    (run.parent / "secret").write_text("PAR1 not for you")
    write_manifest(run, **{field: key})
    assert_refused(run)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "[" * 200_000,
        '{"shards": [{}]}',
        '{"shards": 3, "categories": []}',
        "NaN",
        "\x00",
        "9" * 5000,
    ],
)
@pytest.mark.parametrize(("name", "by"), [("manifest.json", "verify"), ("settings.json", "status")])
def test_a_broken_manifest_or_broken_settings_are_refused(text: str, name: str, by: str, run: Path) -> None:
    run.mkdir()
    (run / name).write_text(text)
    assert_refused(run, name, by=by)


@pytest.mark.parametrize(
    "change",
    [
        {"name": "../../evil"},
        {"name": "\x1b[2J\nvipo: good"},
        {"source": "x" * 100_000, "name": "evil"},
        {"__class__": "os.system"},
    ],
)
def test_hostile_settings_are_refused(change: dict[str, Any], images: Project, run: Path) -> None:
    settings = json.loads(to_json(images.settings()))
    settings["categories"][0].update(change)
    run.mkdir()
    (run / "settings.json").write_text(json.dumps(settings))
    for by in ("status", "report", "repair"):
        assert_refused(run, by=by)


def test_hostile_rows_of_a_pool_are_failed_prompts() -> None:
    rows = [
        b'{"text": "' + b"x" * 20_000_000 + b'"}',
        b"\x00" * 20_000_000,
        b'{"text": "a\\u001b[2Jb"}',
        b'{"text": "a\\u0000b"}',
        b"[" * 1_000_000,
        b'{"text": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"text": "good", "checks": ' + b'{"objects":' * 50_000 + b"1" + b"}" * 50_001,
        b'{"text": 1e999}',
        b'{"text": "good"}',
    ]
    payload = b"\n".join(rows)
    prompts = user.read(
        "pool.jsonl",
        hashlib.sha256(payload).hexdigest(),
        category="alignment",
        licence="CC0-1.0",
        bucket_size=2,
        fetch=lambda _: payload,
    )
    *bad, good = list(prompts)
    assert (good.status, good.text) == ("ok", "good")
    assert [row.status for row in bad] == ["failed"] * len(bad)
    assert all(row.reason and row.reason.isprintable() and len(row.reason) <= 200 for row in bad)
