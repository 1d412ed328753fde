"""Agreement policies: small classes that turn votes into a winner or a reason to drop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline import config
from pipeline.records import Choice, Reason, Side, Verdict, Vote

Outcome = Side | Reason
"""The winning side, or why there is none."""


class AgreementPolicy(Protocol):
    """Decides one pair from the votes of the panel."""

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Return the winning side or the reason to drop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanimous:
    """Every judge consistent under order swap, none for the other side, ``votes`` for the winner."""

    votes: int

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Drop at the first doubt; ties abstain."""
        if any(not vote.consistent for vote in votes):
            return Reason.INCONSISTENT
        first, second = _count(votes, "first"), _count(votes, "second")
        if first and second:
            return Reason.CONFLICT
        if max(first, second) < self.votes:
            return Reason.TOO_FEW_VOTES
        return "first" if first else "second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority:
    """More votes than the other side, at least ``votes``; a judge that is inconsistent abstains."""

    votes: int

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Count consistent votes."""
        steady = [vote for vote in votes if vote.consistent]
        first, second = _count(steady, "first"), _count(steady, "second")
        if first and first == second:
            return Reason.CONFLICT
        if max(first, second) < self.votes:
            return Reason.TOO_FEW_VOTES
        return "first" if first > second else "second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """What one ``judge`` says, if it says the same in both orders; the yardstick for panels."""

    judge: str

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Follow the one judge."""
        vote = next((vote for vote in votes if vote.judge == self.judge), None)
        if vote is None or vote.choice not in ("first", "second"):
            return Reason.TOO_FEW_VOTES if vote is None or vote.consistent else Reason.INCONSISTENT
        return "first" if vote.choice == "first" else "second"


def make_policy(settings: config.Policy) -> AgreementPolicy:
    """Return the policy that a category names."""
    if settings.kind == "single":
        return Single(judge=str(settings.judge))
    if settings.kind == "majority":
        return Majority(votes=settings.votes)
    return Unanimous(votes=settings.votes)


KINDS = ("unanimous", "majority", "single")


def vote(judge: str, verdicts: Sequence[Verdict]) -> Vote:
    """Merge both orders of one judge; different answers to the same pair are no vote."""
    choices: set[Choice] = {verdict.choice for verdict in verdicts}
    if "invalid" in choices:
        return Vote(judge=judge, choice="invalid", consistent=True)
    if len(choices) == 1:
        return Vote(judge=judge, choice=choices.pop(), consistent=True)
    return Vote(judge=judge, choice="tie", consistent=False)


def _count(votes: Sequence[Vote], side: Side) -> int:
    return sum(vote.choice == side for vote in votes)
