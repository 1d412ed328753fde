"""Grown pools: the same everywhere, balanced in every prefix, no two prompts near each other."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config import data_root, load_category
from pipeline.errors import ConfigError
from pipeline.ids import content_id
from pipeline.pools import capacity, categories, grow
from pipeline.pools.grammar import grammar
from pipeline.pools.turns import Turn, Turns
from pipeline.records import Prompt
from pipeline.stages.prompts import PromptsStage
from pipeline.storage import open_store
from tests.unit.grown import COUNT, every_category, grown, roots

# SHA-256 of the ids and texts of the first 500 prompts with all their perturbed ones. They change only when
# a grammar or a vocabulary is changed on purpose: raise its version and paste what the failing test prints.
GOLDEN = {
    "aesthetics": "99794efb2d24db0e83664eb6b6d6b9a148c3ef1b37cda99f5980e0c9f50a791d",
    "alignment": "cc4162d25849f48c6cc661fc56b92d4639e562ca04f9f7e43e0b100645b6575f",
    "composition": "d865259350896f8382f65e1d2e3951794b07e1a1516c1f1cb745449cc683a241",
    "motion_quality": "08a282c63a7d6ab2ed7b48bbf14c553c8845e82208f34a1b9acdf703b6099291",
    "portrait": "2c1d5bb591414ca2db0ea8dc4e52c39581cb462a04f8f07c8d7c301489e7b8e6",
    "text_rendering": "bdf0e583124a8338c62f254a3da2cdd6d6998e7ec7e5f7db6b3e8824d2bff9c6",
    "video_alignment": "a494591bc7b955c455fd9795dc5597a23b78734e78395c3f5d4565a83c764935",
    "visual_quality": "723efdbd42a733c6007df074ca1c869a9eb2826cbd4a7ee9f977f4d38541b72b",
}


def test_all_eight_categories_have_a_grammar() -> None:
    assert categories() == tuple(GOLDEN)


@every_category
def test_a_shorter_pool_begins_a_longer_one_and_does_not_depend_on_perturbations(category: str) -> None:
    assert list(grow(category, 150, bucket_size=64)) == roots(category)[:150]


@every_category
def test_another_seed_gives_other_prompts(category: str) -> None:
    other = {prompt.text for prompt in grow(category, 50, bucket_size=64, seed=1)}
    assert not other & {prompt.text for prompt in roots(category)}


@every_category
def test_the_first_five_hundred_are_the_same_on_every_machine(category: str) -> None:
    said = "\n".join(f"{prompt.id} {prompt.root_id} {prompt.text}" for prompt in grown(category))
    assert hashlib.sha256(said.encode()).hexdigest() == GOLDEN.get(category)


@every_category
def test_ids_are_distinct_and_are_content_hashes_of_category_and_text(category: str) -> None:
    ids = [prompt.id for prompt in grown(category)]
    assert len(set(ids)) == len(ids)
    assert ids == [content_id("prompt", category=category, text=prompt.text) for prompt in grown(category)]


@every_category
def test_buckets_hold_roots_in_order_and_perturbed_prompts_follow_their_root(category: str) -> None:
    assert [prompt.bucket for prompt in roots(category)] == [index // 64 for index in range(COUNT)]
    last: Prompt | None = None
    for prompt in grown(category):
        if prompt.perturbation is None:
            last = prompt
        assert last is not None
        assert (prompt.root_id, prompt.bucket) == (last.id, last.bucket)


@every_category
def test_provenance_is_recorded(category: str) -> None:
    for prompt in grown(category):
        assert re.fullmatch(rf"grammar:{category}@\d+", prompt.source)
        assert (prompt.licence, prompt.status, prompt.line) == ("CC0-1.0", "ok", 0)


@every_category
@pytest.mark.parametrize("size", [60, 200, COUNT])
def test_every_prefix_is_balanced(category: str, size: int) -> None:
    for strata in (
        Counter(prompt.subject for prompt in roots(category)[:size]),
        Counter(prompt.style for prompt in roots(category)[:size]),
    ):
        assert max(strata.values()) <= size // 50 + 2
        assert len(strata) >= min(50, size * 5 // 8)


@every_category
def test_no_two_roots_say_the_same_but_for_numbers_colours_and_sides(category: str) -> None:
    seen: set[tuple[object, ...]] = set()
    for prompt in roots(category):
        said = tuple(sorted(things(prompt)))
        assert said not in seen
        seen.add(said)


def things(prompt: Prompt) -> set[tuple[str, str]]:
    """What keeps prompts apart: subject, style, objects in any order, and the attributes of the grammar."""
    kept = {"style", grammar(prompt.category).subject, *grammar(prompt.category).apart}
    named = {(each.name, each.value) for each in prompt.checks.attributes if each.name in kept}
    return named | {("object", group.name) for group in prompt.checks.objects}


@every_category
def test_every_root_names_an_even_number_of_things(category: str) -> None:
    assert {len(things(prompt)) % 2 for prompt in roots(category)} == {0}


def all_but_one(prompt: Prompt) -> Iterator[int]:
    """What two prompts share if they name the same kinds of things and differ in one of these or in none."""
    said = frozenset(things(prompt))
    kinds = tuple(sorted(kind for kind, _ in said))
    return (hash((kinds, said - {thing})) for thing in said)


@every_category
def test_any_two_roots_differ_in_two_things_that_they_name(category: str) -> None:
    # A pair of subject and style comes again after a lap of more than four thousand.
    starts = (0, 4_550, 120_000)
    spread = (grow(category, start + 300, bucket_size=64, start=start) for start in starts)
    shared = Counter(each for prompts in spread for prompt in prompts for each in all_but_one(prompt))
    assert set(shared.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("category", ["alignment"])
def test_a_fifth_of_a_pool_holds_no_two_prompts_that_differ_in_one_thing_only(category: str) -> None:
    seen = set[int]()
    for prompt in grow(category, capacity(category) // 5, bucket_size=500):
        mine = set(all_but_one(prompt))
        assert not mine & seen, prompt.text
        seen |= mine


def test_a_count_above_capacity_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"alignment.*ask for fewer"):
        grow("alignment", capacity("alignment") + 1, bucket_size=10)


def test_an_unknown_category_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"landscape.*use one of aesthetics"):
        capacity("landscape")


@every_category
def test_capacity_is_well_above_what_a_build_needs(category: str) -> None:
    assert capacity(category) >= (150_000 if roots(category)[0].checks.motions else 300_000)


@every_category
def test_a_pool_begins_anywhere_with_the_prompts_that_stand_there(category: str) -> None:
    whole = list(grow(category, 520, bucket_size=7, perturbations=2))
    tail = [prompt for prompt in whole if prompt.bucket >= 70]
    assert list(grow(category, 520, bucket_size=7, perturbations=2, start=490)) == tail


@every_category
def test_the_last_prompts_of_the_capacity_are_new_ones(category: str) -> None:
    size = capacity(category)
    last = list(grow(category, size, bucket_size=64, start=size - 200))
    assert len(last) == 200
    assert not {prompt.text for prompt in last} & {prompt.text for prompt in roots(category)}


@every_category
def test_growing_a_part_makes_only_the_prompts_of_that_part(
    category: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    turn = Turns.turn

    def counted(self: Turns, index: int) -> Turn:
        made.append(index)
        return turn(self, index)

    monkeypatch.setattr(Turns, "turn", counted)
    assert len(list(grow(category, 120_000, bucket_size=500, start=119_900))) == 100
    assert made == list(range(119_900, 120_000))
    made.clear()
    list(grow(category, 120_000, bucket_size=500, start=119_900, perturbations=1))
    assert len(made) <= 600


@every_category
def test_difficulty_counts_what_a_picture_must_get_right(category: str) -> None:
    for prompt in grown(category):
        checks = prompt.checks
        points = len(checks.objects) + len(checks.relations) + len(checks.motions)
        points += sum(group.colour is not None for group in checks.objects)
        points += sum(group.count > 1 for group in checks.objects)
        points += sum(motion.camera != "static" for motion in checks.motions)
        points += len(checks.text.split()) if checks.text else 0
        bound = ("lettering", "placement", "hair", "skin", "expression", "eyewear", "headwear")
        points += sum(each.name in bound and each.value != "none" for each in checks.attributes)
        assert prompt.difficulty == points


@every_category
@pytest.mark.parametrize("size", [200, COUNT])
def test_every_difficulty_of_a_category_is_as_frequent(category: str, size: int) -> None:
    levels = Counter(prompt.difficulty for prompt in roots(category)[:size])
    assert set(levels) == set(grammar(category).levels)
    assert max(levels.values()) <= 1.25 * min(levels.values()) + 2


@pytest.mark.parametrize("category", ["alignment", "video_alignment"])
def test_a_part_of_the_prompts_stage_holds_what_stands_there(category: str, tmp_path: Path) -> None:
    settings = load_category(data_root() / "categories" / f"{category}.toml")
    stage = PromptsStage(settings, bucket_size=1, perturbations=1, buckets=500)
    part = list(Prompt.rows(stage.process(stage.unit(2), open_store(str(tmp_path)))))
    whole = grow(category, 300, bucket_size=1, perturbations=1)
    assert part == [prompt for prompt in whole if 200 <= prompt.bucket < 300]
