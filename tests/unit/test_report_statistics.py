from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.records import Agreement, Choice, Generation, Order, Pair, Reason, Side, Verdict, Vote
from pipeline.report.alpha import VALUES, Alpha
from pipeline.report.statistics import MOST_REASONS, OTHER_REASONS, CategoryCounts, Share, Tally, wilson

# The four examples of Newcombe (1998), table I, method 3; then 5 of 10 and 10 of 10 worked by hand.
PUBLISHED = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (5, 10, 0.2366, 0.7634),
    (10, 10, 0.7225, 1.0),
]


def generation(name: str, generator: str, reason: str | None = None, fps: int = 0) -> Generation:
    return Generation(
        id=name,
        prompt_id="p",
        root_id="p",
        category="portrait",
        generator=generator,
        generator_id=generator,
        seed=1,
        width=2,
        height=2,
        frames=1,
        fps=fps,
        mime="image/jpeg",
        media_sha256=None,
        bytes=0,
        licence="CC0-1.0",
        licence_profile="permissive",
        defects=None,
        status="failed" if reason else "ok",
        reason=reason,
    )


def pair(name: str, expected: Side | None = None, gold: bool = False) -> Pair:
    return Pair(
        id=name,
        root_id="p",
        category="portrait",
        recipe="r",
        first_id="a",
        second_id="b",
        first_sha256=None,
        second_sha256=None,
        expected=expected,
        gold=gold,
    )


def vote(judge: str, choice: Choice, consistent: bool = True) -> Vote:
    return Vote(judge=judge, choice=choice, consistent=consistent)


def agreement(
    name: str,
    votes: Iterable[Vote] = (),
    reason: Reason | None = None,
    sides: tuple[str | None, str | None] = (None, None),
    audited: bool = True,
) -> Agreement:
    return Agreement(
        id="agreement of " + name,
        pair_id=name,
        root_id="p",
        category="portrait",
        policy="unanimous",
        kept=reason is None,
        winner_id=sides[0],
        loser_id=sides[1],
        confidence=None,
        reason=reason,
        votes=tuple(votes),
        bytes=0,
        licence_profile=None,
        audited=audited,
    )


def verdict(order: Order, choice: Choice, judge: str = "ocr", pair_id: str = "x") -> Verdict:
    return Verdict(
        id=f"{judge} {order} {choice}",
        pair_id=pair_id,
        category="portrait",
        judge=judge,
        judge_id=judge,
        rubric_id="r",
        order=order,
        choice=choice,
        p_first=None,
        raw="",
    )


@pytest.mark.parametrize(("hits", "total", "low", "high"), PUBLISHED)
def test_wilson_equals_published_intervals(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_wilson_holds_the_share_within_0_and_1(one: int, other: int) -> None:
    hits, total = min(one, other), max(one, other)
    low, high = wilson(hits, total)
    assert 0 <= low <= (hits / total if total else 0.5) <= high <= 1


@given(st.integers(0, 500), st.integers(1, 500))
def test_wilson_mirrors_wins_and_losses(hits: int, more: int) -> None:
    low, high = wilson(hits, hits + more)
    assert wilson(more, hits + more) == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_nothing_known_is_no_share_and_the_whole_range() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval == (0.0, 1.0)
    assert not Share(0, 0).excludes_half
    assert Share(90, 100).excludes_half
    assert not Share(55, 100).excludes_half


def test_judges_agree_on_the_pairs_that_both_decided() -> None:
    counts = CategoryCounts()
    counts.add_votes([vote("ocr", "first"), vote("blur", "first"), vote("noise", "second")])
    counts.add_votes([vote("noise", "first"), vote("ocr", "tie"), vote("blur", "second")])
    counts.add_votes([vote("blur", "second"), vote("ocr", "first"), vote("noise", "invalid", False)])
    assert counts.agreement("ocr", "blur") == Share(1, 2)
    assert counts.agreement("blur", "noise") == Share(0, 2)
    assert counts.agreement("noise", "ocr") == Share(0, 1)
    assert counts.agreement("noise", "stranger") == Share(0, 0)
    assert counts.judges["ocr"].decision_rate == Share(2, 3)


@given(
    st.lists(
        st.lists(st.sampled_from(["first", "second", "tie", "invalid"]), min_size=3, max_size=3), max_size=20
    ),
    st.permutations(["ocr", "blur", "noise"]),
)
def test_the_agreement_matrix_is_symmetric(rows: list[list[Choice]], judges: list[str]) -> None:
    counts = CategoryCounts()
    for row in rows:
        counts.add_votes([vote(judge, choice) for judge, choice in zip(judges, row, strict=True)])
    for one, other in itertools.combinations(judges, 2):
        both = [(row[judges.index(one)], row[judges.index(other)]) for row in rows]
        decided = [(a, b) for a, b in both if {a, b} <= {"first", "second"}]
        assert counts.agreement(one, other) == Share(sum(a == b for a, b in decided), len(decided))
        assert counts.agreement(one, other) == counts.agreement(other, one)


def test_position_bias_ties_and_invalid_answers_of_a_judge() -> None:
    tally = Tally()
    for given_ in [
        verdict("forward", "first"),  # the side shown first
        verdict("swapped", "first"),  # the side shown second
        verdict("forward", "second"),  # shown second
        verdict("swapped", "second"),  # shown first
        verdict("swapped", "second"),  # shown first
        verdict("forward", "tie"),
        verdict("swapped", "invalid"),
    ]:
        tally.add_verdict(given_)
    judge = tally.categories["portrait"].judges["ocr"]
    assert judge.first_shown == Share(3, 5)
    assert judge.tie_rate == Share(1, 7)
    assert (judge.answers, judge.verdicts, judge.invalid) == (7, 7, 1)


def test_consistency_leaves_out_invalid_votes() -> None:
    counts = CategoryCounts()
    for given_ in [
        vote("ocr", "first"),
        vote("ocr", "tie"),
        vote("ocr", "tie", False),
        vote("ocr", "invalid", False),
    ]:
        counts.add_votes([given_])
    assert counts.judges["ocr"].consistency == Share(2, 3)


def test_accuracy_counts_only_decided_gold_pairs() -> None:
    tally = Tally()
    for given_ in [
        pair("g1", "first", True),
        pair("g2", "second", True),
        pair("g3", "first", True),
        pair("x"),
    ]:
        tally.add_pair(given_)
    tally.add_pair(pair("known but not gold", "second"))
    tally.add_agreement(agreement("g1", [vote("ocr", "first"), vote("blur", "second")], Reason.GOLD))
    tally.add_agreement(agreement("g2", [vote("ocr", "second"), vote("blur", "tie")], Reason.GOLD))
    tally.add_agreement(agreement("g3", [vote("ocr", "second"), vote("blur", "first")], Reason.GOLD))
    tally.add_agreement(agreement("x", [vote("ocr", "first")]))
    tally.add_agreement(agreement("known but not gold", [vote("ocr", "first")]))
    counts = tally.categories["portrait"]
    assert counts.judges["ocr"].accuracy == Share(2, 3)
    assert counts.judges["blur"].accuracy == Share(1, 2)
    # Gold pairs are easier than others: they say nothing of ties, consistency or agreement.
    assert counts.judges["ocr"].decision_rate == Share(2, 2)
    assert counts.judges["blur"].decision_rate == Share(0, 0)
    assert counts.agreement("ocr", "blur") == Share(0, 0)
    assert counts.yield_ == Share(2, 2)
    assert counts.dropped == {Reason.GOLD: 3}


def test_win_rates_are_of_kept_pairs_between_two_generators() -> None:
    tally = Tally()
    for name, generator in [("a", "steady"), ("b", "hasty"), ("c", "steady"), ("d", "painter")]:
        tally.add_generation(generation(name, generator))
    for number, sides in enumerate([("a", "b"), ("a", "d"), ("b", "c"), ("a", "c"), ("d", "nobody")]):
        tally.add_agreement(agreement(str(number), sides=sides))
    tally.add_agreement(agreement("dropped", reason=Reason.CONFLICT))
    counts = tally.categories["portrait"]
    assert counts.win_rates() == {
        "steady": Share(2, 3),
        "hasty": Share(1, 2),
        "painter": Share(1, 2),
        "unknown": Share(0, 1),
    }
    assert list(counts.win_rates()) == ["steady", "hasty", "painter", "unknown"]
    assert counts.own_pairs == 1


def test_pairs_without_an_outcome_are_pending() -> None:
    tally = Tally()
    for name in "abc":
        tally.add_pair(pair(name))
    tally.add_agreement(agreement("a"))
    tally.add_agreement(agreement("b", reason=Reason.SAME_MEDIA))
    assert tally.categories["portrait"].pending == 1


def test_failures_in_prose_are_counted_without_end_but_named_up_to_a_limit() -> None:
    tally = Tally()
    for number in range(MOST_REASONS + 5):
        tally.add_generation(generation(str(number), "steady", f"out of memory at 0x{number:x}"))
    tally.add_generation(generation("again", "steady", "out of memory at 0x0"))
    failures = tally.categories["portrait"].generation_failures
    assert failures["out of memory at 0x0"] == 2
    assert failures[OTHER_REASONS] == 5
    assert failures.total() == MOST_REASONS + 6


def test_categories_follow_the_quotas_then_the_alphabet() -> None:
    tally = Tally()
    for category in ("zebra", "portrait", "apple"):
        tally.categories[category].pairs += 1
    assert list(tally.ordered({"portrait": 5, "alignment": 5})) == ["portrait", "alignment", "apple", "zebra"]


def test_under_early_exit_judges_are_measured_on_audited_pairs_alone() -> None:
    tally = Tally()
    tally.add_pair(pair("gold", "first", True))
    both = [vote("ocr", "first"), vote("blur", "first")]
    tally.add_agreement(agreement("audited", both))
    tally.add_agreement(agreement("settled", [vote("ocr", "tie", False)], Reason.INCONSISTENT, audited=False))
    tally.add_agreement(agreement("asked of all", both, audited=False))
    tally.add_agreement(agreement("gold", both, Reason.GOLD, audited=False))
    tally.add_agreement(agreement("no media", [], Reason.MISSING_MEDIA, audited=False))
    for name in ("audited", "settled", "asked of all", "gold"):
        tally.add_verdict(verdict("forward", "tie" if name == "settled" else "first", pair_id=name))
    counts = tally.categories["portrait"]
    assert counts.requests == Share(5, 6)
    assert counts.audit == Share(1, 3)
    assert counts.agreement("ocr", "blur") == Share(1, 1)
    assert counts.judges["ocr"].consistency == Share(1, 1)
    assert counts.judges["ocr"].accuracy == Share(1, 1)
    assert (counts.judges["ocr"].answers, counts.judges["ocr"].verdicts) == (4, 1)
    assert counts.judges["ocr"].first_shown == Share(1, 1)


def test_without_early_exit_every_pair_counts() -> None:
    tally = Tally()
    for name in "abc":
        tally.add_agreement(agreement(name, [vote("ocr", "first"), vote("blur", "second")]))
        tally.add_verdict(verdict("forward", "first", pair_id=name))
    counts = tally.categories["portrait"]
    assert counts.requests == Share(6, 6)
    assert counts.audit == Share(3, 3)
    assert counts.judges["ocr"].verdicts == 3


def alpha(rows: Iterable[Iterable[str]]) -> Alpha:
    found = Alpha()
    for number, values in enumerate(rows):
        found.add(values, number)
    return found


def test_alpha_equals_the_published_example() -> None:
    meg, owen = "0100000010", "1110010000"  # Krippendorff (2011), section A
    named = {"0": "first", "1": "second"}
    assert alpha([(named[a], named[b]) for a, b in zip(meg, owen, strict=True)]).value == pytest.approx(
        0.095, abs=5e-4
    )


@given(st.lists(st.lists(st.sampled_from(VALUES), max_size=4), max_size=30))
def test_alpha_is_one_less_disagreement_within_pairs_over_disagreement_between(
    rows: list[list[str]],
) -> None:
    """The definition, counted the long way: every two values of a pair, and every two values of all pairs."""
    paired = [row for row in rows if len(row) > 1]
    within = sum(sum(a != b for a, b in itertools.permutations(row, 2)) / (len(row) - 1) for row in paired)
    every = [value for row in paired for value in row]
    between = sum(a != b for a, b in itertools.permutations(every, 2))
    found = alpha(rows)
    assert found.pairs == len(paired)
    if between == 0:
        assert found.value is None
    else:
        assert found.value == pytest.approx(1 - within / len(every) * len(every) * (len(every) - 1) / between)


def test_the_interval_of_alpha_is_wide_where_little_is_known() -> None:
    dice = random.Random(1)
    said = [("first", "first"), ("second", "second"), ("first", "second"), ("tie", "tie")]
    rows = [dice.choice(said) for _ in range(5000)]
    little, much, truth = alpha(rows[:60]).interval, alpha(rows[:2000]).interval, alpha(rows).value
    assert alpha(rows[:19]).interval is None
    assert little is not None
    assert much is not None
    assert truth is not None
    assert much[1] - much[0] < 0.1 < little[1] - little[0]
    assert much[0] < truth < much[1]
