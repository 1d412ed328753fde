"""The vocabularies and grammars that stand in ``prompts/``."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.generators.scene import lettering
from pipeline.judges.measures import text
from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools import categories
from pipeline.pools.draw import Draw, in_turn
from pipeline.pools.english import noun, some, with_article
from pipeline.pools.grammar import MOST_WORDS, grammar, phrases, wordings, words
from pipeline.pools.literal import LONGEST, SHORTEST, draw_literal, other_literal


@pytest.mark.parametrize("category", categories())
def test_every_category_has_enough_subjects_styles_and_templates(category: str) -> None:
    rules = grammar(category)
    for options in (rules.subjects, rules.styles):
        assert len(set(options)) == len(options) >= 60
    assert len(rules.templates) >= 8


LISTS = ("nature", "town", "rooms", "surfaces", "moods", "materials", "backdrops", "actions", "outfits")


def said() -> dict[str, list[str]]:
    return {name: words(name) for name in LISTS} | {
        f"{name}.{part}": options for name in ("lights", "styles") for part, options in words(name).items()
    }


def content(phrase: str) -> frozenset[str]:
    joining = {"a", "an", "the", "of", "in", "on", "at", "beside", "under", "against", "and", "by", "with"}
    return frozenset(re.findall(r"[\w'-]+", phrase.casefold())) - joining


@pytest.mark.parametrize("name", said())
def test_no_phrase_of_a_list_is_another_with_words_left_out(name: str) -> None:
    options = said()[name]
    assert len(set(options)) == len(options) >= 25
    found = [content(phrase) for phrase in options]
    assert not [(one, other) for one in found for other in found if one < other]


@pytest.mark.parametrize("one", ["nature", "rooms", "lights.outdoors"])
def test_no_phrase_is_in_the_lists_of_two_settings(one: str) -> None:
    others = {
        "nature": ["rooms", "surfaces"],
        "rooms": ["town", "nature"],
        "lights.outdoors": ["lights.indoors"],
    }
    for other in others[one]:
        assert not set(said()[one]) & set(said()[other])


@pytest.mark.parametrize("name", ["nature", "town", "rooms", "surfaces", "lights.any", "lights.outdoors"])
def test_places_and_lights_are_told_apart_by_two_words_or_more(name: str) -> None:
    assert not [phrase for phrase in said()[name] if len(content(phrase)) < 2]


@pytest.mark.parametrize("name", [name for name in said() if name not in ("styles.image", "styles.video")])
def test_no_phrase_names_an_object_a_number_or_a_colour_that_a_prompt_can_ask_for(name: str) -> None:
    names = "|".join([*OBJECTS, *OBJECTS.values()])
    # What a person wears or holds is asked of nobody.
    people = ("backdrops", "actions", "outfits")
    for phrase in said()[name]:
        assert not re.search(r"\b(two|three|four|five)\b", phrase)
        assert not re.search(rf"(?<![\w-])({'|'.join(COLOURS)})(?![\w-])", phrase) or name in people, phrase
        assert not re.search(rf"(?<![\w-])({names})(?![\w-])", phrase) or name in people, phrase


def test_lettering_is_in_colours_that_can_be_drawn() -> None:
    assert set(phrases("lettering")) == set(COLOURS)


@pytest.mark.parametrize("language", words("phrases"))
def test_each_set_phrase_has_another_of_its_language_and_length(language: str) -> None:
    found = words("phrases")[language]
    lengths = [len(phrase.split()) for phrase in found]
    assert len(set(found)) == len(found)
    assert all(SHORTEST <= len(phrase) <= LONGEST for phrase in found)
    assert all(lengths.count(length) > 1 for length in lengths)
    assert set(lengths) <= set(range(1, MOST_WORDS + 1))


def test_there_are_patterns_of_every_length() -> None:
    assert {len(pattern.split()) for pattern in phrases("patterns")} == set(range(1, MOST_WORDS + 1))


@pytest.mark.parametrize("language", [*words("phrases"), "made up"])
def test_every_text_is_of_letters_that_can_be_drawn_and_read(language: str) -> None:
    made_up = [draw_literal(Draw("texts", number), 1 + number % 6) for number in range(120)]
    texts = made_up if language == "made up" else words("phrases")[language]
    _, read = text._recogniser()
    for each in texts:
        lettering.pick(np.random.default_rng(0), each)
        assert set(each) - {" "} <= read.keys(), each


def test_another_text_has_as_many_words_and_one_of_them_is_another_or_it_is_another_phrase() -> None:
    for number in range(600):
        was = draw_literal(Draw("others", number), 1 + number % 6)
        now = other_literal(was, Draw("other", number))
        differing = sum(one != other for one, other in zip(was.split(), now.split(), strict=True))
        assert differing == 1 or any({was, now} <= set(found) for found in words("phrases").values())
        assert sorted(was.split()) != sorted(now.split())


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
