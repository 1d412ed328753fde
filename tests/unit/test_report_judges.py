"""What the page says of judges: whether the panel hears them, and what early exit left unasked."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pipeline.records import Calibration, Reason
from pipeline.report.page import render
from tests.unit.test_report_page import Build, Page


@pytest.fixture(scope="module")
def build() -> Build:
    return Build()


def calibration(
    judge: str, right: int, wrong: int, *, low: float, high: float, abstains: bool
) -> Calibration:
    return Calibration(
        category="text_rendering",
        judge=judge,
        right=right,
        wrong=wrong,
        ties=0,
        inconsistent=0,
        invalid=0,
        low=low,
        high=high,
        a_bias=0.0,
        abstains=abstains,
        weight=0.84,
        graded=True,
    )


def test_a_judge_that_abstains_is_called_out_with_the_reason(build: Build) -> None:
    known = [
        calibration("ocr", 11, 9, low=0.342, high=0.742, abstains=True),
        calibration("layout", 5, 1, low=0.44, high=0.97, abstains=False),
    ]
    text = Page(render(replace(build.source(), calibrations=lambda: iter(known)), sheet=1)).text
    shown = re.sub(r"\s+", " ", text)
    assert "abstains11 of 20 gold votes right (34 % to 74 %): chance is not ruled out" in shown
    assert "little known: 6 of the 20 gold votes needed" in shown
    assert "never tried on gold pairs" in shown
    assert "weight 0.84" not in shown
    worse = [calibration("ocr", 3, 17, low=0.05, high=0.36, abstains=True)]
    text = Page(render(replace(build.source(), calibrations=lambda: iter(worse)), sheet=1)).text
    assert "3 of 20 gold votes right (5 % to 36 %): worse than chance" in re.sub(r"\s+", " ", text)


def test_the_weighted_policy_shows_its_weights(build: Build) -> None:
    known = [calibration("ocr", 90, 10, low=0.83, high=0.94, abstains=False)]
    rows = [replace(agreement, policy="weighted") for agreement in build.agreements]
    source = replace(build.source(), calibrations=lambda: iter(known), agreements=lambda: iter(rows))
    assert "90 of 100 gold votes right; weight 0.84 of its probability" in Page(render(source, sheet=1)).text


def test_early_exit_says_what_was_asked_and_on_what_judges_are_measured(build: Build) -> None:
    rows = []
    for number, agreement in enumerate(build.agreements):
        cut = agreement.reason is Reason.CONFLICT
        votes = agreement.votes[:1] if cut else agreement.votes
        rows.append(replace(agreement, votes=votes, audited=number % 5 == 0 and not cut))
    page = Page(render(replace(build.source(), agreements=lambda: iter(rows)), sheet=1))
    own = [row for row in rows if row.category == "text_rendering" and row.reason is not Reason.GOLD]
    assert page.numbers["text_rendering/asked"] == sum(len(row.votes) for row in own)
    assert page.numbers["text_rendering/audited"] == sum(row.audited for row in own)
    assert "Early exit" in page.text
    assert "Early exit" not in Page(render(build.source(), sheet=1)).text
