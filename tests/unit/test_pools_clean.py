"""Cleaning: what is repaired, what is dropped and for which one reason, and what is found twice."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest
import torch
from glin_profanity.data.dictionary import dictionary
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.pools.clean import Cleaner, Given, HeldOut, Policy, Reason, Sifted, minors, nsfw, pii, tidy
from pipeline.pools.clean.policy import _filter
from tests.bench.cleaning import CHECKS, missed


def sift(
    *texts: str | None,
    policy: Policy | None = None,
    held_out: HeldOut | None = None,
    similar: float = 0.0,
    note: str = "",
) -> list[Sifted[None]]:
    cleaner = Cleaner(policy, held_out, similar=similar)
    return list(cleaner.sift(Given(row=None, raw=text, note=note) for text in texts))


def reasons(*texts: str | None, **settings: object) -> list[str | None]:
    return [each.reason for each in sift(*texts, **settings)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  a\tred \n star ", "a red star"),
        (unicodedata.normalize("NFD", "café à Zürich"), "café à Zürich"),
        ("a\u200b zero\u2060width \ufeffstar", "a zerowidth star"),
        ("right\u202eto left\u202c, soft\u00adhyphen", "rightto left, softhyphen"),
        ("hidden\U000e0041\U000e0042 tags", "hidden tags"),
        ("a\x00b\x07c", "abc"),
        ("CafÃ© &amp; bar", "Café & bar"),
        ("a \u201cquoted\u201d word, \uff21 wide", "a \u201cquoted\u201d word, \uff21 wide"),
        (
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 family",
        ),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627", "\u0645\u06cc\u200c\u062e\u0648\u0627"),
        ("\u2764\ufe0f", "\u2764\ufe0f"),
    ],
)
def test_text_is_repaired_and_what_nobody_sees_is_gone(raw: str, expected: str) -> None:
    assert tidy(raw) == expected


@given(st.text())
def test_tidy_text_is_what_a_pool_takes_and_stays_as_it_is(raw: str) -> None:
    text = tidy(raw)
    assert text == " ".join(text.split())
    assert unicodedata.is_normalized("NFC", text)
    assert not [each for each in text if unicodedata.category(each) in ("Cc", "Co", "Cs")]


@pytest.mark.parametrize(
    ("check", "precision", "recall"),
    [("nsfw", 0.95, 0.9), ("minors", 0.9, 0.95), ("pii", 0.9, 0.95), ("language", 0.95, 0.9)],
)
def test_checks_do_on_labelled_prompts_what_is_said_of_them(
    check: str, precision: float, recall: float
) -> None:
    lost, wrong, yes, _ = missed(check)
    hits = yes - len(lost)
    assert hits / yes >= recall
    assert hits / (hits + len(wrong)) >= precision


def test_every_reason_is_given_and_in_this_order_of_precedence() -> None:
    held = HeldOut()
    held.add("a corgi playing a flute")
    found = reasons(
        None,
        "hi",
        "x" * 2001,
        "word, " * 300,
        "ein Hund am Strand",
        "a naked child",
        "a naked man, bob@example.com",
        "bob@example.com, a corgi playing a flute",
        "A corgi, playing a flute!",
        "a lemon tree by a lake under a pale morning sky with three boats",
        "A LEMON TREE by a lake; under a pale morning sky, with three boats",
        "a lemon tree by a lake under a pale morning sky with four boats",
        held_out=held,
    )
    assert found == [
        Reason.UNREADABLE,
        Reason.TOO_SHORT,
        Reason.TOO_LONG,
        Reason.TOO_LONG,
        Reason.LANGUAGE,
        Reason.MINORS,
        Reason.NSFW,
        Reason.PII,
        Reason.HELD_OUT,
        None,
        Reason.DUPLICATE,
        Reason.NEAR_DUPLICATE,
    ]


def test_a_copy_names_the_row_it_repeats() -> None:
    found = sift("hi", "a red star over a quiet harbour", "a red star over a quiet harbour!")
    assert (found[2].reason, found[2].detail) == (Reason.DUPLICATE, "row 2")


def test_what_the_set_itself_calls_unsafe_is_dropped() -> None:
    (found,) = sift("a quiet harbour at dawn", note="prompt_nsfw 0.83")
    assert (found.reason, found.detail) == (Reason.NSFW, "prompt_nsfw 0.83")


def test_lettering_in_quotes_may_be_in_any_language() -> None:
    said = ('a shop sign that says "ОТКРЫТО"', "a poster with “Bon appétit et bonne journée” on a wall")
    assert reasons(*said) == [None, None]
    assert reasons("ОТКРЫТО, магазин на углу") == [Reason.LANGUAGE]


def test_other_languages_are_kept_where_they_are_wanted() -> None:
    both = Policy(languages=("en", "de"))
    assert reasons("ein Hund am Strand", "a dog", "un chien sur la plage", policy=both) == [
        None,
        None,
        Reason.LANGUAGE,
    ]


@pytest.mark.parametrize(
    "age", ["a 17 year old", "a 9-year-old", "12yo", "aged 15", "a sixteen year old", "age 8"]
)
def test_an_age_below_18_is_a_minor(age: str) -> None:
    assert minors(f"{age}, portrait", mention=True)


@pytest.mark.parametrize(
    "age", ["an 18 year old", "a 35-year-old", "aged 40", "a twenty-one year old", "1970s", "f/8"]
)
def test_other_ages_are_not(age: str) -> None:
    assert minors(f"{age}, portrait", mention=True) is None


def test_a_child_may_be_mentioned_unless_the_policy_says_otherwise() -> None:
    said = "a child flying a kite over dunes"
    assert reasons(said) == [None]
    assert reasons(said, policy=Policy(minors="drop")) == [Reason.MINORS]


@given(st.text())
def test_no_text_makes_a_check_raise(raw: str) -> None:
    text = tidy(raw)
    for check in CHECKS.values():
        check(text)
    assert (minors(text), nsfw(text), pii(text)) == (minors(text), nsfw(text), pii(text))


LISTED = [each for each in dictionary.get_words("english") if each.isascii() and 2 < len(each) < 20]
HARMLESS = "a red cat's dog sits by the old-town, gate; glass moss sleeping 35mm 8k"
plain_words = st.sampled_from(HARMLESS.split())
mutated = st.builds(
    lambda word, place, letter: word[: place % len(word)] + letter + word[place % len(word) :],
    st.sampled_from(LISTED),
    st.integers(0, 20),
    st.sampled_from([*"aenst -.,'*1", ""]),
)
repeated = st.builds(
    lambda word, place: word[:place] + word[place - 1 :], st.sampled_from(LISTED), st.integers(1, 9)
)


@settings(max_examples=400)
@given(st.lists(plain_words | mutated | repeated | st.sampled_from(LISTED), min_size=1, max_size=8))
def test_the_quick_look_misses_nothing_that_the_filter_finds(said: list[str]) -> None:
    text = " ".join(said)
    assert bool(nsfw(text)) == bool(_filter().check_profanity(text)["profane_words"])


WORDS = [
    f"{one}{other}" for one in ("ba", "ko", "ru", "mi", "te") for other in ("lan", "dor", "sim", "ver", "tok")
]


@given(st.lists(st.sampled_from(WORDS), min_size=12, max_size=20, unique=True), st.integers(0, 11))
def test_one_word_changed_in_twelve_is_near_and_half_of_them_is_not(said: list[str], place: int) -> None:
    held = HeldOut()
    held.add(" ".join(said))
    assert held.match(" ".join([*said[:place], "other", *said[place + 1 :]])) is not None
    half = [word if number % 2 else f"x{word}" for number, word in enumerate(said)]
    assert held.match(" ".join(half)) is None


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("A corgi playing a flute, on a red hill!", "exact"),
        ("a corgi playing a flute on a red hill, 8k", "near"),
        (
            "masterpiece, award winning photograph of a corgi playing a flute on a red hill, 8k, artstation, "
            "bokeh, soft light, wide angle, trending, octane render, volumetric fog, sharp focus",
            "contains",
        ),
        ("a corgi on a red hill", None),
        ("a beagle sleeping on a green sofa", None),
    ],
)
def test_a_held_out_prompt_is_found_exactly_nearly_and_within(text: str, how: str | None) -> None:
    held = HeldOut()
    held.add("a corgi playing a flute on a red hill")
    held.add("bond")
    found = held.match(text)
    assert (found and found[0]) == how


def test_a_short_held_out_prompt_is_found_only_as_it_is() -> None:
    held = HeldOut()
    held.add("a cat")
    assert held.match("A cat.") is not None
    assert held.match("a cat on a windowsill at night") is None


@pytest.mark.slow
def test_another_wording_of_the_same_is_similar_within_and_across_chunks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.set_num_threads(1)
    texts: Sequence[str] = (
        "portrait of an old fisherman, oil painting",
        "a corgi playing a flute on a hill",
        "oil painting portrait of an elderly fisherman",
        "a red bicycle leaning on a brick wall",
        "an elderly fisherman's portrait as an oil painting",
    )
    expected = [None, None, Reason.SIMILAR, None, Reason.SIMILAR]
    assert reasons(*texts, similar=0.93) == expected
    monkeypatch.setattr("pipeline.pools.clean.CHUNK", 1)
    assert reasons(*texts, similar=0.93) == expected
