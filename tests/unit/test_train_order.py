"""Order is a function of the step: a permutation in each epoch, weights exact, batches of one bucket."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.train.order import Cell, Order, permuted


def cell(start: int, size: int, *, bucket: int = 0, weight: float = 1.0) -> Cell:
    return Cell(bucket=bucket, rows=np.arange(start, start + size), weight=weight)


@given(st.integers(1, 3000), st.integers(0, 5))
def test_it_is_a_permutation(size: int, key: int) -> None:
    assert sorted(permuted(np.arange(size), size, key)) == list(range(size))


def test_permutations_are_spread_evenly() -> None:
    """Over many keys every element of a small set falls on every place about equally often."""
    found = np.array([permuted(np.arange(5), 5, key) for key in range(2000)])
    counts = np.array([np.bincount(found[:, place], minlength=5) for place in range(5)])
    assert counts.min() > 320
    assert counts.max() < 480
    assert len({tuple(row) for row in found}) == 120


def test_neighbours_are_torn_apart() -> None:
    found = permuted(np.arange(100_000), 100_000, 1)
    assert abs(np.corrcoef(np.arange(100_000), found)[0, 1]) < 0.02
    assert (np.abs(np.diff(found)) < 10).mean() < 0.001


def test_a_set_of_ten_billion_costs_no_more() -> None:
    assert len(set(permuted(np.arange(1000), 10**10, 1))) == 1000


def test_an_epoch_shows_every_pair_once() -> None:
    order = Order([cell(0, 30), cell(100, 34)], batch=8, seed=1)
    assert order.steps == 8
    for epoch in range(3):
        batches = [order[step] for step in range(epoch * 8, epoch * 8 + 8)]
        assert sorted(np.concatenate([b.rows for b in batches])) == [*range(30), *range(100, 134)]
        assert {int(draw) for b in batches for draw in b.draws} == {epoch}


def test_epochs_and_seeds_differ() -> None:
    orders = [Order([cell(0, 64)], batch=64, seed=seed) for seed in (1, 1, 2)]
    assert orders[0][0].rows.tolist() == orders[1][0].rows.tolist()
    assert orders[0][0].rows.tolist() != orders[2][0].rows.tolist()
    assert orders[0][0].rows.tolist() != orders[0][1].rows.tolist()


@settings(max_examples=15)
@given(
    st.lists(st.tuples(st.integers(1, 40), st.sampled_from([0.25, 0.5, 1, 1.5, 2])), min_size=1, max_size=4)
)
def test_weights_are_exact_and_no_visit_repeats(sizes: list[tuple[int, float]]) -> None:
    cells = [cell(1000 * n, size, weight=weight) for n, (size, weight) in enumerate(sizes)]
    total = sum(one.shown for one in cells)
    if not total:
        return
    order = Order(cells, batch=1, seed=3)
    seen: Counter[int] = Counter()
    visits: set[tuple[int, int]] = set()
    for step in range(4 * total):
        drawn = order[step]
        visit = (int(drawn.rows[0]), int(drawn.draws[0]))
        assert visit not in visits, "a pair would get the same noise twice"
        visits.add(visit)
        seen[visit[0]] += 1
    for one in cells:
        counts = [seen[int(row)] for row in one.rows]
        assert sum(counts) == 4 * one.shown
        assert max(counts) - min(counts) <= 1, "all are shown before one is again"


def test_batches_keep_to_one_bucket_and_buckets_are_mixed() -> None:
    order = Order([cell(0, 40), cell(100, 40, bucket=1)], batch=4, seed=0)
    buckets = []
    for step in range(order.steps):
        drawn = order[step]
        assert {int(row) >= 100 for row in drawn.rows} == {drawn.bucket == 1}
        buckets.append(drawn.bucket)
    assert Counter(buckets) == {0: 10, 1: 10}
    assert buckets not in ([0] * 10 + [1] * 10, [1] * 10 + [0] * 10)


def test_a_bucket_that_fills_no_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"batch of 8 pairs .* 64, 7 pairs: lower optim\.batch"):
        Order([cell(0, 64), cell(100, 7, bucket=1)], batch=8, seed=0)
    with pytest.raises(ConfigError, match="there are no pairs"):
        Order([], batch=8, seed=0)
