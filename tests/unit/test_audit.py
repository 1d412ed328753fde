"""How far scorers contradict each other: the counting, and real judges on both kinds of dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import Rubric
from pipeline.dataset.audit import Scorer, conflict, opened, scores_alone
from pipeline.dataset.labelled import Labelled, Skip, parquet_pairs, shard_pairs
from pipeline.errors import ConfigError
from pipeline.judges.base import Answer, Hosting, JudgeSpec, Media, Question
from pipeline.judges.table import JUDGES
from pipeline.records import ORDERS
from pipeline.report.statistics import wilson
from pipeline.storage import open_store
from tests.e2e.world import prompts, shipped
from tests.unit.pick_a_pic import encoded, row, write

QUALITY = ("quality-pixels", "quality-spectrum", "quality-information")


class Levels:
    """Prefers the higher level; what the levels of a pair are stands in its media."""

    def __init__(self, place: int) -> None:
        self._place = place

    def open(self) -> None: ...

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        for question in questions:
            a, b = (side.data.split(b",")[self._place] for side in (question.a, question.b))
            if b"!" in (a, b):
                yield Answer(choice="invalid", p_a=None, raw="no")
            else:
                yield Answer(choice="tie" if a == b else "a" if a > b else "b", p_a=None, raw="")

    def close(self) -> None: ...


class First(Levels):
    """Prefers what is shown first, unless the levels are far apart."""

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        for question in questions:
            a, b = (int(side.data.split(b",")[self._place]) for side in (question.a, question.b))
            yield Answer(choice="b" if b > a + 1 else "a", p_a=None, raw="")


def pair(
    first: Iterable[int | str], second: Iterable[int | str], label: Any = None, name: str = "p"
) -> Labelled:
    sides = [
        Media(sha256=str(number), mime="image/jpeg", data=",".join(map(str, levels)).encode())
        for number, levels in enumerate((first, second))
    ]
    return Labelled(id=name, prompt="a cat", first=sides[0], second=sides[1], label=label)


def panel(count: int) -> list[Scorer]:
    return [Scorer(name=f"s{n}", judge=Levels(n), orders=ORDERS[:1]) for n in range(count)]


@st.composite
def datasets(draw: st.DrawFn) -> tuple[int, list[Labelled]]:
    count = draw(st.integers(2, 4))
    levels = st.lists(st.sampled_from("000111222345!"), min_size=count, max_size=count)
    rows = st.tuples(levels, levels, st.sampled_from(["first", "second", None]))
    return count, [pair(*row) for row in draw(st.lists(rows, max_size=80))]


@settings(max_examples=60)
@given(datasets())
def test_counts_are_those_of_counting_by_hand(given_: tuple[int, list[Labelled]]) -> None:
    count, pairs = given_
    said = []
    for shown in pairs:
        both = [side.data.decode().split(",") for side in (shown.first, shown.second)]
        if "!" not in both[0] + both[1]:
            signs = [(a > b) - (a < b) for a, b in zip(*both, strict=True)]
            said.append((signs, {"first": 1, "second": -1, None: 0}[shown.label]))
    found = conflict(pairs, panel(count))
    names = found.scorers
    assert (found.pairs, sum(found.skipped.values())) == (len(said), len(pairs) - len(said))
    ranked = [signs for signs, _ in said if 0 not in signs]
    alike = sum(len(set(signs)) == 1 for signs in ranked)
    assert (found.alike.hits, found.alike.total) == (alike, len(said))
    assert (found.alike_of_ranked.hits, found.alike_of_ranked.total) == (alike, len(ranked))
    assert found.alike.interval == wilson(alike, len(said))
    for one, other in combinations(range(count), 2):
        products = [signs[one] * signs[other] for signs, _ in said if signs[one] * signs[other]]
        share = found.two[names[one], names[other]]
        assert (share.hits, share.total) == (products.count(1), len(products))
    for place, name in enumerate(names):
        products = [signs[place] * label for signs, label in said if signs[place] * label]
        assert (found.label[name].hits, found.label[name].total) == (products.count(1), len(products))
        assert found.ties[name] == sum(signs[place] == 0 for signs, _ in said)


def test_coins_are_alike_as_often_as_chance_says() -> None:
    coins = np.random.default_rng(0).integers(0, 2, (4000, 5))
    found = conflict([pair(map(int, row), map(int, 1 - row)) for row in coins], panel(5))
    assert found.chance == 1 / 16
    low, high = found.alike.interval
    assert low < found.chance < high


def test_what_a_scorer_cannot_answer_is_skipped_with_its_name_or_the_media_at_fault() -> None:
    whole = Media(sha256="a", mime="image/jpeg", data=encoded(0))
    other = Media(sha256="b", mime="image/jpeg", data=encoded(1))
    torn = Media(sha256="c", mime="image/jpeg", data=encoded(1)[: len(encoded(1)) // 2])

    class Mute(Levels):
        def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
            return (Answer(choice="invalid", p_a=None, raw="refused") for _ in questions)

    rows = [
        Labelled(id=str(n), prompt="a cat", first=whole, second=side, label=None)
        for n, side in enumerate((other, torn))
    ]
    found = conflict([*rows, Skip.DAMAGED], [Scorer(name="mute", judge=Mute(0), orders=ORDERS[:1])] * 2)
    assert found.pairs == 0
    assert found.skipped == {"no answer of mute": 1, str(Skip.UNREADABLE): 1, str(Skip.DAMAGED): 1}
    assert found.alike.value is None


def test_a_judge_that_compares_is_asked_in_both_orders() -> None:
    assert [
        scores_alone(JUDGES[name]) for name in ("quality-pixels", "Qwen3-VL-8B", "Qwen3-VL-8B/checklist")
    ] == [
        True,
        False,
        True,
    ]
    rows = [pair([0, 0], [1, 1]), pair([0, 0], [5, 5]), pair([5, 5], [0, 0])]
    biased = Scorer(name="biased", judge=First(0), orders=ORDERS)
    fair = Scorer(name="fair", judge=Levels(1), orders=ORDERS[:1])
    found = conflict(rows, [biased, fair])
    assert found.ties == {"biased": 1, "fair": 0}, "its place decided the first pair: no ranking"
    assert (found.alike.hits, found.alike_of_ranked.total) == (2, 2)


@pytest.mark.parametrize(
    ("names", "modality", "said"),
    [
        (["quality-pixels"], "image", "two scorers or more"),
        (["quality-pixels"] * 2, "image", "each named once"),
        (["quality-pixels", "motion-flow"], "image", "motion-flow sees no images"),
    ],
)
def test_panels_that_cannot_be_compared_are_refused(names: list[str], modality: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said), opened(asked(names), modality):
        pass


def asked(names: Iterable[str]) -> list[tuple[JudgeSpec, Hosting]]:
    return [(JUDGES[name], Hosting()) for name in names]


@pytest.mark.slow
def test_every_pair_that_a_run_shipped_is_audited_by_its_own_judges(images_run: Path) -> None:
    store = open_store(str(images_run))
    entries = {entry.pair_id: entry for entry in shipped(images_run)}
    rows = [one for one in shard_pairs(store, "alignment", checks=True) if isinstance(one, Labelled)]
    assert {one.id for one in rows} == entries.keys()
    checks = {one.text: one.checks for one in prompts(images_run)}
    assert all(one.checks == checks[one.prompt] and one.checks.objects for one in rows)
    for one in rows:
        digests = {member.name.split(".")[1]: member.sha256 for member in entries[one.id].members}
        assert (one.first.sha256, one.second.sha256) == (digests["winner"], digests["loser"])
        assert hashlib.sha256(one.first.data).hexdigest() == digests["winner"]
    with opened(asked(["objects-pieces", "objects-palette"]), "image") as scorers:
        found = conflict(rows, scorers)
    assert (found.pairs, found.skipped) == (len(entries), {})
    # These two judges made the labels: none of their rankings can contradict one that shipped.
    assert all(share.hits == share.total > 0 for share in found.label.values())
    assert found.alike.hits == found.alike_of_ranked.total > 0


def test_pick_a_pic_is_audited_by_judges_that_need_no_weights(tmp_path: Path) -> None:
    uri = write(tmp_path / "train.parquet", [row(n) for n in range(36)])
    with opened(asked(QUALITY), "image") as scorers:
        found = conflict(parquet_pairs(uri), scorers)
        assert found == conflict(parquet_pairs(uri), scorers)
        choices = [by_hand(scorer, uri) for scorer in scorers]
    assert (found.scorers, found.pairs, found.skipped, found.chance) == (QUALITY, 36, {}, 0.25)
    ranked = [said for said in zip(*choices, strict=True) if "tie" not in said]
    alike = sum(len(set(said)) == 1 for said in ranked)
    assert (found.alike.hits, found.alike_of_ranked.hits) == (alike, alike)
    assert 0 < alike < len(ranked) == found.alike_of_ranked.total < 36, (
        "the pictures should divide the judges"
    )


def by_hand(scorer: Scorer, uri: str) -> list[str]:
    """Return what a judge chooses of each row in the other order: a scorer's place has no say."""
    rows = [found for found in parquet_pairs(uri) if isinstance(found, Labelled)]
    rubric = Rubric(question="", criteria=())
    questions = [
        Question(id=r.id, prompt=r.prompt, checks=r.checks, rubric=rubric, a=r.second, b=r.first)
        for r in rows
    ]
    return [answer.choice for answer in scorer.judge.ask(questions)]


def test_bad_rows_are_counted_by_reason(tmp_path: Path) -> None:
    torn = encoded(1)[: len(encoded(1)) // 2]
    rows = [
        *(row(0), row(1, caption=None), row(2, caption="  "), row(3, jpg_0=None), row(4, jpg_1=b"")),
        *(row(5, jpg_1=encoded(5)), row(6, jpg_0=b"not a JPEG"), row(7, jpg_1=torn)),
    ]
    with opened(asked(QUALITY), "image") as scorers:
        found = conflict(parquet_pairs(write(tmp_path / "a.parquet", rows)), scorers)
    assert found.pairs == 1
    assert found.skipped == {
        Skip.NO_PROMPT: 2,
        Skip.MISSING_MEDIA: 2,
        Skip.SAME_MEDIA: 1,
        Skip.UNREADABLE: 2,
    }


def test_it_says_now_and_then_how_far_it_is() -> None:
    done: list[int] = []
    found = conflict([pair([1, 1], [0, 0])] * 40, panel(2), seen=done.append)
    assert (done, found.alike.value) == ([32, 40], 1.0)
