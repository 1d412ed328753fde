"""Perturbed prompts: one thing changed, of every kind, each as often."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter

import pytest

from pipeline.media.symbols import OBJECTS
from pipeline.pools import grow, version
from pipeline.records import Checks
from tests.unit.grown import CATEGORIES, COUNT, every_category, grown


@every_category
def test_a_perturbed_prompt_differs_in_exactly_the_recorded_kind(category: str) -> None:
    by_id = {prompt.id: prompt for prompt in grown(category)}
    for prompt in grown(category):
        if prompt.perturbation is not None:
            before, after = by_id[prompt.root_id].checks, prompt.checks
            assert differences(before, after) == [prompt.perturbation], prompt.text
            assert prompt.style == by_id[prompt.root_id].style


def differences(before: Checks, after: Checks) -> list[str]:
    """The kind of each difference, one entry for each value that is not the same."""
    found = []
    names = [[group.name for group in each.objects] for each in (before, after)]
    exchanged = names[0] != names[1] and sorted(names[0]) == sorted(names[1])
    found += ["order"] * exchanged
    for one, other in zip(before.objects, after.objects, strict=True):
        found += ["object"] * (one.name != other.name and not exchanged)
        found += ["count" if other.count else "negation"] * (one.count != other.count)
        found += ["colour"] * (one.colour != other.colour)
    for left, right in zip(before.relations, after.relations, strict=True):
        found += ["relation"] * (left != right)
        assert (left.subject, left.object) == (right.subject, right.object)
    for start, end in zip(before.motions, after.motions, strict=True):
        found += ["motion"] * (start.direction != end.direction)
        assert start == dataclasses.replace(end, direction=start.direction)
    for had, has in zip(before.attributes, after.attributes, strict=True):
        negated = has.value == f"no {had.value}"
        found += ["negation" if negated else "colour"] * (had != has)
        assert had == has or had.name in (("eyewear", "headwear") if negated else ("lettering", "hair"))
    if before.text is None or after.text is None or before.text == after.text:
        return found
    return [*found, "order" if sorted(before.text.split()) == sorted(after.text.split()) else "text"]


KINDS = {
    "aesthetics": {"object", "count", "colour", "order", "negation"},
    "alignment": {"object", "count", "colour", "relation", "order", "negation"},
    "composition": {"object", "colour", "negation"},
    "motion_quality": {"object", "count", "colour", "order", "negation", "motion"},
    "portrait": {"colour", "negation"},
    "text_rendering": {"text", "colour", "order"},
    "video_alignment": {"object", "count", "colour", "relation", "order", "negation", "motion"},
    "visual_quality": {"object", "count", "colour", "negation", "motion"},
}
RARE = {("aesthetics", "order"), ("motion_quality", "order")}


@every_category
@pytest.mark.parametrize("each", [1, 2])
def test_perturbed_prompts_are_balanced_over_every_kind_a_category_has(category: str, each: int) -> None:
    if each == len(KINDS[category]):
        pytest.skip("every kind that a root allows is taken")
    prompts = grow(category, COUNT, bucket_size=64, perturbations=each)
    kinds = Counter(prompt.perturbation for prompt in prompts if prompt.perturbation)
    assert kinds.keys() == KINDS[category]
    # Two coloured objects, or two groups at all, are too rare in some categories for their share.
    common = [count for kind, count in kinds.items() if (category, kind) not in RARE]
    assert max(common) - min(common) <= 0.05 * sum(common)
    assert min(kinds.values()) >= COUNT * 0.07


def test_what_is_negated_is_not_spoken_of_again() -> None:
    for category in CATEGORIES:
        for prompt in grown(category):
            for group in prompt.checks.objects:
                if prompt.perturbation == "negation" and not group.count:
                    plural = OBJECTS[group.name]
                    assert len(re.findall(rf"\b{plural}\b", prompt.text, re.IGNORECASE)) == 1, prompt.text
                    assert not re.search(r"\b(exactly|next to) no\b", prompt.text), prompt.text


def test_two_objects_change_places_only_where_one_picture_cannot_show_both_orders() -> None:
    for prompt in grown("motion_quality"):
        if prompt.perturbation == "order":
            one, other = prompt.checks.objects
            assert one.count != other.count or (one.colour and other.colour and one.colour != other.colour)


def test_the_version_of_a_pool_tells_of_its_perturbed_prompts_only_where_it_has_any() -> None:
    assert version("alignment") == "2"
    assert version("alignment", perturbations=1) not in ("2", version("portrait"))


def test_at_most_the_wanted_number_of_perturbations_follows() -> None:
    prompts = list(grow("alignment", 100, bucket_size=10, perturbations=2))
    counts = Counter(prompt.root_id for prompt in prompts if prompt.perturbation)
    assert set(counts.values()) == {2}
    assert prompts[0] in grown("alignment")
