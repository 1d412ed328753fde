"""Grown prompts as sentences: true to their checks, in clean English."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from functools import cache

import pytest

from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools import grow
from pipeline.pools.grammar import words
from pipeline.records import Checks, Prompt
from tests.unit.grown import every_category, grown, roots

NUMBERS = {0: "no", 1: r"(?:an?|one)", 2: "two", 3: "three", 4: "four", 5: "five"}
HEADINGS = {
    direction: tuple(phrase for slot in words("headings").values() for phrase in slot[direction])
    for direction in ("left", "right", "up", "down")
} | {"still": ("stays still", "stay still")}
CAMERAS = {
    move: tuple(f"the {who} {phrase}" for who in ("camera", "viewpoint") for phrase in phrases)
    for move, phrases in words("camera").items()
}
RELATIONS = {
    "left of": "to the left of",
    "right of": "to the right of",
    "above": "above",
    "below": "below",
}


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
        for move, phrases in CAMERAS.items():
            said = any(phrase in text for phrase in phrases)
            assert said if move == motion.camera != "static" else not said or move == motion.camera, text
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
        assert not vowel_sound.search(re.sub(r'"[^"]*"', '""', text)), text


@every_category
def test_verbs_agree_with_their_subject(category: str) -> None:
    for prompt in grown(category):
        groups = {
            f"the {OBJECTS[g.name] if g.count > 1 else g.name}": g.count
            for g in prompt.checks.objects
            if g.count
        }
        for subject, count in groups.items():
            for verb in re.findall(rf"[;.,] {subject} (?:\w+ly )?(\w+)", prompt.text, re.IGNORECASE):
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
    related = [len(p.checks.relations) == len(p.checks.objects) - 1 for p in roots("alignment")]
    assert sum(related) >= 0.85 * len(related)
    assert all(p.checks.relations for p in roots("alignment") if len(p.checks.objects) == 3)
    counts = Counter(group.count for p in roots("alignment") for group in p.checks.objects)
    assert set(counts) == {1, 2, 3, 4}


def test_texts_to_render_have_one_to_six_words_each_as_often() -> None:
    texts = [prompt.checks.text or "" for prompt in roots("text_rendering")]
    assert all(re.fullmatch(r"[^\W_]+(?: [^\W_]+){0,5}", text) for text in texts)
    assert all(3 <= len(text) <= 44 for text in texts)
    lengths = Counter(len(text.split()) for text in texts)
    assert set(lengths) == {1, 2, 3, 4, 5, 6}
    assert max(lengths.values()) <= 1.3 * min(lengths.values())
    assert 0.05 < sum(any(map(str.isdigit, text)) for text in texts) / len(texts) < 0.5
    assert 0.2 < sum(text.isupper() for text in texts) / len(texts) < 0.7
    assert 0.15 < sum(not text.isascii() for text in texts) / len(texts) < 0.5


@cache
def portraits() -> tuple[Prompt, ...]:
    return tuple(grow("portrait", 1600, bucket_size=64))


@pytest.mark.parametrize(
    "name", ["hair", "skin", "expression", "eyewear", "headwear", "age", "gender", "region", "occupation"]
)
def test_portraits_are_balanced_over_people(name: str) -> None:
    counts = Counter(prompt.checks.attribute(name) for prompt in portraits())
    counts.pop("non-binary person", None)
    assert None not in counts
    assert max(counts.values()) <= 3 * min(counts.values())


def test_large_objects_are_never_indoors() -> None:
    indoors = set(words("rooms") + words("surfaces"))
    for prompt in itertools.chain(grown("alignment"), grown("motion_quality")):
        if prompt.checks.attribute("place") in indoors:
            assert not {group.name for group in prompt.checks.objects} & set(words("outdoor_objects"))


def test_the_filming_camera_is_told_from_one_that_is_filmed() -> None:
    for prompt in grown("video_alignment"):
        if any(group.name == "camera" for group in prompt.checks.objects):
            assert not any(said.replace("viewpoint", "camera") in prompt.text for said in CAMERAS["zoom in"])
