"""What is damaged comes back to the byte, or is named."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import boto3
import pytest

from pipeline import api, cli
from pipeline.dataset.manifest import read_manifest
from pipeline.storage import Store, open_store
from tests.e2e.here import NOW, assert_whole, build, cut, flip, flip_page
from tests.e2e.world import IMAGES, Project, parts, prompts, shipped, tree

pytestmark = pytest.mark.slow

Damage = Callable[[Path], object]


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


# ---- repair


def remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def tars(run: Path) -> list[Path]:
    return sorted(run.glob("shard/*/*/*.tar"))


def medium(run: Path, suffix: str, *, ships: bool) -> Path:
    """Return a medium that a shard holds, or one that none does."""
    held = {member.sha256 for row in shipped(run) for member in row.members}
    found = sorted(run.glob(f"media/*/*.{suffix}"))
    return next(path for path in found if (path.stem in held) == ships)


MENDED: dict[str, Damage] = {
    "torn tar": lambda run: cut(tars(run)[0]),
    "deleted tar": lambda run: tars(run)[1].unlink(),
    "flipped bit in a tar": lambda run: flip(tars(run)[-1], 0.6),
    "longer tar": lambda run: tars(run)[0].write_bytes(tars(run)[0].read_bytes() + b"\0"),
    "deleted index": lambda run: parts(run, "shard")[0].unlink(),
    "torn index": lambda run: cut(parts(run, "shard")[1]),
    "flipped bit in an index": lambda run: flip_page(parts(run, "shard")[0]),
    "another shard's tar": lambda run: shutil.copy(tars(run)[0], tars(run)[1]),
    "two shards deleted": lambda run: remove(*tars(run)[:2], *parts(run, "shard")[:2]),
    "deleted image": lambda run: remove(medium(run, "jpg", ships=True)),
    "truncated video": lambda run: cut(medium(run, "mp4", ships=True)),
    "flipped bit in an image": lambda run: flip(medium(run, "jpg", ships=True)),
}
"""What a repair mends by itself."""

MADE_AGAIN: dict[str, Damage] = {
    "corrupt part of prompts": lambda run: flip_page(parts(run, "prompts")[0]),
    "corrupt part of generate": lambda run: flip_page(parts(run, "generate")[0]),
    "corrupt part of pair": lambda run: flip_page(parts(run, "pair")[0]),
    "corrupt part of judge": lambda run: flip_page(parts(run, "judge")[0]),
    "corrupt part of agree": lambda run: flip_page(parts(run, "agree")[0]),
    "torn part": lambda run: cut(parts(run, "judge")[-1]),
    "empty part": lambda run: parts(run, "generate")[-1].write_bytes(b""),
    "part of another stage": lambda run: shutil.copy(parts(run, "pair")[0], parts(run, "agree")[0]),
    "deleted image of a dropped pair": lambda run: medium(run, "jpg", ships=False).unlink(),
    "image of a dropped pair cut short": lambda run: cut(medium(run, "jpg", ships=False)),
    "deleted generation part": lambda run: parts(run, "generate")[0].unlink(),
    "damaged manifest": lambda run: cut(run / "manifest.json"),
    "deleted manifest": lambda run: (run / "manifest.json").unlink(),
}
"""What a build must make again; a repair clears the way."""


CALIBRATED = {"calibrate", "agree"}
"""Stages that read what every bucket's gold pairs say of the judges."""


@pytest.mark.parametrize("what", MENDED)
def test_a_repair_mends(what: str, run_both: Path, both_run: Path) -> None:
    MENDED[what](run_both)
    assert tree(run_both) != tree(both_run)
    told: list[str] = []
    done = api.repair(str(run_both), told.append)
    assert done.whole
    assert not done.removed
    assert len(told) == len(done.restored) + len(done.rebuilt) > 0
    assert tree(run_both) == tree(both_run)


@pytest.mark.parametrize("what", MADE_AGAIN)
def test_a_repair_clears_the_way_for_a_build(what: str, run: Path, images: Project, images_run: Path) -> None:
    MADE_AGAIN[what](run)
    assert tree(run) != tree(images_run)
    done = api.repair(str(run))
    assert done.todo
    assert not done.lost
    left = tree(run)
    assert left.items() <= tree(images_run).items() or "manifest" in what, "only what is good is left"
    build(images.settings(), run)
    assert api.repair(str(run)).whole
    assert tree(run) == tree(images_run)


def test_a_repair_outlives_many_faults_at_once(run_both: Path, both: Project, both_run: Path) -> None:
    for name in ("truncated video", "flipped bit in an image", "torn tar", "deleted index"):
        MENDED[name](run_both)
    for name in ("corrupt part of generate", "corrupt part of judge", "damaged manifest"):
        MADE_AGAIN[name](run_both)
    assert not api.repair(str(run_both)).whole
    build(both.settings(), run_both)
    assert api.repair(str(run_both)).whole
    assert tree(run_both) == tree(both_run)
    assert_whole(run_both, both)


def test_the_commands_say_what_they_did(
    run: Path, images: Project, images_tree: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    MENDED["torn tar"](run)
    assert cli.main(["repair", "--run", str(run)]) == 0
    said = capsys.readouterr().out
    assert f"rebuilt: {tars(run)[0].relative_to(run)}: " in said
    assert "removed 0, restored 0 media, rebuilt 1 shards" in said
    MADE_AGAIN["corrupt part of judge"](run)
    assert cli.main(["repair", "--run", str(run)]) == 1
    written = capsys.readouterr()
    assert "removed: judge/" in written.out
    assert f"run the same build again, then `vipo repair --run {run}`" in written.err
    build(images.settings(), run)
    (run / ".tmp").mkdir(exist_ok=True)
    (run / ".tmp" / "torn").write_bytes(b"half")
    assert cli.main(["gc", "--run", str(run), "--dry-run", f"--older-than={NOW}"]) == 0
    assert "would go: 4 B" in capsys.readouterr().out
    assert cli.main(["gc", "--run", str(run), f"--older-than={NOW}"]) == 0
    assert "removed: 4 B" in capsys.readouterr().out
    assert tree(run) == images_tree


def test_a_repair_of_a_whole_run_does_nothing(run: Path, images_tree: dict[str, str]) -> None:
    told: list[str] = []
    assert api.repair(str(run), told.append).whole
    assert told == []
    assert tree(run) == images_tree


def test_a_repair_takes_only_what_was_made_from_the_lost_medium(run: Path) -> None:
    whole = tree(run)
    lost = medium(run, "jpg", ships=False)
    lost.unlink()
    removed = set(api.repair(str(run)).removed)
    (part,) = [key for key in removed if key.startswith("generate/")]
    name = part.rpartition("/")[2]
    own = {key for key in removed if key.partition("/")[0] not in {"media", *CALIBRATED}}
    assert {key.rpartition("/")[2] for key in own} == {name}
    assert whole.keys() - tree(run).keys() == removed
    assert not any(key.startswith(("shard/", "prompts/")) for key in removed)


@pytest.mark.parametrize(
    ("stage", "after"),
    [
        ("generate", {"pair", "gold", "calibrate", "judge", "agree"}),
        ("gold", {"calibrate", "agree"}),
        ("calibrate", set()),
        ("judge", {"agree"}),
        ("pair", set()),
    ],
)
def test_what_was_made_from_a_missing_part_goes_unless_it_is_made_again_the_same(
    stage: str, after: set[str], run: Path
) -> None:
    """A generator or judge on a GPU may answer otherwise the second time."""
    gone = parts(run, stage)[0]
    gone.unlink()
    removed = api.repair(str(run)).removed
    assert {key.partition("/")[0] for key in removed} == after
    # A judge that is calibrated otherwise may change the label of every pair.
    own = {key for key in removed if key.partition("/")[0] not in CALIBRATED}
    assert {key.rpartition("/")[2] for key in own} <= {gone.name}


def test_a_repair_makes_shards_again_that_hold_other_samples_than_the_parts(
    run: Path, images_tree: dict[str, str]
) -> None:
    """A whole shard in the place of another: what is in it can be read, and is wrong."""
    first, second = parts(run, "shard")[:2]
    shutil.copy(first, second)
    shutil.copy(first.with_suffix(".tar"), second.with_suffix(".tar"))
    assert api.repair(str(run)).rebuilt == [str(second.with_suffix(".tar").relative_to(run))]
    assert tree(run) == images_tree


def test_a_repair_ends_where_the_store_does_not_answer(
    run: Path, images_tree: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A medium, a part, a tar that cannot be read now is not a bad one."""
    from pipeline.errors import StorageError
    from pipeline.storage.local import LocalStore

    whole = LocalStore.open
    for prefix in ("generate/", "media/", "shard/"):

        def silent(self: LocalStore, key: str, prefix: str = prefix) -> object:
            if key.startswith(prefix):
                raise StorageError(f"{key}: timed out")
            return whole(self, key)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "open", silent)
            with pytest.raises(StorageError, match="timed out"):
                api.repair(str(run))
        assert tree(run) == images_tree


def test_pairs_are_named_that_nothing_can_give_again(images_run: Path, tmp_path: Path) -> None:
    """A user's pool is gone, and with it the prompts; a torn shard cannot be cut again."""
    rows = [{"text": p.text, "checks": asdict(p.checks)} for p in prompts(images_run) if p.id == p.root_id][
        :12
    ]
    pool = tmp_path / "pool.jsonl"
    pool.write_text("\n".join(json.dumps(row) for row in rows))
    digest = hashlib.sha256(pool.read_bytes()).hexdigest()
    own = f'[pool]\nuri = "{pool}"\nsha256 = "{digest}"\nlicence = "CC0-1.0"\n\n[embedded]'
    recipes = IMAGES.partition("[[embedded.recipes]]")[0] + '[[embedded.recipes]]\nkind = "across_models"\n'
    project = Project.write(
        tmp_path / "own", recipes.replace("[embedded]", own).replace("quota = 12", "quota = 6")
    )
    run = tmp_path / "run"
    build(project.settings(), run)
    whole = tree(run)
    torn = read_manifest(open_store(str(run))).shards[-1]
    lost = sorted(row.key for row in shipped(run) if f"/{row.shard}." in torn.tar)
    payload = pool.read_bytes()
    pool.unlink()
    cut(run / torn.tar)
    flip_page(parts(run, "prompts")[0])
    damaged = tree(run)
    done = api.repair(str(run))
    assert done.lost == lost != []
    assert not done.removed
    assert tree(run) == damaged
    pool.write_bytes(payload)
    assert api.repair(str(run)).todo
    build(project.settings(), run)
    assert api.repair(str(run)).whole
    assert tree(run) == whole


def test_gc_and_repair_work_on_a_bucket(images: Project, images_run: Path, bucket: str) -> None:
    uri, name = f"{bucket}/some/run", bucket.removeprefix("s3://")
    store = open_store(uri)
    copy(open_store(str(images_run)), store)
    store.put("media/00/" + "0" * 64 + ".jpg", b"unnamed")
    assert {heap.kept for heap in api.gc(uri)} == {"too young"}
    client = boto3.client("s3")
    target = {"Bucket": name, "Key": "some/run/shard/big file.tar"}
    upload = client.create_multipart_upload(**target)["UploadId"]
    client.upload_part(**target, UploadId=upload, PartNumber=1, Body=b"x" * 100)
    elsewhere = client.create_multipart_upload(Bucket=name, Key="other/run.tar")["UploadId"]
    before = tree(uri)
    told = api.gc(uri, older_than=NOW, dry_run=True)
    assert [(h.what, h.objects, h.bytes) for h in told] == [
        ("media that no part names", 1, 7),
        ("unfinished writes", 1, 100),
    ]
    assert tree(uri) == before
    assert api.gc(uri, older_than=NOW) == told
    left = client.list_multipart_uploads(Bucket=name)["Uploads"]
    assert [item["UploadId"] for item in left] == [elsewhere]
    assert tree(uri) == tree(images_run)

    shard = read_manifest(store).shards[0]
    gone = next(m.sha256 for row in shipped(uri) for m in row.members if m.name.endswith(".loser.jpg"))
    store.delete(f"media/{gone[:2]}/{gone}.jpg")
    store.delete(shard.index)
    store.replace(shard.tar, store.get(shard.tar)[:5000])
    done = api.repair(uri)
    if not done.whole:  # the medium was in that shard alone
        build(images.settings(), uri)
        assert api.repair(uri).whole
    assert tree(uri) == tree(images_run)
    assert api.verify(uri).pairs == len(shipped(uri))


def copy(source: Store, target: Store) -> None:
    for entry in source.list(""):
        target.put(entry.key, source.get(entry.key))
