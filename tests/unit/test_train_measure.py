"""Held-out pairs: what is said of them is what a hand computes, and visits are the same for all models."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.train.measure import bootstrap, summary, wilson
from pipeline.train.noise import chance

Z = np.array([[3.0, -1.0], [-4.0, 2.0], [1.0, -1.0], [0.5, 0.5]])
T = np.array([[0.1, 0.6], [0.2, 0.7], [0.2, 0.9], [0.1, 0.9]])


def test_a_summary_is_what_a_hand_computes() -> None:
    found = summary(list("abcd"), {"t": T, "z": Z, "winner_change": -Z / 10, "loser_change": Z / 5})
    assert (found.pairs, found.visits) == (4, 2)
    # Means over visits: 1, -1, 0, 0.5. Two of four right, and a tie.
    assert found.accuracy.value == 2.5 / 4
    assert (found.accuracy.low, found.accuracy.high) == wilson(2.5 / 4, 4)
    assert found.accuracy_by_t == (3 / 4, None, 1 / 2, 1 / 2)
    assert found.z.value == pytest.approx(0.125)
    assert found.winner_change.value == pytest.approx(-0.0125)
    assert found.loser_change.value == pytest.approx(0.025)
    assert found.each["pair_id"] == list("abcd")
    assert found.each["z"] == [1.0, -1.0, 0.0, 0.5]


def test_bootstrap_intervals_are_those_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(2, 3, 400)
    found = bootstrap(values)
    assert found == bootstrap(values), "the same each time"
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.08)
    assert found.high == pytest.approx(values.mean() + half, abs=0.08)


def test_seeds_widen_an_interval_and_pairing_narrows_it() -> None:
    pairs = np.random.default_rng(2).normal(0, 1, 200)
    alike, apart = np.stack([pairs, pairs]), np.stack([pairs - 1, pairs + 1])
    assert bootstrap(apart).high - bootstrap(apart).low > 3 * (bootstrap(alike).high - bootstrap(alike).low)
    better = pairs + np.random.default_rng(3).normal(0.1, 0.01, 200)
    assert bootstrap(better - pairs).low > 0, "pair by pair a small difference is seen"
    assert bootstrap(better).low < 0


def test_visits_of_held_out_pairs_spread_over_all_timesteps_whatever_the_seed() -> None:
    for visits in (2, 8, 16):
        parts = [{int(chance(0, pair, -1 - n).time * visits) for n in range(visits)} for pair in "abc"]
        assert parts == [set(range(visits))] * 3, "one in each part"
    assert chance(1, "a", -3).time == chance(2, "a", -3).time
    np.testing.assert_array_equal(chance(1, "a", -3).noise((4,)), chance(2, "a", -3).noise((4,)))
    assert chance(0, "a", -1).time != chance(0, "b", -1).time
    noises = {chance(0, "a", draw).noise((4,)).tobytes() for draw in range(-8, 8)}
    assert len(noises) == 16, "none is seen in training"
    assert chance(0, "a", -1).caption == 1.0, "no prompt is dropped"
