"""Recipes: which generations are made of a prompt, and which pairs they form."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Recipe, Size
from pipeline.generators.table import GENERATORS
from pipeline.ids import content_id
from pipeline.records import Checks, Prompt
from pipeline.stages.recipes import (
    KINDS,
    Family,
    choose,
    expected_generations,
    expected_pairs,
    matches,
    wanted,
)

NAMES = ["scene/steady", "scene/hasty", "scene/dreamy", "scene/gaudy", "scene/literal"]
RECIPES = {
    "across_models": Recipe(kind="across_models", generations=3),
    "across_seeds": Recipe(kind="across_seeds", generations=3),
    "perturbed_prompt": Recipe(kind="perturbed_prompt"),
    "gold": Recipe(kind="gold", winner="scene/flawless", loser="scene/flawed"),
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
    assert RECIPES.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", RECIPES)
@given(number=st.integers())
def test_pairs_stay_inside_one_root_prompt_and_use_all_that_is_made(kind: str, number: int) -> None:
    one = family(number)
    formed = matches(RECIPES[kind], one, NAMES)
    made = list(wanted(RECIPES[kind], one, NAMES))
    sides = [side for match in formed for side in (match.one, match.other)]
    assert {side.prompt.root_id for side in sides} == {one.root.id}
    assert all(match.one != match.other for match in formed)
    assert sorted(map(repr, made)) == sorted(map(repr, set(sides)))
    assert all(match.expected in (None, match.one, match.other) for match in formed)


@pytest.mark.parametrize("kind", RECIPES)
def test_expected_counts_are_those_of_the_recipe(kind: str) -> None:
    recipe = RECIPES[kind]
    assert len(list(wanted(recipe, family(1), NAMES))) == expected_generations([recipe])
    shipped = 0 if kind == "gold" else len(matches(recipe, family(1), NAMES))
    assert shipped == expected_pairs([recipe])


def test_across_models_compares_different_generators_on_one_prompt() -> None:
    for match in matches(RECIPES["across_models"], family(1), NAMES):
        assert match.one.generator != match.other.generator
        assert match.one.prompt == match.other.prompt


def test_across_seeds_compares_different_seeds_of_one_generator() -> None:
    formed = matches(RECIPES["across_seeds"], family(1), NAMES)
    assert len({side.generator for match in formed for side in (match.one, match.other)}) == 1
    assert all(match.one.seed() != match.other.seed() for match in formed)


def test_perturbed_prompt_expects_the_original_to_win() -> None:
    one = family(1)
    (match,) = matches(RECIPES["perturbed_prompt"], one, NAMES)
    assert match.expected is not None
    assert match.expected.prompt == one.root
    assert {match.one.generator} == {match.other.generator}


def test_a_generator_more_changes_only_the_prompts_that_it_wins() -> None:
    recipe = Recipe(kind="across_models", generations=2)
    changed = 0
    for number in range(300):
        before = {item.generator for item in wanted(recipe, family(number), NAMES[:4])}
        after = {item.generator for item in wanted(recipe, family(number), NAMES)}
        changed += before != after
        assert after - before <= {NAMES[4]}
    assert 300 * 0.3 < changed < 300 * 0.5  # the newcomer is among the first 2 of 5 in 40 % of prompts


def test_generators_meet_each_other_equally_often() -> None:
    recipe = Recipe(kind="across_models", generations=2)
    met = Counter[frozenset[str]]()
    for number in range(2000):
        met[frozenset(item.generator for item in wanted(recipe, family(number), NAMES))] += 1
    assert len(met) == len(list(combinations(NAMES, 2)))
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
    spec, size = GENERATORS["scene/steady"], Size(width=64, height=64)
    one, two, _ = wanted(RECIPES["across_seeds"], family(1), NAMES)
    assert one.generation_id(spec, size) == one.generation_id(spec, size)
    others = [
        two.generation_id(spec, size),
        one.generation_id(GENERATORS["scene/hasty"], size),
        one.generation_id(spec, Size(width=64, height=128)),
    ]
    assert len({one.generation_id(spec, size), *others}) == 4
