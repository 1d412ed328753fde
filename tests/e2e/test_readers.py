"""The shards in the hands of those who will read them: webdataset, torch, Hugging Face, Pillow, PyAV."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import pytest
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from pipeline.records import ShardEntry
from tests.e2e.world import shipped

pytestmark = pytest.mark.slow

MEMBERS = {
    "alignment": ["json", "loser.jpg", "prompt.txt", "winner.jpg"],
    "motion_quality": ["json", "loser.mp4", "prompt.txt", "winner.mp4"],
}


@pytest.fixture(scope="module")
def run(both_run: Path) -> Path:
    return both_run


def tars(run: Path, category: str) -> list[str]:
    return sorted(str(path) for path in run.glob(f"shard/{category}/*/*.tar"))


def entries(run: Path, category: str) -> dict[str, ShardEntry]:
    return {entry.key: entry for entry in shipped(run) if entry.category == category}


def files(tar: str) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(tar) as opened:
        for item in opened:
            found = opened.extractfile(item)
            assert found is not None
            yield item, found.read()


def shape(value: Any) -> Any:
    """Return names and types of nested JSON, whatever the values are."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        shapes = {json.dumps(shape(item), sort_keys=True) for item in value}
        assert len(shapes) == 1, "a list of one kind of thing"
        return [shapes.pop()]
    return type(value).__name__


@pytest.mark.parametrize("category", MEMBERS)
def test_all_samples_have_the_same_members_and_shape(run: Path, category: str) -> None:
    shapes, keys = set(), []
    for tar in tars(run, category):
        members: dict[str, list[str]] = {}
        for item, content in files(tar):
            key, _, role = item.name.partition(".")
            members.setdefault(key, []).append(role)
            assert (item.mtime, item.uid, item.gid, item.uname, item.gname) == (0, 0, 0, "", "")
            if role == "json":
                shapes.add(json.dumps(shape(json.loads(content)), sort_keys=True))
        keys += list(members)
        assert list(members) == sorted(members)
        assert set(map(tuple, members.values())) == {tuple(MEMBERS[category])}
    assert len(shapes) == 1
    assert all(re.fullmatch("[a-z0-9_-]+", key) for key in keys)
    assert sorted(keys) == sorted(entries(run, category))


def test_the_index_finds_every_member_by_offset(run: Path) -> None:
    for entry in shipped(run):
        (tar,) = run.glob(f"shard/*/*/{entry.shard}.tar")
        data = tar.read_bytes()
        in_tar = {item.name: content for item, content in files(str(tar)) if item.name.startswith(entry.key)}
        assert {m.name: data[m.offset : m.offset + m.size] for m in entry.members} == in_tar


def test_webdataset_decodes_both_sides_and_the_prompt(run: Path) -> None:
    samples = list(webdataset.WebDataset(tars(run, "alignment"), shardshuffle=False).decode("pil"))
    assert {sample["__key__"] for sample in samples} == set(entries(run, "alignment"))
    assert len(samples) == len(entries(run, "alignment"))
    for sample in samples:
        about = sample["json"]
        assert sample["winner.jpg"].size == sample["loser.jpg"].size == (256, 256)
        assert sample["prompt.txt"] == about["prompt"]
        assert about["pair_id"] == sample["__key__"].removeprefix("alignment-")
        assert about["winner"]["generation_id"] != about["loser"]["generation_id"]
        assert {verdict["choice"] for verdict in about["verdicts"]} <= {"winner", "loser", "tie", "invalid"}
        assert Counter(verdict["choice"] for verdict in about["verdicts"])["winner"] >= 2
        assert 0.5 <= about["confidence"] <= 1


def test_torch_loads_every_sample_once_with_two_workers(run: Path) -> None:
    dataset = webdataset.WebDataset(
        tars(run, "alignment"),
        shardshuffle=False,
        nodesplitter=webdataset.split_by_node,
        workersplitter=webdataset.split_by_worker,
    )
    loader = DataLoader(dataset.decode("torchrgb"), num_workers=2, batch_size=None)
    samples = list(loader)
    assert sorted(sample["__key__"] for sample in samples) == sorted(entries(run, "alignment"))
    assert {tuple(sample["winner.jpg"].shape) for sample in samples} == {(3, 256, 256)}


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_loads_the_shards(
    run: Path, streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    found = datasets.load_dataset(
        "webdataset",
        data_files={"train": tars(run, "alignment")},
        split="train",
        streaming=streaming,
        cache_dir=str(tmp_path),
    )
    rows = list(found)
    assert {row["__key__"] for row in rows} == set(entries(run, "alignment"))
    for row in rows:
        assert row["winner.jpg"].size == row["loser.jpg"].size == (256, 256)
        prompt = row["prompt.txt"]
        assert (prompt.decode() if isinstance(prompt, bytes) else prompt) == row["json"]["prompt"]
        assert [verdict["judge"] for verdict in row["json"]["verdicts"]]


def test_pillow_opens_every_image_at_its_stated_size(run: Path) -> None:
    count = 0
    for tar in tars(run, "alignment"):
        for item, content in files(tar):
            if item.name.endswith(".jpg"):
                with Image.open(io.BytesIO(content)) as image:
                    image.load()
                    assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (256, 256))
                count += 1
    assert count == 2 * len(entries(run, "alignment"))


def test_pyav_decodes_every_video_at_its_stated_size_length_and_rate(run: Path) -> None:
    count = 0
    for tar in tars(run, "motion_quality"):
        for item, content in files(tar):
            if item.name.endswith(".mp4"):
                with av.open(io.BytesIO(content), "r") as container:
                    stream = container.streams.video[0]
                    frames = list(container.decode(stream))
                    assert stream.codec_context.name == "h264"
                    assert (float(stream.average_rate or 0), len(frames)) == (8.0, 9)
                    assert {(frame.width, frame.height) for frame in frames} == {(320, 180)}
                count += 1
    assert count == 2 * len(entries(run, "motion_quality")) > 0
