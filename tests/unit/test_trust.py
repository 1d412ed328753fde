"""What gold pairs and agreement say of judges, held against judges whose skill is known."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Policy, Rate
from pipeline.records import ORDERS, Calibration, Choice, Reason, Side, Verdict, Vote
from pipeline.stages.policies import evidence, make_policy
from pipeline.stages.trust import asked_shares, calibrate, consensus, weigh
from tests.bench.exits import audit, early_exit
from tests.bench.judges import label, right, scores
from tests.bench.simulated import Simulated, World, draw

OTHER: dict[Side, Side] = {"first": "second", "second": "first"}
UNEQUAL = (
    Simulated(name="good", skill=3.0, bias=0.2),
    Simulated(name="fair", skill=1.5, bias=0.6),
    Simulated(name="weak", skill=1.0, bias=0.8),
)


def verdicts(forward: Choice, swapped: Choice, judge: str = "j") -> list[Verdict]:
    return [
        Verdict(
            id=order, pair_id="p", category="c", judge=judge, judge_id=judge, rubric_id="r",
            order=order, choice=choice, p_first=None, raw="",
        )
        for order, choice in zip(ORDERS, (forward, swapped), strict=True)
    ]  # fmt: skip


def calibrated(right_: int, wrong: int) -> Calibration:
    pairs = [(verdicts("first", "first"), side) for side in ["first"] * right_ + ["second"] * wrong]
    return calibrate("c", "j", pairs)  # type: ignore[arg-type]


def found(*judges: str) -> list[Calibration]:
    """Judges that gold pairs have not shown to be bad."""
    return [replace(calibrated(30, 5), judge=judge) for judge in judges]


def coins(
    accuracy: Sequence[float], often: float, pairs: int, seed: int = 1
) -> Iterator[tuple[list[Vote], Side]]:
    """Judges named 0, 1, ... that err independently of each other and vote as ``often``."""
    rng = np.random.default_rng(seed)
    for _ in range(pairs):
        better: Side = "first" if rng.random() < 0.5 else "second"
        said = [better if rng.random() < share else OTHER[better] for share in accuracy]
        yield (
            [
                Vote(judge=str(judge), choice=side if rng.random() < often else "tie", consistent=True)
                for judge, side in enumerate(said)
            ],
            better,
        )


def mirrored(said: Sequence[Vote]) -> list[Vote]:
    turned: dict[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie"}
    return [
        replace(v, choice=turned[v.choice], p_first=None if v.p_first is None else 1 - v.p_first)
        for v in said
    ]


def test_a_calibration_counts_every_kind_of_answer() -> None:
    gold: list[tuple[Sequence[Verdict], Side]] = [
        (verdicts("first", "first"), "first"),
        (verdicts("second", "second"), "first"),
        (verdicts("second", "second"), "second"),
        (verdicts("first", "second"), "first"),  # A both times
        (verdicts("tie", "tie"), "second"),
        (verdicts("invalid", "first"), "first"),
    ]
    known = calibrate("c", "j", gold)
    assert (known.right, known.wrong, known.ties, known.inconsistent, known.invalid) == (2, 1, 1, 1, 1)
    # A was shown first in forward order: 1 + 1 + 1 + 2 + 0 + 0 of 2 + 2 + 2 + 2 + 0 + 1 sided answers.
    assert known.a_bias == pytest.approx(5 / 9 - 0.5, abs=1e-4)
    assert [known.low, known.high] == pytest.approx([0.2077, 0.9385], abs=1e-4)
    assert calibrate("c", "j", []).a_bias == 0.0


@pytest.mark.parametrize(
    ("right_", "wrong", "abstains"),
    [
        (11, 9, True),  # the motion judge of the ViPO paper
        (10, 9, False),  # too few to tell
        (14, 6, True),  # 14 of 20 may still be chance
        (15, 5, False),
        (3, 17, True),  # worse than chance
        (0, 0, False),
        (55, 45, True),
        (62, 38, False),
    ],
)
def test_a_judge_abstains_if_gold_pairs_do_not_show_it_better_than_chance(
    right_: int, wrong: int, abstains: bool
) -> None:
    assert calibrated(right_, wrong).abstains == abstains


def test_better_judges_weigh_more_and_chance_weighs_nothing() -> None:
    gold = list(coins([0.95, 0.75, 0.5], often=0.9, pairs=2000))
    good, fair, chance = (known.weight for known in weigh(found("0", "1", "2"), gold))
    assert good > fair > 0.2
    assert chance < 0.1
    # Independent judges: the weight of a vote is its log-odds, and a bare vote stands for 2.
    assert 2 * good == pytest.approx(math.log(0.95 / 0.05), rel=0.15)
    assert 2 * fair == pytest.approx(math.log(0.75 / 0.25), rel=0.15)


def test_a_judge_and_its_echo_share_one_weight() -> None:
    gold = list(coins([0.85], often=1.0, pairs=1000))
    echoed = [([*said, replace(said[0], judge="echo")], side) for said, side in gold]
    (alone,) = weigh(found("0"), gold)
    one, echo = weigh(found("0", "echo"), echoed)
    assert one.weight == echo.weight
    assert 2 * one.weight == pytest.approx(alone.weight, rel=0.05)


def test_a_judge_that_abstains_or_answers_the_opposite_has_no_weight() -> None:
    gold = list(coins([0.9, 0.9, 0.2], often=1.0, pairs=300))
    known = found("0", "1", "2")
    silent = weigh([replace(known[0], abstains=True), *known[1:]], gold)
    assert [row.weight > 0 for row in silent] == [False, True, False]
    assert [row.judge for row in silent] == ["0", "1", "2"]


def test_without_gold_pairs_nobody_has_weight() -> None:
    assert [row.weight for row in weigh(found("0", "1"), [])] == [0.0, 0.0]
    assert weigh([], []) == []


@pytest.mark.parametrize("honest", [True, False])
def test_probabilities_are_evidence_where_they_foretell_the_winner(honest: bool) -> None:
    world = World(name="w", judges=[replace(judge, honest=honest) for judge in UNEQUAL], gold=400)
    known = draw(world, 1, seed=3).calibrations
    assert [row.graded for row in known.values()] == [honest] * 3


VOTES = st.builds(
    Vote,
    judge=st.just("0"),
    choice=st.sampled_from(["first", "second", "tie"]),
    consistent=st.just(True),
    p_first=st.none() | st.floats(0, 1),
)
GOLD = st.lists(st.tuples(st.tuples(VOTES, VOTES), st.sampled_from(["first", "second"])), max_size=30)


@settings(max_examples=40, deadline=None)
@given(GOLD)
def test_weights_are_the_likeliest_ones(drawn: list[tuple[tuple[Vote, Vote], Side]]) -> None:
    gold = [([one, replace(two, judge="1")], side) for (one, two), side in drawn]
    known = weigh(found("0", "1"), gold)
    columns = [
        [(1 if side == "first" else -1) * evidence(said[place], row.graded) for said, side in gold]
        for place, row in enumerate(known)
    ]
    common = _best([[a + b for a, b in zip(*columns, strict=True)]], 0.0, 1.0)[0]
    best = _best(columns, common, 0.5)
    assert [row.weight for row in known] == pytest.approx(best, abs=2e-4)
    assert known == weigh(found("0", "1"), [(mirrored(said), OTHER[side]) for said, side in gold])


def _best(columns: list[list[float]], centre: float, spread: float) -> list[float]:
    """Climb to the likeliest weights of 0 or more, all at once and by small steps."""
    data = np.array(columns).reshape(len(columns), -1)
    weights = np.full(len(columns), centre)
    step = 1 / (1 / spread**2 + (data**2).sum() / 4)
    for _ in range(20_000):
        miss = 1 / (1 + np.exp(np.clip(data.T @ weights, -500, 500)))
        moved = np.maximum(0, weights + step * (data @ miss - (weights - centre) / spread**2))
        if np.abs(moved - weights).max() < 1e-9:
            break
        weights = moved
    return [float(weight) for weight in weights]


@pytest.fixture(scope="module")
def hard() -> list[list[Vote]]:
    """Votes of judges to whom the same pairs are hard."""
    return [list(case.votes.values()) for case in draw(World(name="w", judges=UNEQUAL), 800, seed=2).cases]


@pytest.mark.slow
def test_consensus_finds_the_skill_of_judges_without_gold_pairs() -> None:
    crowd = coins([0.95, 0.85, 0.75, 0.65], often=0.8, pairs=800)
    fitted = consensus([said for said, _ in crowd])
    accuracy = [trust.right / (trust.right + trust.wrong) for trust in fitted.trusts]
    assert [trust.judge for trust in fitted.trusts] == ["0", "1", "2", "3"]
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy == pytest.approx([0.95, 0.85, 0.75, 0.65], abs=0.1)


def test_consensus_prefers_no_side_and_does_not_mind_the_order_of_votes(hard: list[list[Vote]]) -> None:
    fitted = consensus(hard)
    assert consensus([mirrored(said) for said in hard]) == fitted
    assert consensus([said[::-1] for said in hard]) == fitted


def test_consensus_sees_that_pairs_are_hard(hard: list[list[Vote]]) -> None:
    plain = list(coins([0.95, 0.9, 0.9], often=1.0, pairs=500))
    assert consensus([said for said, _ in plain]).even < 0.1 < 0.2 < consensus(hard).even


def test_consensus_of_nothing_knows_nobody() -> None:
    unusable = Vote(judge="0", choice="invalid", consistent=True)
    assert consensus([]).trusts == consensus([[]]).trusts == consensus([[unusable]]).trusts == ()
    policy = make_policy(Policy(kind="dawid_skene"), "0", {}, consensus([]))
    assert policy.decide([Vote(judge="0", choice="first", consistent=True)]) is Reason.TOO_FEW_VOTES


@settings(max_examples=8, deadline=None)
@given(st.lists(st.lists(VOTES, max_size=3), min_size=1, max_size=12))
def test_a_vote_serves_its_side_at_least_as_well_as_no_vote(drawn: list[list[Vote]]) -> None:
    pairs = [[replace(vote, judge=str(place)) for place, vote in enumerate(said)] for said in drawn]
    for trust in consensus(pairs).trusts:
        none = 1 - trust.right - trust.wrong
        assert 0 < trust.wrong <= trust.right < 1
        assert none > 0
        assert 0 < trust.guess * none <= trust.right * (1 - 2 * trust.guess) + 1e-12


def test_shares_asked_of_each_judge_by_hand() -> None:
    rates = {
        "0": Rate(judge="0", accuracy=0.9, vote=0.5),
        "1": Rate(judge="1", accuracy=0.8, vote=0.7),
        "2": Rate(judge="2", accuracy=0.8, vote=1.0),
    }
    policy = make_policy(Policy(kind="unanimous", votes=2), "012", {})
    right_, wrong = 0.5 * 0.9 * 0.7 * 0.8, 0.5 * 0.1 * 0.7 * 0.2
    assert asked_shares(policy, "012", rates) == pytest.approx({"0": 1, "1": 0.5, "2": right_ + wrong})
    silent = make_policy(Policy(kind="unanimous"), "012", {"1": replace(calibrated(11, 9), judge="1")})
    assert asked_shares(silent, "012", rates) == pytest.approx({"0": 1, "1": 0, "2": 0.5})


@pytest.mark.slow
def test_weighted_keeps_more_than_counting_at_equal_precision() -> None:
    for shared in (0.0, 0.5):
        world = World(name="w", judges=UNEQUAL, shared=shared)
        every = scores(world, [draw(world, 1500, seed) for seed in range(2)])
        for counting in ("unanimous", "majority"):
            precision = right(every[counting].kept).value
            assert precision is not None
            assert every["weighted"].kept_at(precision) > every[counting].share * 1.05
        assert right(every["weighted"].kept).value > 0.97  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unanimous", "majority", "single", "weighted"])
def test_early_exit_keeps_the_same_pairs_and_asks_less(kind: str) -> None:
    world = World(name="w", judges=UNEQUAL)
    saved = early_exit(world, [draw(world, 800, seed=5)], Policy(kind=kind, judge="fair", early_exit=True))
    assert saved.same_kept
    assert 0.1 < saved.kept < 0.9
    assert saved.questions < 1
    assert saved.questions == pytest.approx(saved.foretold, abs=0.1)


@pytest.mark.slow
def test_audited_pairs_tell_what_the_full_panel_would() -> None:
    world = World(name="w", judges=UNEQUAL)
    told = list(audit(world, draw(world, 3000, seed=6), Policy(kind="unanimous", early_exit=True)))
    assert sum(row.audited.holds(row.full) for row in told) >= 0.8 * len(told)
    assert sum(row.asked.holds(row.full) for row in told) <= 0.5 * len(told)


def test_simulated_draws_are_the_same_for_the_same_seed() -> None:
    world = World(name="w", judges=UNEQUAL, gold=30)
    assert draw(world, 20, seed=1) == draw(world, 20, seed=1)
    assert draw(world, 20, seed=1) != draw(world, 20, seed=2)
    policy = make_policy(Policy(kind="unanimous"), world.panel, {})
    kept = [label(policy, case).kept for case in draw(world, 200, seed=1).cases]
    assert 0 < sum(kept) < 200
