"""``plan`` before a build: it counts what recipes ask for, prices what has a price, believes a pilot."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import api
from pipeline.config import Accelerator, Price, Settings
from pipeline.errors import ConfigError
from pipeline.generators.table import GENERATORS
from pipeline.judges.table import JUDGES
from pipeline.records import Agreement, Generation, Record
from pipeline.runners.pilot import Labelled, Measure, Pilot, clustered
from pipeline.runners.plan import Plan, plan
from pipeline.runners.progress import Speed
from pipeline.runners.rates import read_rates
from pipeline.stages import read_part
from pipeline.storage import open_store
from tests.e2e.world import Project, parts, vipo

R = TypeVar("R", bound=Record)


@pytest.fixture
def settings(images: Project) -> Settings:
    return images.settings()


@pytest.fixture(scope="module")
def cluster() -> Settings:
    return api.load("cluster")


def pilot(settings: Settings, kept: float, speeds: Mapping[str, Speed] | None = None) -> Pilot:
    """Return what a run of the first category would have measured."""
    category = settings.categories[0]
    share = Measure(value=kept, low=kept * 0.9, high=kept * 1.1, count=5_000)
    asked = {name: 1 / 2**place for place, name in enumerate(settings.cast(category).judges)}
    labelled = {category.name: Labelled(kept=share, asked=asked)}
    return Pilot(settings=settings, speeds=speeds or {}, labelled=labelled)


def test_it_counts_what_the_recipes_ask_for(settings: Settings) -> None:
    made = api.plan(settings)
    (planned,) = made.categories
    # 0.6 of the prompts give 3 generations and 3 pairs, 0.3 give 2 and 1, 0.1 give 2 and a gold pair.
    assert planned.quota == planned.kept == 12
    assert planned.prompts == 12  # 12 / (2.1 pairs x 0.5 kept) = 11.4, in buckets of 2
    assert planned.generations == round(planned.prompts * (0.6 * 3 + 0.3 * 2 + 0.1 * 2))
    assert planned.pairs == round(planned.prompts * (0.6 * 3 + 0.3 + 0.1))
    assert planned.answers == pytest.approx(planned.prompts * 2.2 * 2 * 2, abs=1)
    asked = sum(work.items for work in made.work if work.stage == "judge")
    rendered = sum(work.items for work in made.work if work.stage == "generate")
    assert asked == pytest.approx(planned.answers, abs=2)
    assert rendered == pytest.approx(planned.generations, abs=5)
    assert made.storage_bytes == planned.bytes + planned.shard_bytes + planned.part_bytes


def test_every_row_says_where_its_speed_is_from_and_on_what_it_runs(cluster: Settings) -> None:
    made = api.plan(cluster)
    rates = read_rates()
    for work in made.work:
        row = GENERATORS.get(work.model) or JUDGES[work.model]
        cited = rates.cited(work.model)
        assert work.gpu == (None if not row.gpus else cited.gpu if cited else "H200")
        assert work.each.origin == ("cited" if cited and row.gpus else "table")
        assert work.each.value == (cited.each if cited and row.gpus else row.seconds)
        assert work.each.source
        assert work.hours == pytest.approx(work.items * work.each.value / 3600, rel=0.01, abs=0.01)
    assert made.gpu_hours["H200"] == pytest.approx(sum(w.hours for w in made.work if w.gpu == "H200"))


def test_rates_name_models_that_there_are_each_once_with_a_source() -> None:
    rates = read_rates()
    names = [cited.model for cited in rates.seconds]
    assert set(names) <= GENERATORS.keys() | JUDGES.keys()
    assert len(names) == len(set(names))
    assert all(cited.each > 0 and cited.source for cited in rates.seconds)
    assert {found.modality for found in rates.bytes} == {"image", "video"}


def test_without_a_price_there_are_hours_and_no_dollars(cluster: Settings) -> None:
    made = api.plan(cluster)
    assert made.dollars is made.storage_dollars is None
    assert made.unpriced == ("H200", "core")
    assert {work.dollars for work in made.work} == {None}
    assert all(bill.dollars is None and bill.hours for bill in made.top)


def test_prices_of_the_call_go_before_those_of_the_profile(cluster: Settings) -> None:
    priced = (Price(item="GPU", dollars=2.0), Price(item="TB", dollars=20.0))
    profile = replace(cluster, profile=replace(cluster.profile, prices=priced))
    hours = sum(api.plan(cluster).gpu_hours.values())
    assert api.plan(profile).dollars == pytest.approx(2 * hours)
    made = api.plan(profile, prices={"H200": 3.0, "core": 0.0})
    assert made.dollars == pytest.approx(3 * hours)
    assert made.unpriced == ()
    assert made.storage_dollars == pytest.approx(20 * made.storage_bytes / 1e12)


def test_a_type_of_gpu_that_the_profile_names_is_the_one_to_pay(cluster: Settings) -> None:
    placed = (Accelerator(type="L40S", models=("judges",)),)
    made = api.plan(replace(cluster, profile=replace(cluster.profile, accelerators=placed)))
    assert {work.gpu for work in made.work if work.stage == "judge"} <= {"L40S", None}
    assert {work.gpu for work in made.work if work.stage == "generate"} <= {"H200", None}


def test_an_item_that_is_bought_costs_its_price(cluster: Settings) -> None:
    (video,) = (each for each in cluster.categories if each.name == "video_alignment")
    assert video.models is not None
    recipes = (replace(video.models.recipes[0], kind="across_models", generations=2, share=1.0),)
    cast = replace(video.models, generators=("veo-3", "Wan2.1-T2V-1.3B"), recipes=recipes)
    bought = replace(cluster, categories=(replace(video, models=cast),))
    (veo,) = (work for work in api.plan(bought).work if work.model == "veo-3")
    assert veo.dollars == pytest.approx(veo.items * GENERATORS["veo-3"].dollars, rel=1e-4)
    (cheap,) = (work for work in api.plan(bought, prices={"veo-3": 0.5}).work if work.model == "veo-3")
    assert cheap.dollars == pytest.approx(veo.items * 0.5, rel=1e-4)


def test_what_counts_most_comes_first_and_says_its_share(cluster: Settings) -> None:
    made = api.plan(cluster, prices={"GPU": 2.0, "TB": 20.0})
    shares = [bill.share for bill in made.top]
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1
    assert "Wan2" in made.top[0].name


def test_more_gpus_take_less_time(cluster: Settings, settings: Settings) -> None:
    assert list(api.plan(cluster).walls) == [8, 64, 512]
    ((count, seconds),) = api.plan(cluster, gpus=100).walls.items()
    assert count == 100
    assert seconds == pytest.approx(sum(api.plan(cluster).gpu_hours.values()) * 36)
    four = replace(settings, profile=replace(settings.profile, workers=4))
    (one,), (quarter,) = api.plan(settings).walls.values(), api.plan(four).walls.values()
    assert quarter == pytest.approx(one / 4)


def test_a_pool_too_small_for_the_quota_says_how_many_pairs_are_missing(cluster: Settings) -> None:
    scarce = replace(cluster, profile=replace(cluster.profile, expected_kept=0.01))
    for planned in api.plan(scarce).categories:
        assert planned.prompts == planned.capacity
        assert 0 < planned.kept == planned.quota - planned.missing
        assert planned.missing > 0
    assert all(planned.missing == 0 for planned in api.plan(cluster).categories)


def test_a_pilot_replaces_what_was_assumed(cluster: Settings) -> None:
    few = replace(cluster, categories=cluster.categories[:1])
    name = few.categories[0].name
    assumed, measured = plan(few), plan(few, pilot(few, kept=0.7))
    (before,), (after,) = assumed.categories, measured.categories
    assert before.kept_share.origin == "profile"
    assert (after.kept_share.origin, after.kept_share.value) == ("pilot", 0.7)
    assert after.prompts == pytest.approx(before.prompts / 2, rel=0.01)
    assert measured.least == pytest.approx(1 / 1.1)
    assert measured.most == pytest.approx(1 / 0.9)
    first, second, third = (work.items for work in measured.work if work.stage == "judge")
    assert first > 1.8 * second > 1.8 * third  # each is asked about half of the pairs of the one before
    speeds = {f"generate/{name}.Qwen-Image": Speed(units=1, rows=10, seconds=90.0)}
    (work,) = (w for w in plan(few, pilot(few, 0.7, speeds)).work if w.model == "Qwen-Image")
    assert (work.each.origin, work.each.value) == ("pilot", 9.0)


def test_a_pilot_judges_about_as_many_pairs_as_asked_for(cluster: Settings) -> None:
    limited = api.load("cluster", limit=20_000)
    made, whole = api.plan(limited).categories, api.plan(cluster).categories
    assert 20_000 <= sum(each.pairs for each in made) <= 20_000 * 1.2  # whole buckets, and gold pairs
    assert [each.name for each in made] == [each.name for each in whole]
    shares = [each.quota / full.quota for each, full in zip(made, whole, strict=True)]
    assert shares == pytest.approx([20_000 * 0.35 / 1_300_000] * len(shares), rel=0.01)
    with pytest.raises(ConfigError, match="limit = 0 must be above 0"):
        api.load("cluster", limit=0)


def test_a_pilot_by_another_panel_says_nothing_of_the_share_kept(cluster: Settings) -> None:
    few = replace(cluster, categories=cluster.categories[:1])
    (category,) = few.categories
    assert category.models is not None
    panel = replace(category, models=replace(category.models, judges=category.models.judges[::-1]))
    other = replace(few, categories=(panel,))
    assert plan(few, pilot(other, kept=0.7)).categories[0].kept_share.origin == "profile"


def test_a_wrong_price_or_number_is_refused(settings: Settings) -> None:
    with pytest.raises(ConfigError, match="price H100 = -1 must be 0 or more"):
        api.plan(settings, prices={"H100": -1.0})
    with pytest.raises(ConfigError, match="gpus = 0 must be 1 or more"):
        api.plan(settings, gpus=0)


CLUSTERS = st.lists(
    st.integers(1, 12).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))), min_size=1
)


@given(CLUSTERS)
def test_an_interval_holds_its_share(clusters: list[tuple[int, int]]) -> None:
    found = clustered(clusters)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.count == sum(count for _, count in clusters)


def test_pairs_that_hang_together_tell_less_than_as_many_that_do_not() -> None:
    alone = clustered([(1, 1), (0, 1)] * 500)
    together = clustered([(10, 10), (0, 10)] * 50)
    assert alone.value == together.value == 0.5
    assert together.high - together.low > 2.5 * (alone.high - alone.low)


@pytest.mark.slow
def test_what_a_run_has_measured_is_what_its_records_say(settings: Settings, images_run: Path) -> None:
    made = api.plan(settings, str(images_run))
    assert made.measured
    store = open_store(str(images_run))

    def rows(record: type[R], stage: str) -> Iterator[R]:
        for part in parts(images_run, stage):
            yield from read_part(record, str(part.relative_to(images_run)), store)

    labels = [row for row in rows(Agreement, "agree") if row.reason != "gold"]
    (planned,) = made.categories
    share = planned.kept_share
    assert share.value == pytest.approx(sum(row.kept for row in labels) / len(labels))
    assert share.low is not None
    assert share.high is not None
    assert share.low < share.value < share.high
    assert {work.each.origin for work in made.work} == {"pilot"}
    weights = [row.bytes for row in rows(Generation, "generate") if row.status == "ok"]
    assert planned.bytes / planned.generations == pytest.approx(sum(weights) / len(weights), rel=0.3)


@pytest.mark.slow
def test_a_run_that_has_not_begun_has_measured_nothing(settings: Settings, tmp_path: Path) -> None:
    assert not api.plan(settings, str(tmp_path / "none")).measured
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_command_prints_tables_or_json() -> None:
    chosen = ("--profile", "cluster", "--category", "portrait")
    shown = vipo("plan", *chosen, "--price", "GPU=2", "--gpus", "64")
    for told in ("portrait", "Qwen-Image-2512", "H200-hours", "64 GPUs", "in dollars", "cited"):
        assert told in shown.output
    made = json.loads(vipo("plan", *chosen, "--json").output)
    assert made.keys() == {item.name for item in dataclasses.fields(Plan)}
    assert made["categories"][0]["name"] == "portrait"
    refused = vipo("plan", "--price", "H100")
    assert refused.process.returncode
    assert "such as H100=2.5" in refused.errors
