"""``status`` in the middle of a build: what it counts is what is there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline import api
from pipeline.errors import StorageError
from pipeline.stages import ORDER
from pipeline.stages.rewrite import RewriteStage
from tests.e2e.world import parts

pytestmark = pytest.mark.slow


@pytest.fixture
def run(images_run: Path, tmp_path: Path) -> Path:
    """Return a copy of the undisturbed run, to take parts out of."""
    return Path(shutil.copytree(images_run, tmp_path / "run"))


def test_a_finished_run_is_finished(images_run: Path) -> None:
    seen = api.status(str(images_run))
    assert seen.finished
    assert not seen.failures
    assert [stage.name for stage in seen.stages] == [k.name for k in ORDER if k is not RewriteStage]
    for stage in seen.stages:
        assert stage.done == stage.total == len(parts(images_run, stage.name))
        assert stage.rate is not None
        assert stage.rate > 0
        assert stage.left == 0


@pytest.mark.parametrize("stage", ["generate", "judge", "agree"])
def test_parts_that_are_gone_are_to_do_again(run: Path, stage: str) -> None:
    every = parts(run, stage)
    for part in every[::2]:
        part.unlink()
    seen = api.status(str(run))
    (found,) = [item for item in seen.stages if item.name == stage]
    assert not seen.finished
    assert found.done == len(parts(run, stage)) == len(every) // 2
    assert found.total == len(every)
    assert found.left is not None
    assert found.left > 0
    for other in seen.stages:
        assert other.done == len(parts(run, other.name))


def test_before_all_pairs_are_labelled_the_shards_are_not_done(run: Path) -> None:
    parts(run, "agree")[0].unlink()
    for shard in parts(run, "shard"):
        shard.unlink()
    (found,) = [item for item in api.status(str(run)).stages if item.name == "shard"]
    assert (found.done, found.total) == (0, 1)


def test_a_run_that_has_only_begun_has_no_rates(run: Path) -> None:
    for folder in ("progress", "prompts", "generate", "pair", "gold", "calibrate", "judge", "agree", "shard"):
        shutil.rmtree(run / folder)
    seen = api.status(str(run))
    assert {stage.done for stage in seen.stages} == {0}
    assert {stage.rate for stage in seen.stages} == {stage.left for stage in seen.stages} == {None}


def test_a_failure_counts_until_its_part_is_there(run: Path) -> None:
    gone, there = parts(run, "judge")[:2]
    gone.unlink()
    (diary,) = (run / "progress").iterdir()
    about = json.loads(diary.read_text())
    about["failures"] = [{"unit": str(part.relative_to(run)), "cause": "a test"} for part in (gone, there)]
    diary.with_name("other.json").write_text(json.dumps(about))
    (failure,) = api.status(str(run)).failures
    assert failure.unit == str(gone.relative_to(run))
    assert failure.cause == "a test"


def test_no_run_is_no_status(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no run is here"):
        api.status(str(tmp_path / "nothing"))
    assert not (tmp_path / "nothing").exists()
