"""Grown pools: the same everywhere, balanced in every prefix, and true to their checks."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
import unicodedata
from collections import Counter
from functools import cache

import pytest

from pipeline.errors import ConfigError
from pipeline.ids import content_id
from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools import capacity, categories, grow, version
from pipeline.records import Checks, Prompt

# SHA-256 of the ids and texts of the first 1,000 prompts with all their perturbed ones. They change only when
# a grammar or a vocabulary is changed on purpose: raise its version and paste what the failing test prints.
GOLDEN = {
    "aesthetics": "971168caca26da1e13662def606700b98433179bae5670f331e9a09cb4af2340",
    "alignment": "d4d254666ed5211179e159717cb591d8d9b759a818b85c6e7500f0f91ff91c71",
    "composition": "71db526d3b4a3c7f644ed12c324e458e4c0843dcb7915367ec1a7b847903f3ff",
    "motion_quality": "b4081b0df8521542de91c5d546d61032e0ad4edfd61748f2debab23f8f465fdf",
    "portrait": "6ec0f8c8a9d361a7858e95a3c35432dfdd236edad10ef119b200fcf0e8379a1b",
    "text_rendering": "660cbe3e27e0de2df785aa6a8072c04237fac30626d2347b997962febf98d1fb",
    "video_alignment": "3ed15a3cc823522c7236c7e742be9134973cff4529349c4076de8b4040f9d071",
    "visual_quality": "86848f35df06c024725300dc00a28c162554e1ce2099f7dcea7c8a75afb2614e",
}

CATEGORIES = tuple(GOLDEN)

NUMBERS = {0: "no", 1: r"(?:an?|one)", 2: "two", 3: "three", 4: "four", 5: "five"}
HEADINGS = {
    "left": ("to the left", "from right to left across the frame", "towards the left edge of the frame"),
    "right": ("to the right", "from left to right across the frame", "towards the right edge of the frame"),
    "up": ("upwards", "from the bottom of the frame to the top", "towards the top edge of the frame"),
    "down": ("downwards", "from the top of the frame to the bottom", "towards the bottom edge of the frame"),
    "still": ("stays still", "stay still"),
}
CAMERAS = {
    "pan left": "the camera pans left",
    "pan right": "the camera pans right",
    "zoom in": "the camera zooms in",
    "zoom out": "the camera zooms out",
}
RELATIONS = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
}

every_category = pytest.mark.parametrize("category", CATEGORIES)


@cache
def grown(category: str) -> tuple[Prompt, ...]:
    return tuple(grow(category, 1000, bucket_size=64, perturbations=8))


def roots(category: str) -> list[Prompt]:
    return [prompt for prompt in grown(category) if prompt.perturbation is None]


def test_all_eight_categories_have_a_grammar() -> None:
    assert categories() == CATEGORIES


@every_category
def test_a_shorter_pool_begins_a_longer_one_and_does_not_depend_on_perturbations(category: str) -> None:
    assert list(grow(category, 150, bucket_size=64)) == roots(category)[:150]


@every_category
def test_another_seed_gives_other_prompts(category: str) -> None:
    other = {prompt.text for prompt in grow(category, 50, bucket_size=64, seed=1)}
    assert not other & {prompt.text for prompt in roots(category)}


@every_category
def test_the_first_thousand_are_the_same_on_every_machine(category: str) -> None:
    said = "\n".join(f"{prompt.id} {prompt.root_id} {prompt.text}" for prompt in grown(category))
    assert hashlib.sha256(said.encode()).hexdigest() == GOLDEN.get(category)


@every_category
def test_ids_are_distinct_and_are_content_hashes_of_category_and_text(category: str) -> None:
    ids = [prompt.id for prompt in grown(category)]
    assert len(set(ids)) == len(ids)
    assert ids == [content_id("prompt", category=category, text=prompt.text) for prompt in grown(category)]


@every_category
def test_buckets_hold_roots_in_order_and_perturbed_prompts_follow_their_root(category: str) -> None:
    assert [prompt.bucket for prompt in roots(category)] == [index // 64 for index in range(1000)]
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
@pytest.mark.parametrize("size", [60, 200, 1000])
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
        left = {"lettering", "placement"}
        attributes = tuple(sorted(a.value for a in prompt.checks.attributes if a.name not in left))
        said = (tuple(sorted(group.name for group in prompt.checks.objects)), attributes, prompt.checks.text)
        assert said not in seen
        seen.add(said)


def words_asked_for(prompt: Prompt) -> set[str]:
    attributes = [a.value for a in prompt.checks.attributes if a.name not in ("lettering", "placement")]
    names = [group.name for group in prompt.checks.objects]
    joining = {"a", "an", "the", "of", "in", "on", "at", "beside", "under", "against", "none"}
    return set(" ".join([*names, *attributes, prompt.checks.text or ""]).casefold().split()) - joining


@every_category
def test_no_two_roots_are_near_duplicates(category: str) -> None:
    said = [words_asked_for(prompt) for prompt in roots(category)[:400]]
    pairs = itertools.combinations(said, 2)
    assert not [one for one, other in pairs if len(one & other) >= 0.75 * len(one | other)]


@every_category
def test_the_sentence_says_what_the_checks_ask_for(category: str) -> None:
    for prompt in grown(category):
        assert_said(prompt.text, prompt.checks)


def assert_said(text: str, checks: Checks) -> None:
    for group in checks.objects:
        noun = group.name if group.count == 1 else OBJECTS[group.name]
        colour = f"{group.colour} " if group.colour else ""
        assert re.search(rf"\b{NUMBERS[group.count]} {colour}{noun}\b", text, re.IGNORECASE), text
    for relation in checks.relations:
        assert RELATIONS[relation.relation] in text
    for motion in checks.motions:
        assert any(said in text for said in HEADINGS[motion.direction]), text
        assert (CAMERAS.get(motion.camera) or text) in text
        assert motion.camera != "static" or not any(said in text for said in CAMERAS.values())
    for attribute in checks.attributes:
        assert attribute.value == "none" or attribute.value.casefold() in text.casefold(), text
    if checks.text is not None:
        assert f'"{checks.text}"' in text


@every_category
def test_the_sentence_names_no_object_colour_or_number_beyond_the_checks(category: str) -> None:
    for prompt in roots(category):
        said = re.sub(r'"[^"]*"', "", prompt.text.casefold())
        values = [each.value for each in prompt.checks.attributes if each.name != "lettering"]
        for value in sorted(values, key=len, reverse=True):
            said = said.replace(value.casefold(), "")
        asked = {group.colour for group in prompt.checks.objects} | {prompt.checks.attribute("lettering")}
        for colour in COLOURS:
            spoken = re.search(rf"\b{colour}\b", said)
            assert bool(spoken) <= (colour in asked), prompt.text
        counts = {group.count for group in prompt.checks.objects}
        for count in (2, 3, 4, 5):
            assert bool(re.search(rf"\b{NUMBERS[count]}\b", said)) == (count in counts), prompt.text


@every_category
def test_the_english_is_clean(category: str) -> None:
    vowel_sound = re.compile(r"\ban (?![aeiou]|hour|8)|\ba (?=[aeio]|hourglass|umbrella|8)", re.IGNORECASE)
    for prompt in grown(category):
        text = prompt.text
        assert text == unicodedata.normalize("NFC", text)
        assert re.fullmatch(r"[A-Z0-9].*\.", text), text
        assert not re.search(r"  | [,.;:]|[{}|_]|\b(\w+) \1\b", re.sub(r'"[^"]*"', '""', text)), text
        assert not vowel_sound.search(text), text


@every_category
def test_verbs_agree_with_their_subject(category: str) -> None:
    for prompt in grown(category):
        groups = {
            f"the {OBJECTS[g.name] if g.count > 1 else g.name}": g.count
            for g in prompt.checks.objects
            if g.count
        }
        for subject, count in groups.items():
            for verb in re.findall(rf"[;.] {subject} (?:\w+ly )?(\w+)", prompt.text, re.IGNORECASE):
                assert verb.endswith("s") == (count == 1), prompt.text


@every_category
def test_content_is_what_the_category_is_about(category: str) -> None:
    for prompt in roots(category):
        checks = prompt.checks
        assert (checks.text is not None) == (category == "text_rendering")
        assert bool(checks.motions) == (category in ("motion_quality", "video_alignment", "visual_quality"))
        assert bool(checks.objects) == (category not in ("text_rendering", "portrait"))
        assert sum(group.count for group in checks.objects) <= 7
        assert len({group.name for group in checks.objects}) == len(checks.objects)
        assert checks.attribute("style") == prompt.style
        if checks.objects:
            assert prompt.subject == checks.objects[0].name


def test_motion_quality_always_moves() -> None:
    assert all(m.direction != "still" for p in grown("motion_quality") for m in p.checks.motions)


def test_a_still_object_has_a_moving_camera() -> None:
    stills = [
        motion
        for category in ("video_alignment", "visual_quality")
        for prompt in grown(category)
        for motion in prompt.checks.motions
        if motion.direction == "still"
    ]
    assert stills
    assert all(motion.camera != "static" for motion in stills)


def test_an_object_moves_where_its_relation_still_holds() -> None:
    for prompt in grown("video_alignment"):
        for relation in prompt.checks.relations:
            sideways = relation.relation in ("left of", "right of")
            assert (prompt.checks.motions[0].direction in ("left", "right")) <= (not sideways)


def test_alignment_has_one_to_three_groups_with_a_relation_between_several() -> None:
    sizes = Counter(len(prompt.checks.objects) for prompt in roots("alignment"))
    assert set(sizes) == {1, 2, 3}
    assert all(len(p.checks.relations) == len(p.checks.objects) - 1 for p in roots("alignment"))
    counts = Counter(group.count for p in roots("alignment") for group in p.checks.objects)
    assert set(counts) == {1, 2, 3, 4}


def test_texts_to_render_are_short_latin_words_mostly_cased() -> None:
    texts = [prompt.checks.text or "" for prompt in grown("text_rendering")]
    assert all(re.fullmatch(r"[A-Za-z0-9]+(?: [A-Za-z0-9]+){0,3}", text) for text in texts)
    assert all(3 <= len(text) <= 22 for text in texts)
    assert 0.05 < sum(any(map(str.isdigit, text)) for text in texts) / len(texts) < 0.4
    assert 0.3 < sum(text.isupper() for text in texts) / len(texts) < 0.7


@pytest.mark.parametrize(
    "name", ["hair", "skin", "expression", "eyewear", "headwear", "age", "gender", "region", "occupation"]
)
def test_portraits_are_balanced_over_people(name: str) -> None:
    counts = Counter(prompt.checks.attribute(name) for prompt in roots("portrait"))
    counts.pop("non-binary person", None)
    assert None not in counts
    assert max(counts.values()) <= 3 * min(counts.values())


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
    "aesthetics": {"object", "colour", "order", "negation"},
    "alignment": {"object", "count", "colour", "relation", "order", "negation"},
    "composition": {"object", "colour", "negation"},
    "motion_quality": {"object", "count", "colour", "order", "negation", "motion"},
    "portrait": {"colour", "negation"},
    "text_rendering": {"text", "colour", "order"},
    "video_alignment": {"object", "count", "colour", "relation", "order", "negation", "motion"},
    "visual_quality": {"object", "count", "colour", "negation", "motion"},
}


@every_category
def test_the_first_perturbed_prompts_are_balanced_over_every_kind_a_category_has(category: str) -> None:
    kinds = Counter(prompt.perturbation for prompt in grow(category, 1000, bucket_size=64, perturbations=1))
    del kinds[None]
    assert kinds.keys() == KINDS[category]
    # Two coloured objects, or two groups at all, are too rare in two categories for their share.
    rare = {("aesthetics", "order"), ("motion_quality", "order")}
    common = [count for kind, count in kinds.items() if (category, kind) not in rare]
    assert max(common) - min(common) <= 0.02 * sum(common)
    assert min(kinds.values()) >= 80


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
    assert version("alignment") == "1"
    assert version("alignment", perturbations=1) not in ("1", version("portrait"))


def test_at_most_the_wanted_number_of_perturbations_follows() -> None:
    prompts = list(grow("alignment", 100, bucket_size=10, perturbations=2))
    counts = Counter(prompt.root_id for prompt in prompts if prompt.perturbation)
    assert set(counts.values()) == {2}
    assert prompts[0] in grown("alignment")


def test_a_count_above_capacity_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match=r"alignment.*ask for fewer"):
        grow("alignment", capacity("alignment") + 1, bucket_size=10)


def test_an_unknown_category_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"landscape.*use one of aesthetics"):
        capacity("landscape")


@every_category
def test_capacity_is_well_above_what_a_build_needs(category: str) -> None:
    assert capacity(category) >= 20_000


@pytest.mark.slow
@every_category
def test_twenty_thousand_distinct_prompts_with_no_subject_or_style_over_two_percent(category: str) -> None:
    subjects: Counter[str] = Counter()
    styles: Counter[str] = Counter()
    texts = set()
    for prompt in grow(category, 20_000, bucket_size=500):
        subjects[prompt.subject] += 1
        styles[prompt.style] += 1
        texts.add(prompt.text)
    assert len(texts) == 20_000
    assert max(subjects.values()) <= 400
    assert max(styles.values()) <= 400
