"""Rows in Pick-a-Pic's columns: which side won, whatever the labels' type, and why a row gives no pair."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dataset.labelled import Skip
from pipeline.dataset.pick_a_pic import ImportedPair, Origin, pair_of
from tests.unit.pick_a_pic import encoded, row

ORIGIN = Origin(category="pick_a_pic", licence="research", file="a.parquet", digest="0" * 64)
UIDS = {"image_0_uid": "left", "image_1_uid": "right"}

DROPPED: Mapping[str, tuple[Skip, Mapping[str, Any]]] = {
    "a tie": (Skip.TIE, {"label_0": 0.5, "label_1": 0.5}),
    "a tie in words": (Skip.TIE, {"label_0": "0.5", "label_1": b"0.50"}),
    "no labels": (Skip.NO_LABEL, {"label_0": None, "label_1": None}),
    "one label": (Skip.NO_LABEL, {"label_0": 1.0, "label_1": None}),
    "NaN": (Skip.NO_LABEL, {"label_0": math.nan, "label_1": math.nan}),
    "an empty label": (Skip.NO_LABEL, {"label_0": "", "label_1": " "}),
    "has_label says so": (Skip.NO_LABEL, {"has_label": False}),
    "scores": (Skip.ODD_LABEL, {"label_0": 21.3, "label_1": 19.8}),
    "both lost": (Skip.ODD_LABEL, {"label_0": 0.0, "label_1": 0.0}),
    "both won": (Skip.ODD_LABEL, {"label_0": 1, "label_1": 1}),
    "negative": (Skip.ODD_LABEL, {"label_0": -1.0, "label_1": 2.0}),
    "infinite": (Skip.ODD_LABEL, {"label_0": math.inf, "label_1": -math.inf}),
    "words": (Skip.ODD_LABEL, {"label_0": "winner", "label_1": "loser"}),
    "backwards": (Skip.CONTRADICTED, {**UIDS, "best_image_uid": "right"}),
    "no caption": (Skip.NO_PROMPT, {"caption": None}),
    "blank caption": (Skip.NO_PROMPT, {"caption": " \n\t"}),
    "caption is not UTF-8": (Skip.NO_PROMPT, {"caption": b"caf\xe9"}),
    "no image": (Skip.MISSING_MEDIA, {"jpg_1": None}),
    "empty image": (Skip.MISSING_MEDIA, {"jpg_0": b""}),
    "a path without bytes": (Skip.MISSING_MEDIA, {"jpg_0": {"bytes": None, "path": "a.jpg"}}),
    "equal images": (Skip.SAME_MEDIA, {"jpg_1": encoded(0)}),
    "a PNG": (Skip.NO_JPEG, {"jpg_0": b"\x89PNG\r\n\x1a\n" + encoded(0)}),
    "cut off": (Skip.UNREADABLE, {"jpg_1": encoded(1)[:-2000]}),
    "only its beginning": (Skip.UNREADABLE, {"jpg_0": encoded(0)[:2]}),
}


def judged(**own: Any) -> ImportedPair | Skip:
    """What comes of a row that side 0 wins, with changes."""
    return pair_of(ORIGIN, row(0, **own), 17)


def made(**own: Any) -> ImportedPair:
    found = judged(**own)
    assert isinstance(found, ImportedPair), found
    return found


@pytest.mark.parametrize("case", DROPPED)
def test_a_row_that_gives_no_pair_says_why(case: str) -> None:
    reason, own = DROPPED[case]
    assert judged(**own) is reason


@pytest.mark.parametrize(
    ("won", "lost"),
    [(1.0, 0.0), (1, 0), ("1.0", "0.0"), (b"1", b"0"), (True, False), ("True", "False"), (0.7, 0.3)],
    ids=repr,
)
def test_the_larger_label_wins_whatever_its_type(won: Any, lost: Any) -> None:
    first, second = made(label_0=won, label_1=lost), made(label_0=lost, label_1=won)
    assert (first.winner, first.loser) == (encoded(0), encoded(1))
    assert (second.winner, second.loser) == (encoded(1), encoded(0))
    assert first.id != second.id


def test_best_image_uid_counts_only_where_it_names_a_side() -> None:
    for best in ("left", "", None, "tie", "neither of them"):
        assert made(**UIDS, best_image_uid=best).winner == encoded(0)
    assert made(image_0_uid="", image_1_uid="", best_image_uid="").winner == encoded(0)


def test_a_sample_says_where_it_is_from_and_how_sure_it_is() -> None:
    found = made(label_0=0.25, label_1=0.75, model_0="sd", model_1="xl")
    about = found.about
    assert about["confidence"] == about["verdicts"][0]["p_winner"] == 0.75
    assert about["verdicts"][0]["order"] == "loser_first"
    assert about["imported"] == {"file": "a.parquet", "digest": "0" * 64, "row": 17}
    assert (about["winner"]["generator"], about["loser"]["generator"]) == ("xl", "sd")
    assert about["winner"]["sha256"] == hashlib.sha256(encoded(1)).hexdigest()
    assert (about["winner"]["width"], about["winner"]["height"]) == (192, 192)
    assert made(label_0=1, label_1=0).about["confidence"] == 1.0


def test_the_id_is_of_content_alone() -> None:
    elsewhere = Origin(category="other", licence="permissive", file="b.parquet", digest="1" * 64)
    found = pair_of(elsewhere, row(0, label_0=0.9, label_1=0.1, model_0="sd"), 3)
    assert isinstance(found, ImportedPair)
    assert found.id == made().id
    assert made(caption="a dog").id != made().id


labels = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.floats(),
    st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
    st.sampled_from(["", "0", "1", "1.0", "0.5", "true", "FALSE", "none", "1e400", "nan"]),
    st.text(max_size=4),
    st.binary(max_size=4),
)


@given(
    labels, labels, st.sampled_from([None, True, False, "True", 0]), st.sampled_from([None, "left", "right"])
)
def test_no_labels_are_read_backwards(first: Any, second: Any, labelled: Any, best: str | None) -> None:
    """Whatever stands there: it is dropped, or the side with the larger number wins, and the uid agrees."""
    given = {"label_0": first, "label_1": second, "has_label": labelled, "best_image_uid": best}
    found = judged(**given, **UIDS)
    if isinstance(found, Skip):
        return
    numbers = [plain(one) for one in (first, second)]
    assert sum(numbers) == pytest.approx(1)
    assert found.winner == encoded(int(numbers[1] > numbers[0]))
    assert found.about["confidence"] == pytest.approx(max(numbers))
    assert best in (None, "left" if numbers[0] > numbers[1] else "right")
    assert labelled not in (False, 0)


def plain(label: Any) -> float:
    """The test's own reading of a label."""
    word = (label.decode() if isinstance(label, bytes) else str(label)).strip().lower()
    return float({"true": "1", "false": "0"}.get(word, word))


@given(st.integers(0, 5000), st.integers(1, 40), st.binary(min_size=1, max_size=40))
def test_damaged_images_never_stop_an_import(place: int, length: int, other: bytes) -> None:
    data = encoded(1)
    place %= len(data)
    found = judged(jpg_1=data[:place] + other + data[place + length :])
    assert isinstance(found, ImportedPair) or found in (Skip.UNREADABLE, Skip.NO_JPEG, Skip.SAME_MEDIA)
