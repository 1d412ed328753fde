"""Agreement: what is kept, the one reason why the rest is not, and when no answer can change that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Policy, Rate
from pipeline.errors import ConfigError
from pipeline.judges.base import Answer
from pipeline.records import Calibration, Choice, Order, Reason, Verdict, Vote
from pipeline.stages.ask import in_pair_coordinates
from pipeline.stages.policies import AgreementPolicy, Consensus, Trust, evidence, make_policy, vote

PANEL = ("a", "b", "c")
UNANIMOUS = make_policy(Policy(kind="unanimous", votes=2), "0123", {})
MAJORITY = make_policy(Policy(kind="majority", votes=2), "0123", {})
MIRROR: dict[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie", "invalid": "invalid"}

CHANCES = st.none() | st.floats(0, 1)
SHARES = st.floats(0.005, 0.98)


def answers(judge: str) -> st.SearchStrategy[Vote]:
    """All that one judge may answer; what is inconsistent or unusable chooses no side."""
    sided = st.sampled_from(["first", "second", "tie", "invalid"])
    steady = st.builds(Vote, judge=st.just(judge), choice=sided, consistent=st.just(True), p_first=CHANCES)
    torn = st.builds(
        Vote, judge=st.just(judge), choice=st.just("tie"), consistent=st.just(False), p_first=CHANCES
    )
    return steady | torn


@st.composite
def ballots(draw: st.DrawFn) -> list[Vote]:
    """What some of the panel said of one pair, in any order."""
    asked = draw(st.lists(st.sampled_from(PANEL), unique=True))
    return [draw(answers(judge)) for judge in asked]


@st.composite
def calibrations(draw: st.DrawFn) -> dict[str, Calibration]:
    """What gold pairs may say of the panel."""
    known = {}
    for judge in PANEL:
        weight, graded = draw(st.floats(0, 3)), draw(st.booleans())
        known[judge] = calibration(judge, weight=weight, graded=graded, abstains=draw(st.booleans()))
    return known


@st.composite
def trusts(draw: st.DrawFn, judge: str) -> Trust:
    """A judge for whom a vote serves a side at least as well as no vote."""
    right = draw(SHARES)
    wrong = draw(st.floats(0.001, 1)) * min(right, 1 - right - 0.005)
    most = right / (1 - right - wrong + 2 * right)
    return Trust(judge=judge, right=right, wrong=wrong, guess=draw(st.floats(0.01, 1)) * most)


@st.composite
def policies(draw: st.DrawFn) -> AgreementPolicy:
    """Every kind of policy."""
    known, precision = draw(calibrations()), draw(st.floats(0.5, 0.999))
    kind = draw(st.sampled_from(["unanimous", "majority", "single", "weighted", "dawid_skene"]))
    asked = Policy(kind=kind, votes=draw(st.integers(1, 3)), judge="b", precision=precision)
    consensus = Consensus(trusts=tuple(draw(trusts(judge)) for judge in PANEL), even=draw(st.floats(0, 0.9)))
    return make_policy(asked, PANEL, known, consensus)


def calibration(
    judge: str, *, weight: float = 1.0, graded: bool = False, abstains: bool = False
) -> Calibration:
    return Calibration(
        category="c", judge=judge, right=18, wrong=4, ties=1, inconsistent=2, invalid=0,
        low=0.6, high=0.9, a_bias=0.0, abstains=abstains, weight=weight, graded=graded,
    )  # fmt: skip


def votes(choices: str) -> list[Vote]:
    """``1`` first, ``2`` second, ``-`` tie, ``x`` a judge that changed its mind, ``!`` no usable answer."""
    named: dict[str, Choice] = {"1": "first", "2": "second", "-": "tie", "x": "tie", "!": "invalid"}
    return [Vote(judge=str(i), choice=named[c], consistent=c != "x") for i, c in enumerate(choices)]


def mirrored(given_votes: Sequence[Vote]) -> list[Vote]:
    """The same votes after the sides of the pair have changed places."""
    return [
        replace(v, choice=MIRROR[v.choice], p_first=None if v.p_first is None else 1 - v.p_first)
        for v in given_votes
    ]


@pytest.mark.parametrize(
    ("given_votes", "outcome"),
    [
        ("111", "first"),
        ("22-", "second"),
        ("112", Reason.CONFLICT),
        ("1--", Reason.TOO_FEW_VOTES),
        ("---", Reason.TOO_FEW_VOTES),
        ("", Reason.TOO_FEW_VOTES),
        ("11x", Reason.INCONSISTENT),
        ("12x", Reason.INCONSISTENT),
        ("11!", Reason.INVALID_VERDICT),
    ],
)
def test_unanimous(given_votes: str, outcome: str) -> None:
    assert UNANIMOUS.decide(votes(given_votes)) == outcome
    assert UNANIMOUS.confidence(votes(given_votes)) is None


@pytest.mark.parametrize(
    ("given_votes", "outcome"),
    [
        ("112", "first"),
        ("22x", "second"),
        ("1122", Reason.CONFLICT),
        ("1--", Reason.TOO_FEW_VOTES),
        ("xxx", Reason.TOO_FEW_VOTES),
        ("12-", Reason.CONFLICT),
        ("11!", Reason.INVALID_VERDICT),
    ],
)
def test_majority(given_votes: str, outcome: str) -> None:
    assert MAJORITY.decide(votes(given_votes)) == outcome


def test_single_follows_its_judge_alone() -> None:
    policy = make_policy(Policy(kind="single", judge="1"), "012", {})
    assert policy.decide(votes("12-")) == "second"
    assert policy.decide(votes("1-2")) is Reason.TOO_FEW_VOTES
    assert policy.decide(votes("1x1")) is Reason.INCONSISTENT
    assert policy.decide(votes("1!1")) is Reason.INVALID_VERDICT
    assert policy.decide(votes("!1!")) == "first"
    assert policy.decide(votes("1")) is Reason.TOO_FEW_VOTES


def test_a_judge_that_abstains_is_treated_as_not_there() -> None:
    known = {"2": calibration("2", abstains=True)}
    policy = make_policy(Policy(kind="unanimous"), "012", known)
    assert (
        policy.decide(votes("112")) == policy.decide(votes("11x")) == policy.decide(votes("11!")) == "first"
    )
    assert policy.decide(votes("1-1")) is Reason.TOO_FEW_VOTES
    assert policy.settled(votes("1-"), ["2"])


@pytest.mark.parametrize("kind", ["unanimous", "majority", "single", "weighted", "dawid_skene"])
def test_nothing_is_kept_if_all_judges_abstain(kind: str) -> None:
    known = {judge: calibration(judge, weight=3, abstains=True) for judge in "012"}
    consensus = Consensus(trusts=(Trust(judge="0", right=0.9, wrong=0.05, guess=0.2),), even=0.1)
    policy = make_policy(Policy(kind=kind, judge="0", votes=1), "012", known, consensus)
    assert policy.decide(votes("111")) is Reason.TOO_FEW_VOTES
    assert policy.settled([], ["0", "1", "2"])


def test_weighted_adds_up_the_log_odds_of_its_judges() -> None:
    known = {"0": calibration("0", weight=0.5), "1": calibration("1", weight=1.5, graded=True)}
    policy = make_policy(Policy(kind="weighted", precision=0.9), "012", known)
    sure = Vote(judge="1", choice="first", consistent=True, p_first=0.8)
    log_odds = 0.5 * -2 + 1.5 * math.log(0.8 / 0.2)
    said = [*votes("2"), sure, Vote(judge="2", choice="second", consistent=True)]
    assert policy.confidence(said) == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-6)
    assert policy.decide(said) is Reason.CONFLICT
    assert policy.decide([*votes("1"), sure]) == "first"


def test_an_inconsistent_answer_counts_as_far_as_its_probability() -> None:
    known = {judge: calibration(judge, weight=1.0, graded=judge == "0") for judge in "01"}
    policy = make_policy(Policy(kind="weighted", precision=0.7), "01", known)
    torn = Vote(judge="0", choice="tie", consistent=False, p_first=0.75)
    assert policy.decide([torn]) == "first"
    assert policy.decide([replace(torn, judge="1")]) is Reason.INCONSISTENT


def test_rates_of_the_settings_stand_in_where_there_were_no_gold_pairs() -> None:
    rates = (Rate(judge="0", accuracy=0.8), Rate(judge="1", accuracy=0.6), Rate(judge="2", accuracy=0.4))
    policy = make_policy(Policy(kind="weighted", rates=rates), "012", {})
    assert policy.confidence(votes("1")) == pytest.approx(0.8, abs=1e-5)
    assert policy.confidence(votes("11")) == pytest.approx(0.8 * 0.6 / (0.8 * 0.6 + 0.2 * 0.4), abs=1e-5)
    assert policy.confidence(votes("112")) == policy.confidence(votes("11"))
    known = {"0": calibration("0", weight=0.0)}
    assert make_policy(Policy(kind="weighted", rates=rates), "012", known).confidence(votes("1")) == 0.5


def test_a_policy_that_knows_nothing_of_its_judges_says_what_to_do() -> None:
    unseen = replace(calibration("0"), right=0, wrong=0, ties=0, inconsistent=0, invalid=7)
    for known in ({}, {"0": unseen}):
        with pytest.raises(ConfigError, match="add a gold recipe"):
            make_policy(Policy(kind="weighted"), "012", known)
    with pytest.raises(ConfigError, match="early_exit = false"):
        make_policy(Policy(kind="dawid_skene"), "012", {})


def test_dawid_skene_is_bayes_over_first_second_and_neither() -> None:
    one = Trust(judge="0", right=0.8, wrong=0.1, guess=0.3)
    two = Trust(judge="1", right=0.5, wrong=0.2, guess=0.2)
    policy = make_policy(Policy(kind="dawid_skene"), "01", {}, Consensus(trusts=(one, two), even=0.2))
    first, second, neither = 0.4 * 0.8 * 0.3, 0.4 * 0.1 * 0.3, 0.2 * 0.3 * 0.6
    by_hand = (first + neither / 2) / (first + second + neither)
    assert policy.confidence(votes("1-")) == pytest.approx(by_hand, abs=1e-6)
    assert policy.confidence(votes("1!")) == pytest.approx((0.32 + 0.03) / (0.32 + 0.04 + 0.06), abs=1e-6)


@given(policies(), ballots())
def test_a_pair_is_kept_only_with_the_precision_asked_for(policy: AgreementPolicy, said: list[Vote]) -> None:
    outcome, confidence = policy.decide(said), policy.confidence(said)
    if confidence is not None and not isinstance(outcome, Reason):
        assert confidence >= max(0.5, policy.rule.precision)  # type: ignore[attr-defined]


@given(policies(), ballots())
def test_no_policy_prefers_a_side(policy: AgreementPolicy, said: list[Vote]) -> None:
    outcome, opposite = policy.decide(said), policy.decide(mirrored(said))
    assert opposite == (outcome if isinstance(outcome, Reason) else MIRROR[outcome])
    assert policy.confidence(mirrored(said)) == policy.confidence(said)


@given(policies(), ballots(), st.randoms(use_true_random=False))
def test_the_order_of_votes_does_not_matter(policy: AgreementPolicy, said: list[Vote], dice: object) -> None:
    shuffled = list(said)
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    assert policy.decide(shuffled) == policy.decide(said)
    assert policy.confidence(shuffled) == policy.confidence(said)


@settings(max_examples=60, deadline=None)
@given(policies(), ballots(), st.data())
def test_a_settled_pair_cannot_be_kept(
    policy: AgreementPolicy, said: list[Vote], data: st.DataObject
) -> None:
    """Early exit keeps the same pairs: settled if, and only if, no answers of the judges left keep it."""
    left = [judge for judge in PANEL if judge not in {vote.judge for vote in said}]
    each = [[None, *_extremes(judge), data.draw(answers(judge))] for judge in left]
    completions = [[*said, *(vote for vote in given if vote)] for given in product(*each)]
    lost = all(isinstance(policy.decide(completion), Reason) for completion in completions)
    assert policy.settled(said, left) == lost


def _extremes(judge: str) -> list[Vote]:
    sides: list[tuple[Choice, bool]] = [
        ("first", True), ("second", True), ("tie", True), ("tie", False), ("invalid", True)
    ]  # fmt: skip
    bare = [Vote(judge=judge, choice=choice, consistent=consistent) for choice, consistent in sides]
    return [
        *bare,
        *(replace(bare[3], p_first=p_first) for p_first in (0.0, 1.0)),
        replace(bare[0], p_first=1.0),
    ]


@given(ballots())
def test_what_unanimous_keeps_majority_keeps_too(said: list[Vote]) -> None:
    outcome = UNANIMOUS.decide(said)
    if not isinstance(outcome, Reason):
        assert MAJORITY.decide(said) == outcome


@given(st.floats(0, 1))
def test_evidence_is_bounded_and_mirrors_to_the_bit(p_first: float) -> None:
    said = Vote(judge="j", choice="first", consistent=True, p_first=p_first)
    assert abs(evidence(said, graded=True)) < 7
    assert evidence(replace(said, p_first=1 - p_first), graded=True) == -evidence(said, graded=True)
    assert evidence(said, graded=False) == 2.0


def verdict(order: Order, choice: Choice, p_first: float | None = None) -> Verdict:
    return Verdict(
        id=order, pair_id="p", category="c", judge="j", judge_id="j", rubric_id="r",
        order=order, choice=choice, p_first=p_first, raw="",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("forward", "swapped", "choice", "consistent"),
    [
        ("first", "first", "first", True),
        ("tie", "tie", "tie", True),
        ("first", "second", "tie", False),
        ("first", "tie", "tie", False),
        ("invalid", "first", "invalid", True),
    ],
)
def test_both_orders_make_one_vote(
    forward: Choice, swapped: Choice, choice: Choice, consistent: bool
) -> None:
    made = vote("j", [verdict("forward", forward), verdict("swapped", swapped)])
    assert (made.choice, made.consistent, made.p_first) == (choice, consistent, None)


def test_a_vote_has_the_mean_probability_of_both_orders() -> None:
    made = vote("j", [verdict("forward", "first", 0.9), verdict("swapped", "first", 0.6)])
    assert made.p_first == pytest.approx(0.75)
    assert vote("j", [verdict("forward", "first", 0.9), verdict("swapped", "tie")]).p_first == 0.9


def test_a_judge_that_always_says_a_is_inconsistent() -> None:
    answer = Answer(choice="a", p_a=0.9, raw="A")
    choices = [in_pair_coordinates(answer, order) for order in ("forward", "swapped")]
    assert choices == ["first", "second"]
    assert not vote("j", [verdict("forward", choices[0]), verdict("swapped", choices[1])]).consistent
