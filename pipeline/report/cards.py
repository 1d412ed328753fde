"""One card of a contact sheet: both sides of a pair, who won, and what every judge said in both orders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pipeline.records import Agreement, Defect, Order, Prompt, Reason, Side, Verdict, Vote
from pipeline.report.sheets import Picture, Sample, picture

REASONS: dict[Reason, tuple[str, str]] = {
    Reason.MISSING_MEDIA: ("Missing media", "a side was never generated"),
    Reason.SAME_MEDIA: ("Same media", "both sides are byte for byte the same"),
    Reason.GOLD: ("Gold", "a calibration pair with a known winner: judged, never shipped"),
    Reason.INVALID_VERDICT: ("Invalid verdict", "a judge gave no usable answer"),
    Reason.INCONSISTENT: ("Inconsistent", "a judge changed its mind when the order was swapped"),
    Reason.CONFLICT: ("Conflict", "judges chose different sides"),
    Reason.UNEXPECTED: ("Unexpected", "judges chose the side that the recipe made to lose"),
    Reason.TOO_FEW_VOTES: ("Too few votes", "not enough judges chose a side to be sure"),
}
"""Reason -> name and explanation on the page."""

LONGEST_ANSWER = 240
"""Characters shown of a judge's raw answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SideView:
    """One side: a picture, or the problem that took its place."""

    name: Side
    generator: str
    picture: Picture | None
    problem: str
    won: bool
    expected: bool
    defects: tuple[Defect, ...]
    other_prompt: Prompt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballot:
    """What one judge said in both orders and how that was merged."""

    judge: str
    answers: dict[Order, Verdict]
    vote: Vote | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A pair as the page shows it."""

    pair_id: str
    prompt: str
    kept: bool
    confidence: float | None
    reason: Reason | None
    label: str
    explanation: str
    sides: tuple[SideView, ...]
    ballots: tuple[Ballot, ...]


def card(sample: Sample, fetch: Callable[[str, str], bytes]) -> Card:
    """Draw a sample; media that cannot be had leave a line that says why."""
    agreement = sample.agreement
    root = sample.prompts.get(agreement.root_id)
    label, explanation = REASONS[agreement.reason] if agreement.reason else ("Kept", "")
    return Card(
        pair_id=agreement.pair_id,
        prompt=root.text if root else "This prompt is not in the build.",
        kept=agreement.kept,
        confidence=agreement.confidence,
        reason=agreement.reason,
        label=label,
        explanation=explanation,
        sides=_sides(sample, fetch),
        ballots=_ballots(agreement, sample.verdicts),
    )


def _sides(sample: Sample, fetch: Callable[[str, str], bytes]) -> tuple[SideView, ...]:
    if sample.pair is None:
        return ()
    ids: dict[Side, str] = {"first": sample.pair.first_id, "second": sample.pair.second_id}
    return tuple(_side(name, made, sample, fetch) for name, made in ids.items())


def _side(name: Side, made: str, sample: Sample, fetch: Callable[[str, str], bytes]) -> SideView:
    generation = sample.generations.get(made)
    drawn = picture(generation, fetch)
    own = sample.prompts.get(generation.prompt_id) if generation else None
    return SideView(
        name=name,
        generator=generation.generator if generation else "unknown",
        picture=drawn if isinstance(drawn, Picture) else None,
        problem=drawn if isinstance(drawn, str) else "",
        won=sample.agreement.winner_id == made,
        expected=sample.pair is not None and sample.pair.expected == name,
        defects=(generation.defects or ()) if generation else (),
        other_prompt=own if own and own.id != sample.agreement.root_id else None,
    )


def _ballots(agreement: Agreement, verdicts: tuple[Verdict, ...]) -> tuple[Ballot, ...]:
    votes = {vote.judge: vote for vote in agreement.votes}
    answers: dict[str, dict[Order, Verdict]] = {judge: {} for judge in votes}
    for verdict in sorted(verdicts, key=lambda verdict: verdict.id):
        answers.setdefault(verdict.judge, {})[verdict.order] = verdict
    return tuple(
        Ballot(judge=judge, answers=answers[judge], vote=votes.get(judge)) for judge in sorted(answers)
    )
