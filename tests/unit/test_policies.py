"""Agreement: what is kept, and the one reason why the rest is not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import Policy
from pipeline.judges.base import Answer
from pipeline.records import Choice, Order, Reason, Verdict, Vote
from pipeline.stages.judge import in_pair_coordinates
from pipeline.stages.policies import make_policy, vote

UNANIMOUS = make_policy(Policy(kind="unanimous", votes=2))
MAJORITY = make_policy(Policy(kind="majority", votes=2))
VOTES = st.lists(
    st.builds(
        Vote,
        judge=st.sampled_from("abc"),
        choice=st.sampled_from(["first", "second", "tie"]),
        consistent=st.booleans(),
    ),
    max_size=5,
)
MIRROR: dict[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie", "invalid": "invalid"}


def votes(choices: str) -> list[Vote]:
    """``1`` first, ``2`` second, ``-`` tie, ``x`` a judge that changed its mind."""
    named: dict[str, Choice] = {"1": "first", "2": "second", "-": "tie", "x": "tie"}
    return [Vote(judge=str(i), choice=named[c], consistent=c != "x") for i, c in enumerate(choices)]


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
    ],
)
def test_unanimous(given_votes: str, outcome: str) -> None:
    assert UNANIMOUS.decide(votes(given_votes)) == outcome


@pytest.mark.parametrize(
    ("given_votes", "outcome"),
    [
        ("112", "first"),
        ("22x", "second"),
        ("1122", Reason.CONFLICT),
        ("1--", Reason.TOO_FEW_VOTES),
        ("xxx", Reason.TOO_FEW_VOTES),
        ("12-", Reason.CONFLICT),
    ],
)
def test_majority(given_votes: str, outcome: str) -> None:
    assert MAJORITY.decide(votes(given_votes)) == outcome


def test_single_follows_its_judge_alone() -> None:
    policy = make_policy(Policy(kind="single", judge="1"))
    assert policy.decide(votes("12-")) == "second"
    assert policy.decide(votes("1-2")) is Reason.TOO_FEW_VOTES
    assert policy.decide(votes("1x1")) is Reason.INCONSISTENT
    assert policy.decide(votes("1")) is Reason.TOO_FEW_VOTES


@given(VOTES)
def test_no_policy_prefers_a_side(given_votes: list[Vote]) -> None:
    mirrored = [Vote(judge=v.judge, choice=MIRROR[v.choice], consistent=v.consistent) for v in given_votes]
    for policy in (UNANIMOUS, MAJORITY, make_policy(Policy(kind="single", judge="a"))):
        outcome, opposite = policy.decide(given_votes), policy.decide(mirrored)
        assert opposite == (outcome if isinstance(outcome, Reason) else MIRROR[outcome])


@given(VOTES)
def test_what_unanimous_keeps_majority_keeps_too(given_votes: list[Vote]) -> None:
    outcome = UNANIMOUS.decide(given_votes)
    if not isinstance(outcome, Reason):
        assert MAJORITY.decide(given_votes) == outcome


def verdict(order: Order, choice: Choice) -> Verdict:
    return Verdict(
        id=order, pair_id="p", category="c", judge="j", judge_id="j", rubric_id="r",
        order=order, choice=choice, p_first=None, raw="",
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
    assert (made.choice, made.consistent) == (choice, consistent)


def test_a_judge_that_always_says_a_is_inconsistent() -> None:
    answer = Answer(choice="a", p_a=0.9, raw="A")
    choices = [in_pair_coordinates(answer, order) for order in ("forward", "swapped")]
    assert choices == ["first", "second"]
    assert not vote("j", [verdict("forward", choices[0]), verdict("swapped", choices[1])]).consistent
