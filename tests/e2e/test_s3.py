"""A run in S3 is the run on disk: the same keys, the same bytes, and every command works on it."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path

import pytest

from pipeline import api
from pipeline.storage import open_store
from tests.e2e.world import IMAGES, Command, Project, built, shipped, tree, vipo

pytestmark = pytest.mark.slow


@pytest.fixture
def run(bucket: str) -> str:
    return f"{bucket}/some/prefix/{uuid.uuid4().hex}"


def test_a_run_in_s3_is_the_run_on_disk(images: Project, images_tree: dict[str, str], run: str) -> None:
    built(Command(*images.build(run, "--workers", "2")))
    assert tree(run) == images_tree
    for command, said in (("verify", "verified: "), ("status", "Finished"), ("report", f"{run}/report.html")):
        done = vipo(command, "--run", run)
        assert done.process.returncode == 0, done.errors
        assert said in done.output
    assert open_store(run).get("report.html").startswith(b"<!")


def test_a_run_in_s3_goes_on_where_it_stopped(
    images: Project, images_run: Path, images_tree: dict[str, str], run: str
) -> None:
    store = open_store(run)
    for entry in open_store(str(images_run)).list(""):
        if entry.key.startswith(("prompts/", "media/", "generate/", "pair/")):
            store.put(entry.key, (images_run / entry.key).read_bytes())
    command = built(Command(*images.build(run, "--runner", "ray", "--workers", "2")))
    assert "generate: 0 units to do" in command.errors
    assert tree(run) == images_tree


def test_a_damaged_shard_in_s3_is_named(images: Project, images_run: Path, run: str) -> None:
    del images
    store = open_store(run)
    for entry in open_store(str(images_run)).list(""):
        store.put(entry.key, (images_run / entry.key).read_bytes())
    shard = shipped(run)[0].shard
    (key,) = [entry.key for entry in store.list("shard/") if entry.key.endswith(f"{shard}.tar")]
    data = bytearray(store.get(key))
    data[600] ^= 1
    store.replace(key, bytes(data))
    done = vipo("verify", "--run", run)
    assert done.process.returncode == 1
    assert key in done.errors
    assert "Traceback" not in done.errors


def test_a_pool_in_s3_is_read_by_its_address(bucket: str, tmp_path: Path) -> None:
    objects = [{"name": "fish", "count": 2, "colour": "red"}]
    rows = [{"text": f"two red fish, {number}", "checks": {"objects": objects}} for number in range(8)]
    payload = "\n".join(json.dumps(row) for row in rows).encode()
    open_store(f"{bucket}/pools").put("mine.jsonl", payload)
    pool = f"""[pool]
uri = "{bucket}/pools/mine.jsonl"
sha256 = "{hashlib.sha256(payload).hexdigest()}"
licence = "CC-BY-4.0"

[rubric]"""
    text = IMAGES.replace("[rubric]", pool).replace("quota = 12", "quota = 1")
    project = Project.write(tmp_path / "project", text)
    run = tmp_path / "run"
    built(Command(*project.build(run)))
    assert shipped(run)
    assert api.verify(str(run)).pairs == len(shipped(run))


def test_a_bucket_that_is_not_there_is_refused_in_a_line(images: Project, bucket: str) -> None:
    del bucket
    done = vipo(*images.build("s3://no-such-bucket/run"))
    assert done.process.returncode == 1
    assert "NoSuchBucket" in done.errors
    assert len(done.errors.splitlines()) == 1
