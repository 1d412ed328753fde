"""Recipes: which generations are made of a prompt, and which pairs they form."""

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Cast, Recipe, Size
from pipeline.generators.base import GeneratorSpec
from pipeline.ids import content_id
from pipeline.records import Checks, Modality, Prompt
from pipeline.stages.recipes import (
    KINDS,
    Family,
    Wanted,
    candidates,
    choose,
    expected_generations,
    expected_of_each,
    expected_pairs,
    expected_saved,
    generator_id,
    generators_of,
    matches,
    wanted,
)
from pipeline.weights import Weights

SIZE = Size(width=1280, height=720, frames=33, fps=16)


def spec(name: str, modality: Modality = "video", **settings: object) -> GeneratorSpec:
    made = GeneratorSpec(
        name=name, family="any", modality=modality, licence="CC0-1.0", licence_profile="permissive"
    )
    return replace(made, **settings)  # type: ignore[arg-type]


TEXT = ["text/a", "text/b", "text/c", "text/d", "text/e"]
IMAGE = ["image/a", "image/b", "image/c", "image/d"]
NAMES = [*TEXT, *IMAGE]
SPECS = {
    row.name: row
    for row in (
        *(spec(name) for name in (*TEXT, "flawless", "flawed")),
        *(spec(name, starts_from="image", multiple=32, frames=49, fps=24) for name in IMAGE),
        *(spec(name, "image") for name in ("frame/a", "frame/b")),
        *(spec(name, starts_from="own") for name in ("blur", "stutter")),
    )
}
RECIPES = {
    "across_models": Recipe(kind="across_models", generations=3),
    "across_seeds": Recipe(kind="across_seeds", generations=3),
    "perturbed_prompt": Recipe(kind="perturbed_prompt"),
    "degraded": Recipe(kind="degraded", losers=("blur", "stutter")),
    "shared_first_frame": Recipe(
        kind="shared_first_frame", generations=3, first_frames=("frame/a", "frame/b")
    ),
    "gold": Recipe(kind="gold", winner="flawless", loser="flawed"),
    "gold, degraded": Recipe(kind="gold", losers=("blur", "stutter")),
}


def prompt(text: str, root: str | None = None) -> Prompt:
    own = content_id("prompt", text=text)
    return Prompt(
        id=own, root_id=root or own, category="alignment", bucket=0, text=text, subject="s", style="y",
        checks=Checks(), source="test", licence="CC0-1.0",
    )  # fmt: skip


def family(number: int, perturbed: int = 1) -> Family:
    root = prompt(f"prompt {number}")
    changed = tuple(prompt(f"prompt {number} changed {i}", root.id) for i in range(perturbed))
    return Family(root=root, perturbed=changed)


def test_every_recipe_is_tested_here() -> None:
    assert {recipe.kind for recipe in RECIPES.values()} == KINDS.keys()


@pytest.mark.parametrize("name", RECIPES)
@given(number=st.integers())
def test_pairs_stay_inside_one_root_prompt_and_use_all_that_is_made(name: str, number: int) -> None:
    one = family(number)
    formed = matches(RECIPES[name], one, NAMES, SPECS)
    made = list(wanted(RECIPES[name], one, NAMES, SPECS))
    sides = {side for match in formed for side in (match.one, match.other)}
    sources = {side.source for side in sides if side.source}
    assert {item.prompt.root_id for item in made} == {one.root.id}
    assert all(match.one != match.other for match in formed)
    assert all(match.expected in (None, match.one, match.other) for match in formed)
    assert len(made) == len(set(made))
    assert set(made) == sides | sources


@pytest.mark.parametrize("name", RECIPES)
def test_a_source_comes_before_what_starts_from_it(name: str) -> None:
    made = list(wanted(RECIPES[name], family(1), NAMES, SPECS))
    for place, item in enumerate(made):
        assert item.source is None or item.source in made[:place]
        assert (item.source is not None) == (SPECS[item.generator].starts_from != "nothing")


@pytest.mark.parametrize("name", RECIPES)
def test_expected_counts_are_those_of_the_recipe(name: str) -> None:
    recipe = RECIPES[name]
    formed = matches(recipe, family(1), NAMES, SPECS)
    made = list(wanted(recipe, family(1), NAMES, SPECS))
    alone = [
        {item for side in (match.one, match.other) for item in (side, side.source) if item}
        for match in formed
    ]
    assert len(made) == expected_generations([recipe])
    assert (0 if recipe.kind == "gold" else len(formed)) == expected_pairs([recipe])
    assert sum(map(len, alone)) - len(made) == expected_saved([recipe])


def test_four_generations_give_six_pairs_and_save_eight_generations() -> None:
    recipe = Recipe(kind="across_models", generations=4)
    assert (expected_pairs([recipe]), expected_generations([recipe]), expected_saved([recipe])) == (6, 4, 8)


@pytest.mark.parametrize("name", RECIPES)
def test_each_generator_makes_its_expected_share(name: str) -> None:
    cast = Cast(generators=tuple(NAMES), judges=(), recipes=(RECIPES[name],))
    expected = expected_of_each(cast, SPECS)
    made = Counter(
        item.generator
        for number in range(500)
        for item in wanted(RECIPES[name], family(number), NAMES, SPECS)
    )
    assert expected.keys() == set(generators_of(cast))
    assert sum(expected.values()) == pytest.approx(expected_generations(cast.recipes))
    assert all(made[each] / 500 == pytest.approx(share, abs=0.1) for each, share in expected.items())


def test_generators_of_a_cast_are_its_own_and_those_of_its_recipes_each_once() -> None:
    cast = Cast(generators=("text/b", "flawed", "text/a"), judges=(), recipes=tuple(RECIPES.values()))
    others = ("blur", "flawless", "frame/a", "frame/b", "stutter")
    assert generators_of(cast) == ("text/b", "flawed", "text/a", *others)


def test_across_models_compares_different_generators_on_one_prompt() -> None:
    for match in matches(RECIPES["across_models"], family(1), NAMES, SPECS):
        assert match.one.generator != match.other.generator
        assert match.one.prompt == match.other.prompt


def test_across_seeds_compares_different_seeds_of_one_generator() -> None:
    formed = matches(RECIPES["across_seeds"], family(1), NAMES, SPECS)
    assert len({side.generator for match in formed for side in (match.one, match.other)}) == 1
    assert all(match.one.seed() != match.other.seed() for match in formed)


def test_perturbed_prompt_expects_the_original_to_win() -> None:
    one = family(1)
    (match,) = matches(RECIPES["perturbed_prompt"], one, NAMES, SPECS)
    assert match.expected is not None
    assert match.expected.prompt == one.root
    assert {match.one.generator} == {match.other.generator}


@pytest.mark.parametrize("name", ["degraded", "gold, degraded"])
def test_the_degraded_copy_of_a_generation_is_expected_to_lose_to_it(name: str) -> None:
    (match,) = matches(RECIPES[name], family(1), NAMES, SPECS)
    assert match.expected == match.one
    assert match.one.source is None
    assert match.one.generator in TEXT
    assert match.other.source == match.one
    assert match.other.generator in RECIPES[name].losers


def test_degraders_and_first_frames_take_turns() -> None:
    for name, options in (("degraded", {"blur", "stutter"}), ("shared_first_frame", {"frame/a", "frame/b"})):
        made = [item.generator for n in range(40) for item in wanted(RECIPES[name], family(n), NAMES, SPECS)]
        assert options <= set(made)


def test_videos_of_one_first_frame_share_it() -> None:
    formed = matches(RECIPES["shared_first_frame"], family(1), NAMES, SPECS)
    sides = {side for match in formed for side in (match.one, match.other)}
    assert len({side.source for side in sides}) == 1
    assert {side.generator for side in sides} < set(IMAGE)
    assert all(match.expected is None for match in formed)


def test_generators_that_need_a_source_are_picked_by_no_other_recipe() -> None:
    for name, recipe in RECIPES.items():
        picked = candidates(recipe, [*NAMES, "blur"], SPECS)
        assert picked == (IMAGE if name == "shared_first_frame" else TEXT)


def test_a_generator_more_changes_only_the_prompts_that_it_wins() -> None:
    recipe = Recipe(kind="across_models", generations=2)
    changed = 0
    for number in range(300):
        before = {item.generator for item in wanted(recipe, family(number), TEXT[:4], SPECS)}
        after = {item.generator for item in wanted(recipe, family(number), TEXT, SPECS)}
        changed += before != after
        assert after - before <= {TEXT[4]}
    assert 300 * 0.3 < changed < 300 * 0.5  # the newcomer is among the first 2 of 5 in 40 % of prompts


def test_generators_meet_each_other_equally_often() -> None:
    recipe = Recipe(kind="across_models", generations=2)
    met = Counter[frozenset[str]]()
    for number in range(2000):
        met[frozenset(item.generator for item in wanted(recipe, family(number), NAMES, SPECS))] += 1
    assert len(met) == len(list(combinations(TEXT, 2)))
    assert min(met.values()) > 140  # 200 each on average


def test_shares_are_kept_and_a_prompt_never_changes_its_recipe() -> None:
    recipes = [Recipe(kind="across_models", share=0.7), Recipe(kind="across_seeds", share=0.3)]
    taken = Counter(choose(recipes, family(number)) for number in range(2000))
    assert 0.66 < taken[recipes[0]] / 2000 < 0.74
    assert choose(recipes, family(5)) == choose(recipes, family(5))


def test_a_prompt_without_perturbed_ones_takes_another_recipe() -> None:
    recipes = [Recipe(kind="perturbed_prompt", share=0.9), Recipe(kind="across_models", share=0.1)]
    assert choose(recipes, family(1, perturbed=0)) == recipes[1]
    assert choose(recipes[:1], family(1, perturbed=0)) is None


def test_generation_ids_follow_the_recipe_not_the_pixels() -> None:
    def other(**changed: object) -> dict[str, GeneratorSpec]:
        return {**SPECS, one.generator: replace(SPECS[one.generator], **changed)}  # type: ignore[arg-type]

    one, two, _ = wanted(RECIPES["across_seeds"], family(1), NAMES, SPECS)
    ids = [
        one.generation_id(SPECS, SIZE),
        two.generation_id(SPECS, SIZE),
        one.generation_id(SPECS, replace(SIZE, width=640)),
        one.generation_id(other(frames=81), SIZE),
        one.generation_id(other(options={"steps": 4}), SIZE),
        one.generation_id(other(weights=Weights(repo="a/b", disk=1, memory=1)), SIZE),
        one.generation_id(other(weights=Weights(repo="a/b", disk=1, memory=1, revision="c0ffee")), SIZE),
    ]
    assert len(set(ids)) == len(ids)
    # What changes speed, price or place alone is no part of an id.
    assert ids[0] == one.generation_id(other(batch=8, gpus=2.0, seconds=9.0, dollars=0.1), SIZE)
    here, there = (Weights(repo="a/b", disk=1, memory=1, root=root) for root in (None, "s3://weights"))
    assert generator_id(spec("a", weights=here)) == generator_id(spec("a", weights=there))


def test_ids_of_runs_made_before_are_the_same_today() -> None:
    item = Wanted(prompt=prompt("pinned"), generator="text/a", sample=2)
    assert item.seed() == 2681992688506996151
    assert item.generation_id(SPECS, SIZE) == "9d4a76b45bc0639519616908fecbde53"


def test_the_source_is_part_of_an_id() -> None:
    winner, loser = wanted(RECIPES["degraded"], family(1), NAMES, SPECS)
    other = replace(loser, source=replace(winner, sample=1))
    changed = {**SPECS, winner.generator: replace(SPECS[winner.generator], options={"steps": 4})}
    ids = {
        loser.generation_id(SPECS, SIZE),
        other.generation_id(SPECS, SIZE),
        loser.generation_id(changed, SIZE),
        replace(loser, source=None).generation_id(SPECS, SIZE),
    }
    assert len(ids) == 4


def test_a_first_frame_is_an_image_and_its_videos_have_the_size_of_their_model() -> None:
    frame, video, *_ = wanted(RECIPES["shared_first_frame"], family(1), NAMES, SPECS)
    assert frame.size(SPECS, SIZE) == Size(width=1280, height=720, frames=1, fps=0)
    assert video.size(SPECS, SIZE) == Size(width=1280, height=704, frames=49, fps=24)


def test_a_degraded_copy_has_the_size_of_its_source() -> None:
    frame = Wanted(prompt=prompt("any"), generator="frame/a")
    video = Wanted(prompt=prompt("any"), generator="image/a", source=frame)
    loser = Wanted(prompt=prompt("any"), generator="blur", source=video)
    assert loser.size(SPECS, SIZE) == video.size(SPECS, SIZE) != SIZE
