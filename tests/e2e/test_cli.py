"""The command line: what it says and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import api
from tests.e2e.world import IMAGES, VIDEOS, Command, Fault, Project, parts, vipo

pytestmark = pytest.mark.slow


def assert_refused(command: Command, run: Path, *said: str) -> None:
    """One line, no traceback, exit status 1, and nothing was begun."""
    assert command.process.returncode == 1
    (line,) = command.errors.splitlines()
    assert line.startswith("vipo: ")
    for each in said:
        assert each in line
    assert not run.exists()


MISTAKES = {
    "misspelt key": (("quota = 12", "quotta = 12"), ("alignment.toml", "'quotta'", "did you mean 'quota'?")),
    "misspelt nested key": (
        ("votes = 1", "vote = 1"),
        ("alignment.toml", "'policy.vote'", "did you mean 'votes'?"),
    ),
    "no TOML": (("[rubric]", "[rubric"), ("alignment.toml", "cannot be read as TOML")),
    "unknown judge": (
        ('"objects-pieces"', '"objects-peices"'),
        ("alignment.toml", "judges", "'objects-pieces'?"),
    ),
    "unknown generator": (
        ('"scene/hasty"', '"scene/hast"'),
        ("alignment.toml", "generators", "'scene/hasty'?"),
    ),
    "video judge": (
        ('"objects-pieces"', '"motion-flow"'),
        ("alignment.toml", "'motion-flow', which is for videos"),
    ),
    "video generator": (('"scene/hasty"', '"scene/hasty-video"'), ("alignment.toml", "which is for videos")),
    "impossible quota": (
        ("quota = 12", "quota = 999_999_999"),
        ("alignment.toml", "quota = 999,999,999 cannot be met"),
    ),
    "no quota": (("quota = 12", "quota = 0"), ("alignment.toml", "quota must be above 0")),
    "other name": (
        ('name = "alignment"', 'name = "portrait"'),
        ("alignment.toml", "must equal the file's name"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_category_is_refused_in_a_line(mistake: str, tmp_path: Path) -> None:
    (old, new), said = MISTAKES[mistake]
    project = Project.write(tmp_path / "project", IMAGES)
    path = project.categories / "alignment.toml"
    assert old in IMAGES
    path.write_text(IMAGES.replace(old, new, 1))
    run = tmp_path / "run"
    assert_refused(vipo(*project.build(run)), run, *said)


def test_an_image_judge_in_a_video_category_is_refused(tmp_path: Path) -> None:
    text = VIDEOS.replace('"motion-cadence"', '"objects-pieces"')
    run = tmp_path / "run"
    command = vipo(*Project.write(tmp_path / "project", text).build(run))
    assert_refused(command, run, "motion_quality.toml", "judges names 'objects-pieces', which is for images")


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--category", "alinement", "did you mean 'alignment'?"),
        ("--modality", "video", "no video category"),
        ("--profile", "labtop", "did you mean 'laptop'?"),
        ("--run", "gs://bucket/run", "gs:// is not a known kind of store"),
        ("--quota", "999999999", "cannot be met"),
    ],
)
def test_a_mistake_on_the_command_line_is_refused_in_a_line(
    option: str, value: str, said: str, images: Project, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert_refused(vipo(*images.build(run, option, value)), run, said)


def test_a_misspelt_key_in_a_profile_is_refused(tmp_path: Path) -> None:
    project = Project.write(tmp_path / "project", IMAGES)
    project.profile.write_text(project.profile.read_text().replace("attempts", "atempts"))
    run = tmp_path / "run"
    assert_refused(vipo(*project.build(run)), run, "small.toml", "'atempts'", "did you mean 'attempts'?")


@pytest.mark.skipif(bool(list(Path("/dev").glob("nvidia[0-9]*"))), reason="this machine has a GPU")
def test_a_profile_for_gpus_is_refused_without_them(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = vipo("build", "--profile", "cluster", "--modality", "image", "--run", str(run))
    assert_refused(command, run, "needs 1 GPU", "this machine has 0", "RAY_ADDRESS", "make demo")


@pytest.mark.parametrize("name", ["status", "verify", "report"])
def test_a_command_on_no_run_is_refused(name: str, tmp_path: Path) -> None:
    run = tmp_path / "no-run"
    assert_refused(vipo(name, "--run", str(run)), run, str(run), "run build")


def test_a_build_ends_with_a_table_and_the_path_of_the_report(images: Project, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = vipo(*images.build(run))
    assert first.process.returncode == 0, first.errors
    assert first.output.splitlines()[-1] == f"report: {run}/report.html"
    assert (run / "report.html").is_file()
    stages = [line.partition(":")[0] for line in first.errors.splitlines()]
    asked = ("prompts", "generate", "pair", "gold", "calibrate", "judge", "agree", "shard")
    assert stages == [stage for stage in asked for _ in "ab"]

    again = vipo(*images.build(run))
    assert again.process.returncode == 0
    assert [
        line for line in again.errors.splitlines() if "units to do" in line and ": 0 units" not in line
    ] == []

    for name, said in (
        ("verify", "verified: "),
        ("status", "Finished"),
        ("report", f"report: {run}/report.html"),
    ):
        done = vipo(name, "--run", str(run))
        assert (done.process.returncode, done.errors) == (0, "")
        assert said in done.output


def test_verify_names_the_first_bad_file(images: Project, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert vipo(*images.build(run)).process.returncode == 0
    tar = sorted(run.glob("shard/*/*/*.tar"))[1]
    data = bytearray(tar.read_bytes())
    data[1000] ^= 1
    tar.write_bytes(data)
    done = vipo("verify", "--run", str(run))
    assert done.process.returncode == 1
    (line,) = done.errors.splitlines()
    assert str(tar.relative_to(run)) in line
    assert done.output.startswith("good: ")


def test_a_quota_beyond_the_pool_of_the_user_ends_with_what_there_is(tmp_path: Path) -> None:
    import hashlib

    payload = b'{"text": "two fish", "checks": {"objects": [{"name": "fish", "count": 2, "colour": null}]}}\n'
    (tmp_path / "pool.jsonl").write_bytes(payload)
    pool = f'[pool]\nuri = "{tmp_path}/pool.jsonl"\nsha256 = "{hashlib.sha256(payload).hexdigest()}"\n'
    text = IMAGES.replace("[rubric]", f'{pool}licence = "CC0-1.0"\n\n[rubric]')
    run = tmp_path / "run"
    done = vipo(*Project.write(tmp_path / "project", text).build(run))
    assert done.process.returncode == 1
    assert done.errors.splitlines()[-1].startswith("vipo: alignment is ")
    assert "lower the quota, or give it a larger pool" in done.errors
    assert (run / "manifest.json").is_file()


def test_status_in_the_middle_of_a_build_counts_the_parts_on_disk(images: Project, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fault = Fault(folder=tmp_path / "fault", act="hold", prefix="judge/", nth=3)
    command = Command(*images.build(run), environment=fault.environment())
    try:
        fault.held()
        seen = api.status(str(run))
        assert not seen.finished
        assert {stage.name: stage.done for stage in seen.stages} == {
            stage.name: len(parts(run, stage.name)) for stage in seen.stages
        }
        assert next(stage for stage in seen.stages if stage.name == "judge").done == 2
        said = vipo("status", "--run", str(run))
        assert said.process.returncode == 0
        assert "Unfinished" in said.output
        assert f"2/{next(stage.total for stage in seen.stages if stage.name == 'judge')}" in said.output
    finally:
        fault.release()
        assert command.end() == 0


def test_a_plan_is_shown_before_anything_is_made(images: Project, tmp_path: Path) -> None:
    arguments = images.build(tmp_path / "run")[1:]
    done = vipo("plan", *arguments[: arguments.index("--run")])
    assert done.process.returncode == 0, done.errors
    assert "alignment" in done.output
    assert not (tmp_path / "run").exists()
