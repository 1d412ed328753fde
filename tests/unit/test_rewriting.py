"""Prompts said anew: what is checked of an answer, and how it is carried over to perturbed prompts."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pipeline import pools
from pipeline.media.symbols import COLOURS, OBJECTS
from pipeline.pools.rewriting import GAP, carried, checkable, constraint, lost, phrases
from pipeline.records import Attribute, Checks, MotionCheck, ObjectCheck, Prompt, RelationCheck

EACH = 16

FILLERS = (
    "where the air hangs softly over everything",
    "as if a storyteller had set the scene",
    "(quite calm, almost dreamlike)",
    "and, seen at leisure, with gentle detail around",
    "with fine texture; nearby shadows settle",
)


@cache
def families(category: str) -> tuple[tuple[Prompt, tuple[Prompt, ...]], ...]:
    """Return root prompts with those perturbed from them."""
    found: list[tuple[Prompt, list[Prompt]]] = []
    for prompt in pools.grow(category, EACH, bucket_size=4, perturbations=4):
        if prompt.perturbation is None:
            found.append((prompt, []))
        else:
            found[-1][1].append(prompt)
    return tuple((root, tuple(others)) for root, others in found)


prompts = st.sampled_from(pools.categories()).flatmap(lambda name: st.sampled_from(families(name)))
fillings = st.permutations(FILLERS).map(lambda order: [*order * 8])


def prose(prompt: Prompt, fillers: list[str]) -> str:
    """Say the phrases of a prompt with free prose around them, as a good rewriter does."""
    first, *others = phrases(prompt)
    said = f"Here {fillers[0]} is {first if first[1:2].isupper() else first[0].lower() + first[1:]}"
    for filler, phrase in zip(fillers[1:], others, strict=False):
        said += f" {phrase}" if _tied(phrase) else f", {filler}, {phrase}"
    return f"{said}."


def _tied(phrase: str) -> bool:
    """Say whether a phrase places what comes before it, or is what is placed."""
    return any(word in phrase for word in ("left of", "right of", "above", "below"))


@pytest.mark.parametrize("category", pools.categories())
def test_what_a_grammar_says_passes_its_own_checks(category: str) -> None:
    for root, perturbed in families(category):
        for prompt in (root, *perturbed):
            assert checkable(prompt), (prompt.text, lost(prompt.text, prompt))
            assert re.fullmatch(constraint(prompt), prompt.text), (prompt.text, phrases(prompt))


@pytest.mark.parametrize("category", pools.categories())
def test_a_perturbed_prompt_never_passes_for_its_original_nor_the_other_way(category: str) -> None:
    for root, perturbed in families(category):
        for prompt in perturbed:
            assert lost(prompt.text, root), (prompt.perturbation, prompt.text)
            assert lost(root.text, prompt), (prompt.perturbation, root.text)


@given(prompts, fillings)
def test_prose_around_the_phrases_passes(
    family: tuple[Prompt, tuple[Prompt, ...]], fillers: list[str]
) -> None:
    root, _ = family
    said = prose(root, fillers)
    assert lost(said, root) is None, said
    assert re.fullmatch(constraint(root), said), said


@settings(max_examples=50)
@given(prompts, fillings)
def test_a_change_is_carried_over_and_nothing_else(
    family: tuple[Prompt, tuple[Prompt, ...]], fillers: list[str]
) -> None:
    root, perturbed = family
    said = prose(root, fillers)
    for prompt in perturbed:
        made = carried(said, root, prompt)
        if made is None:
            continue
        assert lost(made, prompt) is None
        assert lost(made, root) is not None
        if phrases(prompt) and len(phrases(prompt)) == len(phrases(root)):
            assert made == prose(prompt, fillers) or prompt.perturbation == "negation"


def test_most_changes_can_be_carried_over() -> None:
    every = [(root, prompt) for name in pools.categories() for root, own in families(name) for prompt in own]
    done = [carried(root.text, root, prompt) for root, prompt in every]
    assert sum(made is not None for made in done) > 0.7 * len(every)
    for made, (_, prompt) in zip(done, every, strict=True):
        assert made is None or made == prompt.text or prompt.perturbation == "negation"


@given(prompts, fillings, st.data())
def test_a_changed_object_colour_count_or_letter_is_always_caught(
    family: tuple[Prompt, tuple[Prompt, ...]], fillers: list[str], data: st.DataObject
) -> None:
    root, _ = family
    said = prose(root, fillers)
    text = root.checks.text or ""
    start = said.find(text)
    every = [(found, start <= found.start() < start + len(text)) for found in re.finditer(r"[\w-]+", said)]
    words = [(found, lettered) for found, lettered in every if _kin(found[0], root, lettered)]
    assume(words)
    found, lettered = data.draw(st.sampled_from(words))
    new = data.draw(st.sampled_from([word for word in _kin(found[0], root, lettered) if word != found[0]]))
    changed = f"{said[: found.start()]}{new}{said[found.end() :]}"
    assert lost(changed, root), changed


def _kin(word: str, prompt: Prompt, lettered: bool) -> list[str]:
    """Return what could stand in the place of a word, of the text or not, and make it say something else."""
    if lettered:
        return [f"{word}s", word.swapcase(), word[:-1] or "x"]
    groups = {group.name for group in prompt.checks.objects} | {
        OBJECTS[g.name] for g in prompt.checks.objects
    }
    if word in {group.colour for group in prompt.checks.objects}:
        return list(COLOURS)
    if word in ("two", "three", "four", "five"):
        return ["one", "two", "three", "four", "five", "nine", "4711"]
    if word in groups:
        return [name for pair in OBJECTS.items() for name in pair if name not in groups]
    opposites = {"left": "right", "right": "left", "above": "below", "below": "above"}
    return [opposites[word]] if word in opposites else []


@given(
    prompts, fillings, st.sampled_from(["one more spoon", "a purple glow", "nine of them", 'the word "SALE"'])
)
def test_what_is_added_is_caught(
    family: tuple[Prompt, tuple[Prompt, ...]], fillers: list[str], more: str
) -> None:
    root, _ = family
    said = prose(root, fillers)
    assert lost(f"{said[:-1]}, beside {more}.", root)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("Three red stars hang to the left of two blue cars.", None),
        ("High over the road, three bright red stars hang to the left of two shiny blue cars.", None),
        ("Two blue cars stand to the left of three red stars.", "star left of car is not said"),
        ("Three red stars hang to the left of the cars.", "2 blue car is not said"),
        ("Three red stars and two blue cars to the left of a wall.", "star left of car is not said"),
        ("Three stars hang to the left of two blue cars, and the stars are red.", "3 red star is not said"),
        ("Three red stars hang to the left of two blue cars, not near them.", "adds 'not'"),
        ("Three red stars hang to the left of two blue cars; the blue stars shine.", "star: another number"),
        ("Three red stars hang to the left of two blue cars; a star falls.", "star: another number"),
        ("Three red stars hang to the left of two blue cars and below the cars.", "adds 'below'"),
        ("Three red stars hang to the left of two blue cars, to the right of it all.", "adds 'right of'"),
        ("Three red stars hang to the left of two blue cars like a pair of eyes.", "adds 'pair'"),
        ("Three red stars hang to the left of two blue cars: a train passes.", "adds 'train'"),
        ("", "3 red star is not said"),
    ],
)
def test_content_is_bound_to_its_objects(said: str, fault: str | None) -> None:
    found = lost(said, STARS)
    assert found is None if fault is None else found is not None and found.startswith(fault), found


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("One green frog leaps upwards while the camera pans left.", None),
        ("One green frog leaps upwards.", "the camera 'pan left' is not said"),
        ("One green frog leaps downwards while the camera pans left.", "the motion 'up' is not said"),
        (
            "The camera pans left and upwards past one green frog.",
            "the motion 'up' is said of something else",
        ),
        ("One green frog leaps upwards while the camera pans left, then zooms.", "adds 'zooms'"),
    ],
)
def test_motion_is_bound_to_what_moves(said: str, fault: str | None) -> None:
    frog = ObjectCheck(name="frog", count=1, colour="green")
    moves = MotionCheck(object=0, direction="up", camera="pan left")
    checks = Checks(objects=(frog,), motions=(moves,))
    found = lost(said, of("A green frog leaps upwards while the camera pans left.", checks))
    assert found is None if fault is None else found is not None and found.startswith(fault), found


@pytest.mark.parametrize("text", ["He said: {0}", "ÅNGSTRÖM", "キオスク", "a.b*c[d]", "<|im_end|>"])
def test_writing_is_kept_to_the_letter(text: str) -> None:
    prompt = of(f'A sign that says "{text}".', Checks(text=text))
    assert lost(f'On a quiet corner, a sign says "{text}".', prompt) is None
    assert re.fullmatch(constraint(prompt), f'On a quiet corner, a sign says "{text}".')
    for other in (text.upper() + "x", text[:-1], text.replace(text[0], "Q")):
        assert lost(f'On a quiet corner, a sign says "{other}".', prompt)
    assert lost(f"On a quiet corner, a sign says {text}.", prompt)


def test_what_strings_cannot_tell_is_not_rewritten() -> None:
    assert not checkable(of("A lovely day.", Checks()))
    trio = Checks(objects=(ObjectCheck(name="star", count=3, colour="red"),))
    assert not checkable(of("A trio of crimson stars.", trio))
    assert checkable(of("Three red stars at night.", trio))


def test_an_attribute_that_the_sentence_leaves_out_is_not_asked_for() -> None:
    checks = Checks(attributes=(Attribute(name="mood", value="calm"), Attribute(name="hair", value="red")))
    prompt = of("A calm woman.", checks)
    assert lost("There sits a calm woman.", prompt) is None
    assert lost("There sits a woman.", prompt) == "the mood: 'calm' is not said"


def test_free_prose_is_bounded() -> None:
    said = f"Three red stars {'and so on ' * GAP} to the left of two blue cars."
    assert re.fullmatch(constraint(STARS), said) is None
    assert re.fullmatch(constraint(STARS), STARS.text + "\n") is None


def of(text: str, checks: Checks) -> Prompt:
    return Prompt(
        id="0",
        root_id="0",
        category="alignment",
        bucket=0,
        text=text,
        subject="",
        style="",
        checks=checks,
        source="test",
        licence="CC0-1.0",
    )


STARS = of(
    "Three red stars to the left of two blue cars.",
    Checks(
        objects=(
            ObjectCheck(name="star", count=3, colour="red"),
            ObjectCheck(name="car", count=2, colour="blue"),
        ),
        relations=(RelationCheck(subject=0, relation="left of", object=1),),
    ),
)


def test_a_change_that_takes_another_verb_is_not_carried_over() -> None:
    one = replace(STARS.checks.objects[0], count=1)
    checks = replace(STARS.checks, objects=(one, STARS.checks.objects[1]))
    single = of("A red star to the left of two blue cars.", checks)
    assert carried("Three red stars rest to the left of two blue cars.", STARS, single) is None
