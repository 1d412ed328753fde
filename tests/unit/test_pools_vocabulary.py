"""The vocabularies and grammars that stand in ``prompts/``."""

from __future__ import annotations

import re

import pytest

from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools import categories
from pipeline.pools.draw import Draw, in_turn
from pipeline.pools.english import noun, some, with_article
from pipeline.pools.grammar import grammar, phrases, wordings, words


@pytest.mark.parametrize("category", categories())
def test_every_category_has_enough_subjects_styles_and_templates(category: str) -> None:
    rules = grammar(category)
    for options in (rules.subjects, rules.styles):
        assert len(set(options)) == len(options) >= 60
    assert len(rules.templates) >= 8


@pytest.mark.parametrize("name", ["places", "lights", "moods", "backdrops"])
def test_lists_by_setting_repeat_nothing(name: str) -> None:
    every = [phrase for options in words(name).values() for phrase in options]
    assert len(set(every)) == len(every) >= 30


def test_no_place_light_or_style_names_an_object_with_a_number() -> None:
    said = [p for name in ("places", "lights", "backdrops") for each in words(name).values() for p in each]
    for phrase in said + [style for styles in words("styles").values() for style in styles]:
        assert not re.search(r"\b(two|three|four|five)\b", phrase)


def test_lettering_is_in_colours_that_can_be_drawn() -> None:
    assert set(phrases("lettering")) == set(COLOURS)


def test_set_phrases_can_be_rendered_and_each_has_another_of_its_length() -> None:
    lengths = [len(phrase.split()) for phrase in phrases("phrases")]
    assert all(3 <= len(phrase) <= 22 for phrase in phrases("phrases"))
    assert all(lengths.count(length) > 1 for length in lengths)


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("hourglass", "an hourglass"),
        ("ukiyo-e print", "a ukiyo-e print"),
        ("8mm clip", "an 8mm clip"),
        ("16mm clip", "a 16mm clip"),
        ("IMAX clip", "an IMAX clip"),
        ("orange star", "an orange star"),
    ],
)
def test_articles_follow_the_sound(phrase: str, expected: str) -> None:
    assert with_article(phrase) == expected


@pytest.mark.parametrize("name", OBJECTS)
def test_every_object_is_said_in_both_numbers(name: str) -> None:
    assert some(name, 1, None) in (f"a {name}", f"an {name}")
    assert some(name, 3, "red") == f"three red {OBJECTS[name]}"
    assert noun(name, 2) == OBJECTS[name]


def test_wordings_resolve_every_choice() -> None:
    assert list(wordings("a (b|c) d (e|f)")) == ["a b d e", "a b d f", "a c d e", "a c d f"]
    assert list(wordings("(plain) text")) == ["(plain) text"]


def test_every_block_of_turns_holds_each_option_once() -> None:
    options = tuple(range(66))
    turns = [in_turn(options, index, "key") for index in range(198)]
    assert all(sorted(turns[start : start + 66]) == list(options) for start in (0, 66, 132))
    assert turns[:66] != turns[66:132]


def test_draws_are_even_and_repeatable() -> None:
    drawn = [Draw("key", number).below(10) for number in range(5000)]
    assert drawn == [Draw("key", number).below(10) for number in range(5000)]
    assert all(400 < drawn.count(value) < 600 for value in range(10))
