"""Every row of the tables is one that its adapter takes, and the categories' casts are fit to ship."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline import api
from pipeline.config import Settings, Size, data_root
from pipeline.generators.base import GeneratorSpec, Request
from pipeline.generators.degrade import KINDS
from pipeline.generators.diffusion.options import read
from pipeline.generators.remote import DIALECTS
from pipeline.generators.remote.notes import price
from pipeline.generators.table import GENERATORS, make_generator
from pipeline.judges.asking import Asking
from pipeline.judges.base import Hosting, JudgeSpec
from pipeline.judges.table import JUDGES, make_judge
from pipeline.records import Checks, Prompt
from pipeline.stages.check import check
from pipeline.weights import Weights, read_pins, repositories

PINS = data_root() / "infra/weights.toml"
CATEGORIES = sorted(path.stem for path in (data_root() / "categories").glob("*.toml"))
ASKED = {
    "image": Size(width=1024, height=1024),
    "video": Size(width=1280, height=720, frames=81, fps=16),
}


def rows(*families: str) -> list[GeneratorSpec]:
    return [row for row in GENERATORS.values() if row.family in families]


def names(found: list[GeneratorSpec]) -> list[str]:
    return [row.name for row in found]


def models() -> list[GeneratorSpec | JudgeSpec]:
    every: list[GeneratorSpec | JudgeSpec] = [*GENERATORS.values(), *JUDGES.values()]
    return [row for row in every if row.weights]


def request_for(row: GeneratorSpec) -> Request:
    prompt = Prompt(
        id="p",
        root_id="p",
        category="c",
        bucket=0,
        text="a red car",
        subject="car",
        style="photo",
        checks=Checks(),
        source="grown",
        licence="Apache-2.0",
    )
    first = np.zeros((1, 720, 1280, 3), np.uint8) if row.starts_from == "image" else None
    return Request(id="g", prompt=prompt, seed=1, size=row.size(ASKED[row.modality]), source=first)


@pytest.mark.parametrize("name", names(rows("diffusion")))
def test_a_model_of_diffusers_takes_its_row(name: str) -> None:
    row = GENERATORS[name]
    family = read(row).family
    asked = family.arguments([request_for(row)])
    if row.modality == "image":
        assert asked == {"height": 1024, "width": 1024}
    else:
        assert (asked["width"], asked["num_frames"]) == (1280, row.frames)
        assert asked["height"] >= 704
    assert ("image" in asked) == (row.starts_from == "image")
    assert row.batch == 1 or family.batchable


@pytest.mark.parametrize("name", names(rows("degrade")))
def test_a_degrading_row_names_what_can_be_done_to_its_modality(name: str) -> None:
    row = GENERATORS[name]
    source = np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), np.uint8)
    frames = source if row.modality == "video" else source[:1]
    worse = KINDS[str(row.options["kind"])](np.random.default_rng(1), frames, 1.0)
    assert worse.shape == frames.shape
    assert row.starts_from == "own"
    assert 0 < float(row.options["weakest"]) <= float(row.options["strongest"]) <= 1


@pytest.mark.parametrize("name", names(rows("remote")))
def test_a_service_takes_its_row_and_its_price_is_known(name: str) -> None:
    row = GENERATORS[name]
    _, order = DIALECTS[str(row.options["service"])]().order(row, request_for(row))
    assert order
    assert price(row) > 0
    assert row.licence_profile == "research"


@pytest.mark.parametrize("name", names([row for row in GENERATORS.values() if row.family != "scene"]))
def test_a_row_has_an_adapter(name: str) -> None:
    assert make_generator(GENERATORS[name])


@pytest.mark.parametrize("name", [row.name for row in JUDGES.values() if row.family == "vlm"])
def test_a_model_judge_takes_its_row(name: str) -> None:
    row = JUDGES[name]
    asking = Asking.of(row)
    assert asking.ask == (name.partition("/")[2] or "choice")
    assert make_judge(row, Hosting())
    assert make_judge(row, Hosting(urls=("http://127.0.0.1:1/v1",)))
    assert "--trust-remote-code" not in row.server
    shown = [value for value in row.server if value.startswith("{")]
    assert [f'"image": {2 * asking.frames}' in value for value in shown] == [True]


@pytest.mark.parametrize(
    ("row", "make"),
    [
        (replace(GENERATORS["SDXL"], family="gan"), make_generator),
        (replace(JUDGES["Qwen3-VL-8B"], family="oracle"), lambda row: make_judge(row, Hosting())),
    ],
)
def test_a_family_without_adapter_is_named(row: Any, make: Callable[[Any], object]) -> None:
    with pytest.raises(ValueError, match=f"{row.name}: no adapter for the family"):
        make(row)


def test_names_are_fit_for_folders() -> None:
    for name in (*GENERATORS, *JUDGES):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*(/[A-Za-z0-9.-]+)?", name)


def test_one_repository_is_described_alike_wherever_it_is_named() -> None:
    seen: dict[str, Weights] = {}
    for row in models():
        assert row.weights
        for lies in filter(None, (row.weights, row.weights.borrowed)):
            assert seen.setdefault(lies.repo, lies) == lies
            assert re.fullmatch(r"[\w.-]+/[\w.-]+", lies.repo)
            assert lies.disk > 0
            assert lies.memory > 0
            assert lies.revision is lies.root is None


def test_only_free_licences_may_ship_by_default() -> None:
    free = {row.licence for row in GENERATORS.values() if row.licence_profile == "permissive"}
    assert {licence.partition(",")[0] for licence in free} == {"Apache-2.0", "MIT"}


def test_a_model_that_a_server_splits_gets_whole_gpus() -> None:
    for row in models():
        assert row.gpus == int(row.gpus) > 0


def test_what_is_pinned_is_in_the_tables_and_says_where_it_was_read() -> None:
    known = set(repositories(row.weights for row in models()))
    assert {pin.repo for pin in read_pins(PINS)} <= known
    assert all(entry["source"] for entry in tomllib.loads(PINS.read_text())["pin"])


@pytest.fixture(scope="module")
def cluster() -> Settings:
    return api.load("cluster")


def test_the_casts_of_models_fit_the_tables_and_can_meet_their_quotas(cluster: Settings) -> None:
    check(cluster)
    for planned, category in zip(api.plan(cluster).categories, cluster.categories, strict=True):
        assert planned.kept >= category.quota, f"{category.name}: too few prompts for its quota"


@pytest.mark.parametrize("name", CATEGORIES)
def test_a_cast_of_models_can_be_built_as_it_stands(cluster: Settings, name: str) -> None:
    (category,) = (category for category in cluster.categories if category.name == name)
    cast = cluster.cast(category)
    pins = {pin.repo for pin in cluster.pins}
    used = {*cast.generators, *(n for r in cast.recipes for n in (*r.losers, *r.first_frames))}
    for lies in (
        *(GENERATORS[item].weights for item in used),
        *(JUDGES[item].weights for item in cast.judges),
    ):
        assert set(repositories([lies])) <= pins
        assert lies is None or not lies.gated
    assert {GENERATORS[item].licence_profile for item in used} == {"permissive"}
    families = {re.split(r"[0-9-]", judge)[0] for judge in cast.judges}
    assert len(families) == len(cast.judges) == 3
    assert cluster.policy(category).early_exit
    size = cluster.size(category)
    assert category.modality == "image" or (size.frames, size.fps) == (81, 16)
