"""Agreement policies: small classes that turn votes into a winner or a reason to drop."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline import config
from pipeline.errors import ConfigError
from pipeline.records import Calibration, Choice, Reason, Side, Verdict, Vote

Outcome = Side | Reason
"""The winning side, or why there is none."""

KINDS = ("unanimous", "majority", "single", "weighted", "dawid_skene")

SIDES: tuple[Side, Side] = ("first", "second")

DIGITS = 6
"""Decimals of a probability: what is kept must not hang on the last bits of a float."""

GRAIN, LEAST = 10**DIGITS, 1000
"""A probability in millionths, so that p and 1 - p mirror each other to the bit; from 0.001 to 0.999."""

BARE_VOTE = 2.0
"""Log-odds of a vote without a probability, before it is weighted: those of 88 %."""


class Rule(Protocol):
    """Decides one pair from the votes that count."""

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Return the winning side or the reason to drop."""

    def confidence(self, votes: Sequence[Vote]) -> float | None:
        """Return the probability that the likelier side is better; None: the rule knows none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementPolicy:
    """A ``rule`` and the judges that it does not hear: gold pairs show them to be no better than chance."""

    rule: Rule
    abstaining: frozenset[str] = frozenset()

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Return the winning side or the reason to drop."""
        return self.rule.decide(self._heard(votes))

    def confidence(self, votes: Sequence[Vote]) -> float | None:
        """Return the probability that the likelier side is better; None: the rule knows none."""
        return self.rule.confidence(self._heard(votes))

    def settled(self, votes: Sequence[Vote], left: Sequence[str]) -> bool:
        """Say whether the pair cannot be kept, whatever the judges ``left`` answer.

        Under every rule nothing serves a side better than that all of them are sure of it.
        """
        heard, waiting = self._heard(votes), [judge for judge in left if judge not in self.abstaining]
        best = ([*heard, *(_sure(judge, side) for judge in waiting)] for side in SIDES)
        return all(isinstance(self.rule.decide(said), Reason) for said in best)

    def _heard(self, votes: Sequence[Vote]) -> list[Vote]:
        return [vote for vote in votes if vote.judge not in self.abstaining]


class Counting:
    """What the rules that count votes share: they know no probability."""

    __slots__ = ()

    def confidence(self, votes: Sequence[Vote]) -> float | None:
        """Return None."""
        del votes
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanimous(Counting):
    """Every judge consistent under order swap, none for the other side, ``votes`` for the winner."""

    votes: int

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Drop at the first doubt; ties abstain."""
        if any(vote.choice == "invalid" for vote in votes):
            return Reason.INVALID_VERDICT
        if any(not vote.consistent for vote in votes):
            return Reason.INCONSISTENT
        first, second = _count(votes, "first"), _count(votes, "second")
        if first and second:
            return Reason.CONFLICT
        if max(first, second) < self.votes:
            return Reason.TOO_FEW_VOTES
        return "first" if first else "second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Majority(Counting):
    """More votes than the other side, at least ``votes``; a judge that is inconsistent abstains."""

    votes: int

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Count consistent votes."""
        if any(vote.choice == "invalid" for vote in votes):
            return Reason.INVALID_VERDICT
        steady = [vote for vote in votes if vote.consistent]
        first, second = _count(steady, "first"), _count(steady, "second")
        if first and first == second:
            return Reason.CONFLICT
        if max(first, second) < self.votes:
            return Reason.TOO_FEW_VOTES
        return "first" if first > second else "second"


@dataclass(frozen=True, slots=True, kw_only=True)
class Single(Counting):
    """What one ``judge`` says, if it says the same in both orders; the yardstick for panels."""

    judge: str

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Follow the one judge."""
        vote = next((vote for vote in votes if vote.judge == self.judge), None)
        if vote is None:
            return Reason.TOO_FEW_VOTES
        if vote.choice == "invalid":
            return Reason.INVALID_VERDICT
        if vote.choice == "tie":
            return Reason.TOO_FEW_VOTES if vote.consistent else Reason.INCONSISTENT
        return vote.choice


@dataclass(frozen=True, slots=True, kw_only=True)
class Weight:
    """How far a judge is trusted: ``weight`` multiplies its evidence (see ``evidence`` for ``graded``)."""

    judge: str
    weight: float
    graded: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighted:
    """Adds up weighted log-odds; keeps a pair whose winner is right with a probability of ``precision``.

    The weights are those of a logistic regression on gold pairs, so that judges who err together do not
    count twice; none is negative. Ties and inconsistent answers count as far as their probabilities do.
    """

    precision: float
    weights: tuple[Weight, ...]

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Keep the likelier side, or say what stands in the way of certainty."""
        log_odds = self._log_odds(votes)
        if log_odds == 0 or _probability(abs(log_odds)) < self.precision:
            return _doubt(votes)
        return "first" if log_odds > 0 else "second"

    def confidence(self, votes: Sequence[Vote]) -> float | None:
        """Return the probability that the likelier side is better."""
        return _probability(abs(self._log_odds(votes)))

    def _log_odds(self, votes: Sequence[Vote]) -> float:
        said = {vote.judge: vote for vote in votes}
        known = (trusted for trusted in self.weights if trusted.judge in said)
        return sum(trusted.weight * evidence(said[trusted.judge], trusted.graded) for trusted in known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How a judge answers: ``right`` and ``wrong`` are its shares of answers where one side is better.

    ``guess`` is the share in which it names a given side where neither is. Whatever is left to one are
    ties and inconsistent answers. A vote for a side serves it at least as well as no vote:
    ``wrong`` <= ``right``, and ``guess`` (1 - ``right`` - ``wrong``) <= ``right`` (1 - 2 ``guess``).
    """

    judge: str
    right: float
    wrong: float
    guess: float

    def likelihoods(self, choice: Choice) -> tuple[float, float, float]:
        """Return how likely an answer is if the first side, the second or neither is better."""
        if choice == "first":
            return self.right, self.wrong, self.guess
        if choice == "second":
            return self.wrong, self.right, self.guess
        none = 1 - self.right - self.wrong
        return none, none, 1 - 2 * self.guess


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """What the votes of many pairs say of the judges that gave them, and of the pairs.

    In a share ``even`` of the pairs neither side is better.
    """

    trusts: tuple[Trust, ...]
    even: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DawidSkene:
    """Keeps a pair whose winner is right with a probability of ``precision`` (Dawid and Skene, 1979).

    Judges answer independently of each other, given which side is better or that neither is; where
    neither is, a label is as good as a coin.
    """

    precision: float
    consensus: Consensus

    def decide(self, votes: Sequence[Vote]) -> Outcome:
        """Keep the likelier side, or say what stands in the way of certainty."""
        first, second = self._sides(votes)
        if first == second or max(first, second) < self.precision:
            return _doubt(votes)
        return "first" if first > second else "second"

    def confidence(self, votes: Sequence[Vote]) -> float | None:
        """Return the probability that the likelier side is better."""
        return max(self._sides(votes))

    def _sides(self, votes: Sequence[Vote]) -> tuple[float, float]:
        said = {vote.judge: vote.choice for vote in votes if vote.choice != "invalid"}
        first = second = (1 - self.consensus.even) / 2
        neither = self.consensus.even
        for trust in self.consensus.trusts:  # in one order: the bits must not depend on that of the votes
            if trust.judge in said:
                if_first, if_second, if_neither = trust.likelihoods(said[trust.judge])
                first, second, neither = first * if_first, second * if_second, neither * if_neither
        total = first + second + neither
        return round((first + neither / 2) / total, DIGITS), round((second + neither / 2) / total, DIGITS)


def make_policy(
    settings: config.Policy,
    panel: Sequence[str],
    calibrations: Mapping[str, Calibration],
    consensus: Consensus | None = None,
) -> AgreementPolicy:
    """Return the policy that a category names, for its ``panel`` of judges and what is known of them.

    dawid_skene takes the ``consensus`` of the votes. Raises ConfigError where a policy knows nothing of
    any judge.
    """
    abstaining = frozenset(name for name in panel if name in calibrations and calibrations[name].abstains)
    return AgreementPolicy(rule=_rule(settings, panel, calibrations, consensus), abstaining=abstaining)


def vote(judge: str, verdicts: Sequence[Verdict]) -> Vote:
    """Merge both orders of one judge; different answers to the same pair are no vote."""
    choices: set[Choice] = {verdict.choice for verdict in verdicts}
    given = [verdict.p_first for verdict in verdicts if verdict.p_first is not None]
    p_first = sum(given) / len(given) if given else None
    if "invalid" in choices:
        return Vote(judge=judge, choice="invalid", consistent=True, p_first=p_first)
    if len(choices) == 1:
        return Vote(judge=judge, choice=choices.pop(), consistent=True, p_first=p_first)
    return Vote(judge=judge, choice="tie", consistent=False, p_first=p_first)


def evidence(given: Vote, graded: bool) -> float:
    """Return how strongly a vote speaks for the first side: log-odds within 7 of 0, negative for the second.

    Those of the judge's own probability if it is ``graded`` and gave one, else of the bare vote.
    """
    if given.choice == "invalid":
        return 0.0
    if graded and given.p_first is not None:
        first = min(max(round(given.p_first * GRAIN), LEAST), GRAIN - LEAST)
        return math.log(first) - math.log(GRAIN - first)
    return {"first": BARE_VOTE, "second": -BARE_VOTE}.get(given.choice, 0.0)


def _rule(
    settings: config.Policy,
    panel: Sequence[str],
    calibrations: Mapping[str, Calibration],
    consensus: Consensus | None,
) -> Rule:
    if settings.kind == "single":
        return Single(judge=str(settings.judge))
    if settings.kind == "majority":
        return Majority(votes=settings.votes)
    if settings.kind == "weighted":
        return Weighted(precision=settings.precision, weights=_weights(settings, panel, calibrations))
    if settings.kind == "dawid_skene":
        if consensus is None:
            raise ConfigError("policy dawid_skene needs the answers of every judge: set early_exit = false")
        return DawidSkene(precision=settings.precision, consensus=consensus)
    return Unanimous(votes=settings.votes)


def _weights(
    settings: config.Policy, panel: Sequence[str], calibrations: Mapping[str, Calibration]
) -> tuple[Weight, ...]:
    """Take the weights that gold pairs give; where there were none, the rates of the settings."""
    weights = {rate.judge: _rated(rate) for rate in settings.rates}
    for name, known in calibrations.items():
        if known.right + known.wrong + known.ties + known.inconsistent:
            weights[name] = Weight(judge=name, weight=known.weight, graded=known.graded)
    if not any(name in weights for name in panel):
        raise ConfigError("policy weighted knows nothing of its judges: add a gold recipe or policy.rates")
    return tuple(weights[name] for name in sorted(panel) if name in weights)


def _rated(rate: config.Rate) -> Weight:
    accuracy = min(max(rate.accuracy, 0.5), 0.99)  # nothing is known of anyone to be always right
    weight = math.log(accuracy / (1 - accuracy)) / BARE_VOTE
    return Weight(judge=rate.judge, weight=round(weight, DIGITS), graded=False)


def _sure(judge: str, side: Side) -> Vote:
    return Vote(judge=judge, choice=side, consistent=True, p_first=float(side == "first"))


def _probability(log_odds: float) -> float:
    return round(1 / (1 + math.exp(-log_odds)), DIGITS)


def _doubt(votes: Sequence[Vote]) -> Reason:
    if _count(votes, "first") and _count(votes, "second"):
        return Reason.CONFLICT
    inconsistent = any(not vote.consistent for vote in votes)
    return Reason.INCONSISTENT if inconsistent else Reason.TOO_FEW_VOTES


def _count(votes: Sequence[Vote], side: Side) -> int:
    return sum(vote.choice == side for vote in votes)
