"""Whole builds with rows of the tables that are models: tiny weights in the places of the real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import api, media
from pipeline.generators.table import GENERATORS
from pipeline.judges.table import JUDGES
from pipeline.records import Agreement, Generation, Pair, Verdict
from pipeline.storage import open_store
from tests.e2e.here import build
from tests.e2e.test_panel import rows
from tests.e2e.vllm import ARGUMENTS, small, vllm_python
from tests.e2e.world import Project, built, shipped, vipo
from tests.weights import stand_ins, vlm

__all__ = ["vllm_python"]  # a fixture

PROFILE = """\
cast = "models"
runner = "local"
workers = 1
device = "cpu"
weights = "{weights}"
pins = "pins.toml"
bucket_size = 2
expected_kept = 0.5
licence_profile = "research"
"""

IMAGES = """\
name = "composition"
title = "Models, tiny"
modality = "image"
size = { width = 1024, height = 1024 }
quota = 3
rubric = { question = "Which image is composed better?", criteria = ["Nothing is cut off."] }
policy = { kind = "majority", votes = 1 }

[models]
generators = ["FLUX.1-schnell", "Qwen-Image", "HiDream-I1-Fast"]
judges = ["quality-pixels", "quality-information"]

[[models.recipes]]
kind = "across_models"
generations = 3
share = 0.6

[[models.recipes]]
kind = "degraded"
losers = ["degrade/blur", "degrade/noise"]
share = 0.4
"""

VIDEOS = """\
name = "motion_quality"
title = "Video models, tiny"
modality = "video"
size = { width = 1280, height = 704, frames = 9, fps = 24 }
quota = 1
rubric = { question = "Which video moves better?", criteria = ["No jumps."] }
policy = { kind = "majority", votes = 1 }

[models]
generators = ["Wan2.2-TI2V-5B/image", "LTX-Video/image"]
judges = ["motion-cadence", "motion-flow"]

[[models.recipes]]
kind = "shared_first_frame"
first_frames = ["Z-Image-Turbo"]
generations = 2
"""

ROWS = (
    *("FLUX.1-schnell", "Qwen-Image", "HiDream-I1-Fast"),
    *("Z-Image-Turbo", "Wan2.2-TI2V-5B/image", "LTX-Video/image"),
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose profile names a folder of tiny weights, pinned by the command line."""
    folder = tmp_path_factory.mktemp("models")
    weights = folder / "weights"
    stand_ins(weights, [GENERATORS[name] for name in ROWS])
    project = Project.write(folder / "project", IMAGES, VIDEOS, profile=PROFILE.format(weights=weights))
    settings = ["--profile", str(project.profile), "--categories", str(project.categories)]
    refused = vipo(*project.build(folder / "run"))
    assert refused.process.returncode == 1
    assert refused.errors.count("\n") == 1
    assert "not pinned: run `vipo weights pin`" in refused.errors
    built(vipo("weights", "pin", *settings))
    return project


@pytest.fixture
def one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights make nothing of more steps and frames, and a core takes seconds for each."""
    for name, row in GENERATORS.items():
        if row.family == "diffusion":
            short = replace(row, frames=row.frames and 9, options={**row.options, "steps": 1})
            monkeypatch.setitem(GENERATORS, name, short)


@pytest.mark.slow
@pytest.mark.usefixtures("one_step")
def test_flux_qwen_and_hidream_make_shards_of_real_size(project: Project, tmp_path: Path) -> None:
    run = tmp_path / "run"
    build(project.settings(categories=["composition"]), run)
    made: list[Generation] = rows(Generation, run, "generate")
    assert {row.generator for row in made} >= {"FLUX.1-schnell", "Qwen-Image", "HiDream-I1-Fast"}
    assert {row.status for row in made} == {"ok"}, [row.reason for row in made]
    assert {(row.width, row.height) for row in made} == {(1024, 1024)}
    degraded = {row.source_id for row in made if row.generator.startswith("degrade/")}
    assert degraded
    assert degraded <= {row.id for row in made}
    assert shipped(run)
    assert api.verify(str(run)).pairs == len(shipped(run))


JUDGED = """\
name = "composition"
title = "Judged by a model"
modality = "image"
size = { width = 128, height = 96 }
quota = 2
rubric = { question = "Which image is brighter?", criteria = ["It is nearer to white."] }
policy = { kind = "unanimous", votes = 1, early_exit = true }

[models]
generators = ["scene/steady", "scene/gaudy", "scene/literal"]
judges = ["Qwen3-VL-8B"]

[[models.recipes]]
kind = "across_models"
generations = 3
"""


@pytest.mark.slow
def test_a_judge_that_vllm_serves_labels_a_build(
    vllm_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = JUDGES["Qwen3-VL-8B"]
    assert row.weights
    vlm.build(tmp_path / "weights" / row.weights.repo)
    monkeypatch.setitem(JUDGES, row.name, replace(row, server=ARGUMENTS))
    profile = PROFILE.format(weights=tmp_path / "weights") + f'vllm = "{vllm_python}"\n'
    profile = profile.replace("expected_kept = 0.5", "expected_kept = 0.1")  # one round: one server
    project = Project.write(tmp_path / "project", JUDGED, profile=profile)
    built(vipo("weights", "pin", "--profile", str(project.profile), "--categories", str(project.categories)))
    with small():
        build(project.settings(), tmp_path / "run")
    verdicts: list[Verdict] = rows(Verdict, tmp_path / "run", "judge")
    assert {verdict.choice for verdict in verdicts} <= {"first", "second", "tie"}
    assert len({verdict.p_first for verdict in verdicts}) > 2
    light = {
        row.id: brightness(tmp_path / "run", row) for row in rows(Generation, tmp_path / "run", "generate")
    }
    kept = [row for row in rows(Agreement, tmp_path / "run", "agree") if row.kept]
    assert len(kept) >= 2
    assert all(light[str(row.winner_id)] > light[str(row.loser_id)] for row in kept)


def brightness(run: Path, row: Generation) -> float:
    data = open_store(str(run)).get(media.key(str(row.media_sha256), row.mime))
    return float(media.decode(data, row.mime).mean())


@pytest.mark.slow
@pytest.mark.usefixtures("one_step")
def test_videos_that_share_a_first_frame_make_shards(project: Project, tmp_path: Path) -> None:
    run = tmp_path / "run"
    build(project.settings(categories=["motion_quality"]), run)
    made: dict[str, Generation] = {row.id: row for row in rows(Generation, run, "generate")}
    assert {row.status for row in made.values()} == {"ok"}, [row.reason for row in made.values()]
    videos = [row for row in made.values() if row.fps]
    assert {(row.width, row.height, row.frames, row.fps) for row in videos} == {(1280, 704, 9, 24)}
    assert {made[str(row.source_id)].mime for row in videos} == {"image/jpeg"}
    for pair in rows(Pair, run, "pair"):
        assert made[pair.first_id].source_id == made[pair.second_id].source_id
        assert made[pair.first_id].generator != made[pair.second_id].generator
