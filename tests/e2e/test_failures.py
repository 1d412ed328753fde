"""Bad prompts become rows, bad units are reported, and the rest is built all the same."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq
import pytest

from pipeline import api
from pipeline.records import Agreement, Generation, Pair, Reason, Record
from pipeline.stages import read_part
from pipeline.storage import open_store
from tests.e2e.world import IMAGES, Command, Fault, Project, built, parts, prompts, shipped, tree, vipo

pytestmark = pytest.mark.slow

R = TypeVar("R", bound=Record)

OTHER = (
    IMAGES.replace('"alignment"', '"composition"', 1)
    .replace(
        'generators = ["scene/steady", "scene/hasty", "scene/dreamy"]',
        'generators = ["scene/hasty", "scene/gaudy"]',
    )
    .replace("generations = 3\n", "generations = 2\n")
    .replace("quota = 12", "quota = 1")
)
"""A second category, so that the first can fail beside it."""

IMPOSSIBLE = [
    {"subject": 0, "relation": "left of", "object": 1},
    {"subject": 1, "relation": "left of", "object": 0},
]


def row(number: int, **checks: Any) -> dict[str, Any]:
    count = number % 3 + 1
    objects = [
        {"name": "fish", "count": count, "colour": "red"},
        {"name": "wrench", "count": 1, "colour": "blue"},
    ]
    text = f"picture {number}: {count} red fish and a blue wrench"
    return {"text": text, "checks": {"objects": objects, **checks}}


def rows_of(record: type[R], run: Path) -> list[R]:
    stage = {Generation: "generate", Pair: "pair", Agreement: "agree"}[record]
    store = open_store(str(run))
    return [row for part in parts(run, stage) for row in read_part(record, str(part.relative_to(run)), store)]


def with_pool(folder: Path, uri: str, payload: bytes, *, quota: int) -> Project:
    """Write a project whose prompts are those of a user's own pool."""
    pool = f'[pool]\nuri = "{uri}"\nsha256 = "{hashlib.sha256(payload).hexdigest()}"\nlicence = "CC0-1.0"\n\n'
    text = IMAGES.replace("[rubric]", pool + "[rubric]").replace("quota = 12", f"quota = {quota}")
    return Project.write(folder, text)


def test_a_prompt_that_cannot_be_drawn_costs_only_its_pairs(tmp_path: Path) -> None:
    bad_rows = [b'{"text": ""}', b"\xff\xfe", b'{"text": "no brace"', b"", b"[]"]
    rows = [row(number, **({"relations": IMPOSSIBLE} if number == 3 else {})) for number in range(14)]
    payload = b"\n".join([*bad_rows, *(json.dumps(each).encode() for each in rows)])
    pool = tmp_path / "pool.jsonl"
    pool.write_bytes(payload)
    project = with_pool(tmp_path / "project", str(pool), payload, quota=4)
    run = tmp_path / "run"
    command = vipo(*project.build(run))
    assert command.process.returncode == 0, command.errors

    bad = next(prompt for prompt in prompts(run) if prompt.line == 9)
    failed = [row for row in rows_of(Generation, run) if row.status == "failed"]
    assert failed
    assert {row.prompt_id for row in failed} == {bad.id}
    assert all("no arrangement" in str(row.reason) for row in failed)
    labels = {row.pair_id: row for row in rows_of(Agreement, run)}
    for pair in rows_of(Pair, run):
        is_missing = {pair.first_id, pair.second_id} & {row.id for row in failed}
        assert (labels[pair.id].reason is Reason.MISSING_MEDIA) == bool(is_missing)
    assert {prompt.line: prompt.reason for prompt in prompts(run) if prompt.status == "failed"} == {
        1: "no text",
        2: "the line is not UTF-8",
        3: "not JSON",
        4: "an empty line",
        5: "not a JSON object",
    }


def test_a_pool_that_has_changed_is_refused(tmp_path: Path) -> None:
    pool = tmp_path / "pool.jsonl"
    pool.write_text(json.dumps(row(0)))
    project = with_pool(tmp_path / "project", str(pool), b"other bytes", quota=1)
    command = vipo(*project.build(tmp_path / "run"))
    assert command.process.returncode == 1
    assert "its SHA-256 is" in command.errors
    assert "Traceback" not in command.errors


@pytest.fixture
def two(tmp_path: Path) -> Project:
    return Project.write(tmp_path / "two", IMAGES, OTHER)


def test_a_unit_that_always_fails_holds_back_its_category_alone(
    two: Project, images_tree: dict[str, str], tmp_path: Path
) -> None:
    """A file stands where a judge's folder of parts should be."""
    run = tmp_path / "run"
    in_the_way = run / "judge" / "alignment.objects-palette"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_text("not a folder")

    command = vipo(*two.build(run))
    assert command.process.returncode == 1
    (said,) = [line for line in command.errors.splitlines() if line.startswith("vipo: ")]
    assert "alignment was held back from the shards" in said
    assert "--skip-failed" in said
    causes = [
        line
        for line in command.errors.splitlines()
        if line.startswith("failed: judge/alignment.objects-palette/")
    ]
    assert causes
    assert all("StorageError" in line and str(run) in line for line in causes)
    assert {entry.category for entry in shipped(run)} == {"composition"}
    assert {failure.unit.split("/")[1] for failure in api.status(str(run)).failures} == {
        "alignment.objects-palette"
    }

    in_the_way.unlink()
    built(Command(*two.build(run)))
    whole = tree(run)
    del whole["manifest.json"]
    assert images_tree.items() - {("manifest.json", images_tree["manifest.json"])} <= whole.items()
    assert {entry.category for entry in shipped(run)} == {"alignment", "composition"}
    assert not api.status(str(run)).failures


def test_a_corrupt_part_fails_only_the_units_that_read_it(
    images: Project, images_tree: dict[str, str], tmp_path: Path
) -> None:
    run, whole = tmp_path / "run", tmp_path / "whole"
    built(Command(*images.build(whole)))
    broken = parts(whole, "pair")[2].relative_to(whole)
    unread = {pair.id for pair in read_part(Pair, str(broken), open_store(str(whole)))}
    copy_until_pairs(whole, run)
    (run / broken).write_bytes((whole / broken).read_bytes()[:-9])

    command = vipo(*images.build(run))
    assert command.process.returncode == 1
    assert f"{run}/{broken}: not a readable part" in command.errors
    assert "run `vipo repair`" in command.errors
    assert "Traceback" not in command.errors
    assert not [entry for entry in shipped(run) if entry.category == "alignment"]

    command = vipo(*images.build(run, "--skip-failed"))
    assert command.process.returncode == 1
    assert shipped(run)
    assert {entry.pair_id for entry in shipped(whole)} & unread
    assert not {entry.pair_id for entry in shipped(run)} & unread
    assert api.verify(str(run)).pairs == len(shipped(run))

    (run / broken).unlink()
    built(Command(*images.build(run)))
    assert images_tree.items() <= tree(run).items()


def test_a_corrupt_part_that_the_driver_reads_is_named_in_a_line(
    images: Project, images_tree: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    built(Command(*images.build(run)))
    broken = parts(run, "agree")[1]
    group = pq.read_metadata(broken).row_group(0)
    (kept,) = [group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "kept"]
    data = bytearray(broken.read_bytes())
    data[kept.data_page_offset + kept.total_compressed_size - 1] ^= 255  # not the footer: it opens
    broken.write_bytes(data)
    command = vipo(*images.build(run))
    assert command.process.returncode == 1
    assert f"{broken}: not a readable part" in command.errors.splitlines()[-1]
    assert "Traceback" not in command.errors
    broken.unlink()
    built(Command(*images.build(run)))
    assert tree(run) == images_tree


def copy_until_pairs(whole: Path, run: Path) -> None:
    for key in tree(whole):
        if key.split("/")[0] in ("prompts", "generate", "media", "pair"):
            (run / key).parent.mkdir(parents=True, exist_ok=True)
            (run / key).write_bytes((whole / key).read_bytes())


def test_a_unit_that_kills_every_worker_is_given_up(
    images: Project, images_tree: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    victim = "judge/alignment.objects-pieces/"
    fault = Fault(folder=tmp_path / "fault", prefix=victim, suffix="000001.parquet", again=True)
    command = vipo(*images.build(run), environment=fault.environment())
    assert command.process.returncode == 1
    assert "worker process died (exit code -9)" in command.errors
    tries = len(list(fault.folder.glob("call-*")))
    assert tries == images.settings().profile.attempts
    (failure,) = api.status(str(run)).failures
    assert failure.unit.startswith(victim)
    assert failure.unit.endswith("000001.parquet")
    assert len(parts(run, "judge")) == len([key for key in images_tree if key.startswith("judge/")]) - 1

    built(Command(*images.build(run)))
    assert tree(run) == images_tree


def test_skip_failed_ships_the_rest(images: Project, images_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fault = Fault(folder=tmp_path / "fault", prefix="agree/", suffix="000001.parquet", again=True)
    vipo(*images.build(run, "--skip-failed"), environment=fault.environment())
    assert fault.struck
    labelled = {row.pair_id for row in rows_of(Agreement, run) if row.kept}
    assert {entry.pair_id for entry in shipped(run)} == labelled
    assert {entry.pair_id for entry in shipped(images_run)} - labelled
    assert api.verify(str(run)).pairs == len(labelled)
