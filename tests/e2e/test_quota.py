"""A category takes as many prompts as its quota of kept pairs needs, whatever the profile expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import api
from pipeline.stages import lanes
from pipeline.stages.quota import first_buckets, opening_buckets
from pipeline.storage import open_store
from tests.e2e.here import assert_whole, build
from tests.e2e.world import Project

QUOTA = 150
PAIRS = 6
"""Pairs of one prompt, which is a bucket."""

CATEGORY = f"""\
name = "composition"
title = "Quota"
modality = "image"
size = {{ width = 64, height = 64 }}
quota = {QUOTA}
rubric = {{ question = "?", criteria = ["none"] }}
policy = {{ kind = "majority", votes = 1, calibration = 16 }}

[embedded]
generators = ["null/quick"]
judges = ["null/quick"]
recipes = [{{ kind = "across_seeds", generations = 4 }}]
"""

PROFILE = """\
cast = "embedded"
runner = "local"
workers = 1
bucket_size = 1
overlap = {overlap}
expected_kept = {expected}
"""


@pytest.mark.slow
@pytest.mark.parametrize("overlap", ["true", "false"])
@pytest.mark.parametrize("expected", [0.1, 1.0])
def test_a_build_takes_what_its_quota_needs(expected: float, overlap: str, tmp_path: Path) -> None:
    """Many fewer pairs are expected to be kept than are, or more."""
    profile = PROFILE.format(overlap=overlap, expected=expected)
    project = Project.write(tmp_path / "project", CATEGORY, profile=profile)
    settings, run = project.settings(), tmp_path / "run"
    build(settings, run)
    (category,) = settings.categories
    made = lanes(category, settings, buckets=1).agree
    reached = sum(1 for _ in open_store(str(run)).list(made.folder))
    planned = first_buckets(category, settings)
    assert opening_buckets(category, settings) < reached
    assert reached < planned if expected < 0.5 else reached > planned
    assert QUOTA <= api.verify(str(run)).pairs < QUOTA + 6 * PAIRS
    assert_whole(run, project)
