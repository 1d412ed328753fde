"""What a run no longer needs is shown, and goes when it is old enough; nothing else does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import api, cli
from pipeline.errors import ConfigError, CorruptError
from pipeline.runners.progress import Display
from pipeline.stages import ORDER
from pipeline.storage import open_store
from tests.e2e.here import NOW, assert_whole, build, cut
from tests.e2e.world import IMAGES, Project, parts, shipped, tree

pytestmark = pytest.mark.slow


@pytest.fixture
def run(images_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(images_run, tmp_path / "run"))


@pytest.fixture
def run_both(both_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(both_run, tmp_path / "run"))


@pytest.fixture
def other(tmp_path: Path) -> Project:
    """Return a project with another rubric: the same prompts, generations and pairs, other verdicts."""
    return Project.write(tmp_path / "other", IMAGES.replace("Every object is there.", "No object lacks."))


def stale_stages(run: Path | str) -> set[str]:
    return {item.stage for item in api.status(str(run)).stale}


# ---- changed settings


def test_changed_settings_mix_nothing_and_old_ones_are_taken_up_again(
    images: Project,
    run: Path,
    images_tree: dict[str, str],
    other: Project,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert api.status(str(run)).stale == ()
    asked = {"gold", "calibrate", "judge", "agree", "shard"}
    assert {lane.partition("/")[0] for lane in build(other.settings(), run)} == asked
    assert stale_stages(run) == asked
    assert cli.main(["status", "--run", str(run)]) == 0
    assert "vipo gc" in capsys.readouterr().out
    changed = tree(run)
    kept = images_tree.keys() - {"manifest.json"}
    assert {key: changed[key] for key in kept} == {key: images_tree[key] for key in kept}
    assert build(images.settings(), run) == set()
    assert tree(run)["manifest.json"] == images_tree["manifest.json"]
    assert stale_stages(run) == asked
    assert tree(run).keys() == changed.keys()


def test_another_judge_leaves_generations_and_other_verdicts_in_use(run: Path, tmp_path: Path) -> None:
    third = IMAGES.replace('"objects-palette"]', '"objects-palette", "objects-outlines"]')
    wider = Project.write(tmp_path / "wider", third)
    did = build(wider.settings(), run)
    assert did == {
        *("gold/alignment.objects-outlines", "calibrate/alignment"),
        *("judge/alignment.objects-outlines", "agree/alignment", "shard/alignment"),
    }
    assert stale_stages(run) == {"calibrate", "agree", "shard"}


# ---- gc


def old_run(run: Path, other: Project, images: Project) -> dict[str, str]:
    """Build with other settings and the old ones again; add an unnamed medium and a torn write."""
    before = tree(run)
    build(other.settings(), run)
    build(images.settings(), run)
    data = b"of a unit that never ended"
    digest = hashlib.sha256(data).hexdigest()
    store = open_store(str(run))
    store.put(f"media/{digest[:2]}/{digest}.jpg", data)
    (run / ".tmp").mkdir(exist_ok=True)
    (run / ".tmp" / "torn").write_bytes(b"half")
    return before


def test_gc_takes_what_is_not_in_use_and_nothing_else(run: Path, images: Project, other: Project) -> None:
    before = old_run(run, other, images)
    whole = tree(run)
    told = api.gc(str(run), older_than=NOW, dry_run=True)
    assert tree(run) == whole
    assert (run / ".tmp" / "torn").exists()
    assert api.gc(str(run), older_than=NOW) == told
    assert not any(heap.kept for heap in told)
    assert {heap.what.partition("/")[0] for heap in told} == {
        *("gold", "calibrate", "judge", "agree", "shard", "media that no part names", "unfinished writes")
    }
    assert sum(heap.bytes for heap in told) > 0
    assert tree(run) == before
    assert not list((run / ".tmp").iterdir())
    assert api.gc(str(run), older_than=NOW) == []
    assert_whole(run, images)


def test_gc_leaves_what_is_young(run: Path, images: Project, other: Project) -> None:
    old_run(run, other, images)
    whole = tree(run)
    told = api.gc(str(run))
    assert {heap.kept for heap in told} == {"category has a younger one", "too young"}
    assert tree(run) == whole
    assert (run / ".tmp" / "torn").exists()


def test_a_young_part_keeps_the_old_ones_of_its_category_and_their_media(run: Path, images: Project) -> None:
    """Or going back to those settings would meet parts without what they were made from."""
    smaller = Project.write(run.parent / "smaller", IMAGES.replace("256, height = 256", "192, height = 192"))
    build(smaller.settings(), run)
    build(images.settings(), run)
    whole = tree(run)
    day_ago = (run / "manifest.json").stat().st_mtime - 30 * 3600
    for path in run.rglob("*"):
        if path.is_file() and path.relative_to(run).parts[0] != "progress":
            os.utime(path, (day_ago, day_ago))
    young = next(s for s in api.status(str(run)).stale if s.lane.endswith("palette"))
    next((run / young.folder).iterdir()).touch()
    told = api.gc(str(run))
    assert {heap.kept for heap in told} == {"category has a younger one"}
    assert tree(run) == whole
    assert build(smaller.settings(), run) == set()


def test_gc_leaves_other_categories_unless_told(run_both: Path, images: Project, images_run: Path) -> None:
    build(images.settings(), run_both)
    whole = tree(run_both)
    told = api.gc(str(run_both), older_than=NOW)
    assert {heap.kept for heap in told} == {"category is not in the settings"}
    assert tree(run_both) == whole
    api.gc(str(run_both), older_than=NOW, other_categories=True)
    assert tree(run_both) == tree(images_run)


def test_gc_leaves_the_shards_of_the_manifest_while_new_ones_are_not_built(run: Path, other: Project) -> None:
    from pipeline.config import to_json

    (run / "settings.json").write_bytes(to_json(other.settings()))
    api.gc(str(run), older_than=NOW)
    assert api.verify(str(run)).pairs == len(shipped(run))


def test_gc_waits_for_a_build_at_work(run: Path, images: Project, other: Project) -> None:
    """A unit makes again what a dead attempt has left: old media, unnamed, and about to be named."""
    old_run(run, other, images)
    whole = tree(run)
    store = open_store(str(run))
    with StringIO() as file, Display(store, Console(file=file)):
        with pytest.raises(ConfigError, match="may be at work"):
            api.gc(str(run), older_than=1)
        assert api.gc(str(run), older_than=1, dry_run=True)
        assert tree(run) == whole
        (diary,) = [p for p in (run / "progress").iterdir() if not json.loads(p.read_bytes())["ended"]]
        os.utime(diary, (0, 0))  # killed long ago
        assert api.gc(str(run), older_than=1)
    assert api.gc(str(run), older_than=NOW)


def test_gc_does_not_go_by_the_clock_of_its_machine(
    run: Path, images: Project, other: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_run(run, other, images)
    whole = tree(run)
    monkeypatch.setattr("pipeline.api.time.time", lambda: 1e12)
    assert all(heap.kept for heap in api.gc(str(run)))
    assert tree(run) == whole


def test_gc_that_cannot_read_a_part_takes_no_media(run: Path) -> None:
    media = sorted(path for path in (run / "media").rglob("*.jpg"))
    cut(parts(run, "generate")[0])
    with pytest.raises(CorruptError, match="vipo repair"):
        api.gc(str(run), older_than=NOW)
    assert sorted((run / "media").rglob("*.jpg")) == media


class DiedError(Exception):
    """What the process that collects dies of."""


@pytest.mark.parametrize("after", [0, 9, 25])
def test_a_run_outlives_its_gc(
    after: int, run: Path, images: Project, images_tree: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it was killed, old settings go on with what it left."""
    from pipeline.dataset import gc
    from pipeline.storage.local import LocalStore

    third = IMAGES.replace('"scene/steady", "scene/hasty"', '"scene/hasty", "scene/steady"')
    changed = Project.write(run.parent / "changed", third.replace("generations = 3", "generations = 2"))
    build(changed.settings(), run)
    both = tree(run)
    build(images.settings(), run)
    deleted: list[str] = []
    whole = LocalStore.delete

    def delete(self: LocalStore, key: str) -> None:
        if key != "clock":
            if len(deleted) == after:
                raise DiedError
            deleted.append(key)
        whole(self, key)

    monkeypatch.setattr(gc, "THREADS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "delete", delete)
        with pytest.raises(DiedError):
            api.gc(str(run), older_than=NOW)
    stages = [key.partition("/")[0] for key in deleted]
    order = [*(kind.name for kind in reversed(ORDER)), "media"]
    assert stages[:1] in ([], ["shard"])
    assert stages == sorted(stages, key=order.index), "nothing is left without what it was made from"
    build(changed.settings(), run)
    assert tree(run) == both
    build(images.settings(), run)
    assert tree(run).items() >= images_tree.items()
