"""Balanced draws: shares met where the pool allows, caps kept, what is lacking said."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog  # type: ignore[import-untyped]

from pipeline.errors import ConfigError
from pipeline.pools import grow
from pipeline.pools.balance import DIMENSIONS, Drawn, Share, Spread, Target, draw
from pipeline.records import Checks, Prompt

FREE = Target(subject=Spread(), style=Spread(), difficulty=Spread())


def prompt(text: str, subject: str = "", style: str = "", difficulty: int = 0) -> Prompt:
    return Prompt(
        id=text,
        root_id=text,
        category="alignment",
        bucket=0,
        text=text,
        subject=subject,
        style=style,
        checks=Checks(),
        source="test",
        licence="CC0-1.0",
        difficulty=difficulty,
    )


def pool(**subjects: int) -> list[Prompt]:
    return [prompt(f"{name} {number}", name) for name, count in subjects.items() for number in range(count)]


def taken(drawn: Drawn, dimension: str = "subject") -> Counter[str]:
    return Counter(str(value) for value in drawn.prompts[dimension].to_pylist())


def of(source: list[Prompt]) -> Callable[[], list[Prompt]]:
    return lambda: source


cells = st.dictionaries(
    st.tuples(st.sampled_from("abcde"), st.sampled_from("vwxyz"), st.integers(1, 3)),
    st.integers(1, 30),
    min_size=2,
    max_size=40,
)


def filled(sizes: dict[tuple[str, str, int], int]) -> list[Prompt]:
    return [
        prompt(f"{subject}{style}{level} {number}", subject, style, level)
        for (subject, style, level), size in sizes.items()
        for number in range(size)
    ]


@settings(max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])
@given(cells, st.floats(0.05, 1), st.data())
def test_every_share_is_met_where_the_pool_allows_all(
    sizes: dict[tuple[str, str, int], int], share: float, data: st.DataObject
) -> None:
    """What the pool allows is found by linear programming; whole prompts leave one or two of a share."""
    source = filled(sizes)
    count = max(1, int(len(source) * share))
    target = Target(
        subject=Spread(),
        style=data.draw(st.sampled_from([Spread(), Spread(rest="pool")])),
        difficulty=Spread(),
    )
    drawn = draw(of(source), count, target)
    assert drawn.prompts.num_rows == count
    assume(all(stratum.wanted <= stratum.available for stratum in drawn.strata))
    assume(allowed(sizes, {(each.dimension, each.value): each.wanted for each in drawn.strata}))
    assert all(abs(stratum.drawn - stratum.wanted) < 2.5 for stratum in drawn.strata)


def allowed(sizes: dict[tuple[str, str, int], int], wanted: dict[tuple[str, str], float]) -> bool:
    """Whether numbers of prompts up to the cells' sizes can add up to what is wanted."""
    names = list(wanted)
    sums = np.array(
        [[str(cell[DIMENSIONS.index(dimension)]) == value for cell in sizes] for dimension, value in names],
        np.float64,
    )
    bounds = [(0, size) for size in sizes.values()]
    return bool(linprog(np.zeros(len(sizes)), A_eq=sums, b_eq=list(wanted.values()), bounds=bounds).success)


@settings(max_examples=40)
@given(cells, st.floats(0.01, 1), st.integers(0, 3))
def test_a_draw_takes_prompts_of_the_pool_once_and_as_many_as_asked_for(
    sizes: dict[tuple[str, str, int], int], share: float, seed: int
) -> None:
    source = filled(sizes)
    count = max(1, int(len(source) * share))
    drawn = draw(of(source), count, FREE, seed=seed)
    texts = drawn.prompts["text"].to_pylist()
    assert len(set(texts)) == len(texts) == count
    assert set(texts) <= {each.text for each in source}
    for stratum in drawn.strata:
        assert stratum.drawn == taken(drawn, stratum.dimension)[stratum.value] <= stratum.available


@settings(max_examples=40)
@given(cells, st.randoms(use_true_random=False))
def test_the_order_of_the_pool_does_not_matter(
    sizes: dict[tuple[str, str, int], int], chance: random.Random
) -> None:
    source = filled(sizes)
    other = chance.sample(source, len(source))
    count = max(1, len(source) // 2)
    assert draw(of(source), count, FREE).prompts.equals(draw(of(other), count, FREE).prompts)


@settings(max_examples=40)
@given(cells, st.floats(0.1, 1))
def test_every_prefix_has_the_shares_of_the_whole(
    sizes: dict[tuple[str, str, int], int], share: float
) -> None:
    source = filled(sizes)
    count = max(1, int(len(source) * share))
    drawn = draw(of(source), count, FREE)
    whole = taken(drawn)
    subjects = drawn.prompts["subject"].to_pylist()
    for length in range(1, count):
        prefix = Counter(subjects[:length])
        assert all(abs(prefix[name] - whole[name] * length / count) < 2 for name in whole)


@settings(max_examples=40)
@given(cells, st.floats(0.1, 1), st.sampled_from([0.3, 0.4, 0.6]))
def test_no_value_gets_more_than_the_cap_or_the_draw_is_refused(
    sizes: dict[tuple[str, str, int], int], share: float, cap: float
) -> None:
    source = filled(sizes)
    count = max(1, int(len(source) * share))
    target = Target(subject=Spread(cap=cap), style=Spread(cap=cap), difficulty=Spread(rest="pool"))
    try:
        drawn = draw(of(source), count, target)
    except ConfigError:
        return
    assert drawn.prompts.num_rows == count
    for dimension in ("subject", "style"):
        assert max(taken(drawn, dimension).values()) <= np.ceil(cap * count - 1e-9)


def test_another_seed_draws_other_prompts() -> None:
    source = pool(a=50, b=50)
    one, same, other = (
        set(draw(of(source), 40, FREE, seed=seed).prompts["text"].to_pylist()) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_what_a_stratum_lacks_goes_to_the_others_by_their_shares_and_is_said() -> None:
    spread = Spread(
        shares=(Share(value="a", share=0.5), Share(value="b", share=0.3), Share(value="c", share=0.2))
    )
    drawn = draw(of(pool(a=10, b=100, c=100)), 100, Target(subject=spread, style=Spread()))
    assert taken(drawn) == {"a": 10, "b": 54, "c": 36}
    lacking = {each.value: each.lacking for each in drawn.strata if each.dimension == "subject"}
    assert lacking == {"a": 40, "b": 0, "c": 0}


def test_others_share_what_is_not_named_evenly_or_as_in_the_pool() -> None:
    source = pool(a=100, b=300, c=100)
    named = (Share(value="a", share=0.2),)
    even = draw(of(source), 100, Target(subject=Spread(shares=named), style=Spread()))
    assert taken(even) == {"a": 20, "b": 40, "c": 40}
    kept = draw(of(source), 100, Target(subject=Spread(shares=named, rest="pool"), style=Spread()))
    assert taken(kept) == {"a": 20, "b": 60, "c": 20}


def test_a_share_of_nothing_takes_nothing() -> None:
    spread = Spread(shares=(Share(value="a", share=0.0),))
    assert taken(draw(of(pool(a=9, b=9)), 9, Target(subject=spread, style=Spread()))) == {"b": 9}


def test_a_named_share_may_be_above_the_cap_and_others_not() -> None:
    spread = Spread(shares=(Share(value="a", share=0.5),), cap=0.25)
    drawn = draw(of(pool(a=99, b=99, c=99, d=9)), 100, Target(subject=spread, style=Spread()))
    counts = taken(drawn)
    assert (counts["a"], counts["d"]) == (50, 9)
    assert sorted((counts["b"], counts["c"])) == [20, 21]


def test_prompts_that_say_no_style_keep_their_share() -> None:
    source = [*(prompt(f"none {n}") for n in range(60)), *(prompt(f"oil {n}", "", "oil") for n in range(40))]
    assert taken(draw(of(source), 50, Target(style=Spread())), "style") == {"": 30, "oil": 20}


def test_failed_and_perturbed_prompts_are_left_out_and_counted() -> None:
    source = [*grow("alignment", 20, bucket_size=10, perturbations=2)]
    perturbed = sum(each.perturbation is not None for each in source)
    drawn = draw(of(source), 20, Target(subject=Spread(), style=Spread()))
    assert perturbed
    assert list(drawn.left_out.values()) == [perturbed]
    assert {each.perturbation for each in Prompt.rows(drawn.prompts)} == {None}


def test_the_default_target_makes_a_skewed_pool_even() -> None:
    source = [
        prompt(f"{subject} {style} {number}", f"subject {subject}", f"style {style}", (subject + style) % 3)
        for subject in range(60)
        for style in range(60)
        for number in range(1 + (subject == 0) * 9)
    ]
    drawn = draw(of(source), 1000, Target())
    for dimension in ("subject", "style"):
        counts = taken(drawn, dimension)
        assert len(counts) == 60
        assert max(counts.values()) - min(counts.values()) <= 2


def test_a_stored_draw_reads_back_as_the_prompts_drawn() -> None:
    source = [*grow("composition", 30, bucket_size=10)]
    drawn = draw(of(source), 10, Target(subject=Spread(), style=Spread()))
    by_id = {each.id: each for each in source}
    assert [by_id[each.id] for each in Prompt.rows(drawn.prompts)] == [*Prompt.rows(drawn.prompts)]


@pytest.mark.parametrize(
    ("count", "subject", "said"),
    [
        (21, Spread(), "a pool that has 20 usable ones: ask for 1 to 20"),
        (0, Spread(), "ask for 1 to 20"),
        (5, Spread(shares=(Share(value="bb", share=0.1),)), "no subject 'bb' in the pool: did you mean 'b'"),
        (5, Spread(shares=(Share(value="a", share=1.1),)), "share = 1.1 must be in [0, 1]"),
        (5, Spread(shares=(Share(value="a", share=0.6), Share(value="b", share=0.6))), "add up to 1.2"),
        (5, Spread(shares=(Share(value="a", share=0.1),) * 2), "name a value twice"),
        (5, Spread(cap=0), "cap = 0 of [subject] must be above 0"),
        (15, Spread(cap=0.2), "ask for 2, or set cap = 0.467 under [subject] in the target"),
        (15, Spread(shares=(Share(value="a", share=1.0),)), "ask for 10"),
    ],
)
def test_a_draw_that_cannot_be_is_refused(count: int, subject: Spread, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        draw(of(pool(a=10, b=10)), count, Target(subject=subject, style=Spread()))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_caps_that_only_together_leave_too_few_are_refused() -> None:
    source = [prompt(f"{n}", "a", "x") for n in range(50)] + [prompt(f"b{n}", "b", "y") for n in range(2)]
    source += [prompt(f"c{n}", "b", "x") for n in range(50)]
    target = Target(subject=Spread(cap=0.6), style=Spread(cap=0.6), difficulty=Spread())
    with pytest.raises(ConfigError, match=r"style.* ask for"):
        draw(of(source), 50, target)
