"""A measured judge compares the two sides, mirrors exactly, and abstains rather than guesses."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import media
from pipeline.config import Rubric
from pipeline.errors import WorkerError
from pipeline.judges import measured
from pipeline.judges.base import Answer, Hosting, Judge, Media, Question
from pipeline.judges.table import JUDGES, make_judge
from pipeline.media import symbols
from pipeline.records import Checks, ObjectCheck

ONE_STAR = Checks(objects=(ObjectCheck(name="star", count=1, colour="red"),))
RUBRIC = Rubric(question="Which image shows what the prompt says?", criteria=("Counts.",))
MIRROR = {"a": "b", "b": "a", "tie": "tie", "invalid": "invalid"}


def stars(count: int) -> Media:
    """Encode a picture of ``count`` red stars in a row."""
    canvas = np.full((256, 1024, 3), 235, np.float32)
    ink = symbols.silhouette("star", 120)[..., None] / 255
    for index in range(count):
        region = canvas[60:180, 40 + 180 * index :][:, : ink.shape[1]]
        region += (np.array(symbols.COLOURS["red"]) - region) * ink
    encoded = media.encode(canvas.round().astype(np.uint8)[None], 0)
    return Media(sha256=encoded.sha256, mime=encoded.mime, data=encoded.data)


STARS = [stars(count) for count in range(6)]


def opened(name: str = "objects-pieces") -> Judge:
    judge = make_judge(JUDGES[name], Hosting())
    judge.open()
    return judge


def ask(judge: Judge, a: Media, b: Media, checks: Checks = ONE_STAR) -> Answer:
    (answer,) = judge.ask([Question(id="q", prompt="a red star", checks=checks, rubric=RUBRIC, a=a, b=b)])
    return answer


@settings(max_examples=36, deadline=None)
@given(a=st.integers(0, 5), b=st.integers(0, 5))
def test_answers_mirror_when_the_order_is_swapped(a: int, b: int) -> None:
    judge = opened()
    forward, swapped = ask(judge, STARS[a], STARS[b]), ask(judge, STARS[b], STARS[a])
    assert swapped.choice == MIRROR[forward.choice]
    assert forward.p_a is not None
    assert swapped.p_a is not None
    assert forward.p_a + swapped.p_a == pytest.approx(1)
    assert (forward.choice == "tie") == (abs(a - 1) == abs(b - 1))
    assert (forward.p_a > 0.5) == (forward.choice == "a")


def test_the_better_side_wins_and_the_scores_are_in_the_answer() -> None:
    answer = ask(opened(), STARS[1], STARS[3])
    assert answer.choice == "a"
    assert answer.raw == "objects:pieces a=-0 b=-0.7"


def test_what_cannot_be_measured_is_a_tie() -> None:
    answer = ask(opened(), STARS[1], STARS[3], Checks())
    assert (answer.choice, answer.p_a) == ("tie", None)
    assert "unmeasured" in answer.raw


@pytest.mark.parametrize("data", [b"", b"not a picture", STARS[2].data[:900]])
def test_media_that_do_not_decode_make_the_answer_invalid(data: bytes) -> None:
    broken = Media(sha256=hashlib.sha256(data).hexdigest(), mime="image/jpeg", data=data)
    judge = opened()
    for answer in (ask(judge, broken, STARS[1]), ask(judge, STARS[1], broken)):
        assert (answer.choice, answer.p_a) == ("invalid", None)
        assert answer.raw
    assert ask(judge, STARS[1], STARS[2]).choice == "a"


def test_forgetting_scores_changes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(a, b) for a in STARS for b in STARS]
    remembering = [ask(judge, a, b) for judge in (opened(),) for a, b in pairs]
    monkeypatch.setattr(measured, "REMEMBERED", 1)
    assert [ask(judge, a, b) for judge in (opened(),) for a, b in pairs] == remembering


def test_scores_are_remembered_by_prompt_too() -> None:
    judge = opened()
    assert ask(judge, STARS[1], STARS[3]).choice == "a"
    three = Checks(objects=(ObjectCheck(name="star", count=3, colour="red"),))
    assert ask(judge, STARS[1], STARS[3], three).choice == "b"


def test_a_judge_that_was_not_opened_says_so() -> None:
    with pytest.raises(WorkerError, match=r"open\(\)"):
        ask(make_judge(JUDGES["objects-pieces"], Hosting()), STARS[1], STARS[3])
