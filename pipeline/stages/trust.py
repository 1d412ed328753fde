"""What is learned of judges: from gold pairs, whose winner is known, and from how judges agree."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import Rate
from pipeline.errors import ConfigError
from pipeline.records import Calibration, Choice, Side, Verdict, Vote
from pipeline.report.statistics import ENOUGH, wilson
from pipeline.stages.policies import AgreementPolicy, Consensus, Trust, evidence, vote

DIGITS = 4
"""Decimals of what is fitted: it must not hang on the last bits of a float."""

RAREST = 0.005
"""Least share of any kind of answer: one that was never seen may still come."""

MIRROR: dict[Choice, Choice] = {"first": "second", "second": "first", "tie": "tie"}

SPREAD = 0.5
"""Standard deviation of judges' weights around the common one."""

Gold = Iterable[tuple[Sequence[Vote], Side]]
"""For each gold pair the votes of all judges, and the side known to be better."""


def calibrate(category: str, judge: str, gold: Iterable[tuple[Sequence[Verdict], Side]]) -> Calibration:
    """Count a judge's answers to gold pairs: for each its verdicts in both orders, and the better side."""
    right = wrong = ties = inconsistent = invalid = shown_a = decided = 0
    for verdicts, winner in gold:
        merged = vote(judge, verdicts)
        right += merged.choice == winner
        wrong += merged.choice in ("first", "second") and merged.choice != winner
        ties += merged.choice == "tie" and merged.consistent
        inconsistent += not merged.consistent
        invalid += merged.choice == "invalid"
        shown_a += sum(v.choice == ("first" if v.order == "forward" else "second") for v in verdicts)
        decided += sum(v.choice in ("first", "second") for v in verdicts)
    low, high = wilson(right, right + wrong)
    return Calibration(
        category=category,
        judge=judge,
        right=right,
        wrong=wrong,
        ties=ties,
        inconsistent=inconsistent,
        invalid=invalid,
        low=round(low, DIGITS),
        high=round(high, DIGITS),
        a_bias=round(shown_a / decided - 0.5, DIGITS) if decided else 0.0,
        abstains=right + wrong >= ENOUGH and low <= 0.5,
    )


def weigh(judges: Sequence[Calibration], gold: Gold) -> list[Calibration]:
    """Return ``judges`` with the weights of the weighted policy; one that abstains has none.

    Where a judge's probabilities foretell the winners of gold pairs better than its bare votes do, they
    are its evidence. The weights are fitted together: judges who err together share theirs.
    """
    pairs = list(gold)
    heard = [known.judge for known in judges if not known.abstains]
    columns = {name: {graded: _evidence(name, graded, pairs) for graded in (False, True)} for name in heard}
    graded = {name: _misfit(both[True]) < _misfit(both[False]) for name, both in columns.items()}
    chosen = [columns[name][graded[name]] for name in heard]
    weights = _fit(np.array(chosen).reshape(len(heard), len(pairs)))
    found = dict(zip(heard, weights, strict=True))
    return [
        replace(known, weight=found.get(known.judge, 0.0), graded=graded.get(known.judge, False))
        for known in judges
    ]


def consensus(votes: Iterable[Sequence[Vote]]) -> Consensus:
    """Fit how judges answer to the votes of many pairs, one sequence a pair (Dawid and Skene, 1979).

    A pair may also be one in which neither side is better: without that third kind, judges who all find
    the same pairs hard look far better than they are. Every pair is taken both ways round, so that no side
    is preferred. Raises ConfigError where crowd-kit is not installed.
    """
    try:
        from crowdkit.aggregation import DawidSkene
    except ImportError as error:
        raise ConfigError(
            "policy dawid_skene: crowd-kit is not installed: pip install 'vipo[consensus]'"
        ) from error
    answers = _table(votes)
    if not answers.num_rows:
        return Consensus(trusts=(), even=0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # crowd-kit 1.4 calls pandas in ways that pandas 4 will end
        model = DawidSkene().fit(answers.to_pandas())
    priors: Any = model.priors_
    judges = sorted(set(answers["worker"].to_pylist()))
    return Consensus(
        trusts=tuple(_trust(judge, model.errors_) for judge in judges),
        even=round(float(priors.get("tie", 0.0)), DIGITS),
    )


def asked_shares(
    policy: AgreementPolicy, panel: Sequence[str], rates: Mapping[str, Rate]
) -> dict[str, float]:
    """Return the share of pairs that each judge is asked about, if asked in the order of ``panel``.

    Judges err independently of each other; one that does not vote was inconsistent. (Where the pairs that
    are hard for one are hard for all, the first judges settle more.)
    """
    shares = dict.fromkeys(panel, 0.0)

    def ask(votes: tuple[Vote, ...], left: Sequence[str], share: float) -> None:
        if not left or not share or policy.settled(votes, left):
            return
        shares[left[0]] += share
        for answer, likely in _likely(rates[left[0]]):
            ask((*votes, answer), left[1:], share * likely)

    ask((), [judge for judge in panel if judge not in policy.abstaining], 1.0)
    return shares


def _likely(rate: Rate) -> Iterator[tuple[Vote, float]]:
    """Yield a judge's answers to a pair whose first side is better, and how often it gives each."""
    right = rate.vote * rate.accuracy
    yield Vote(judge=rate.judge, choice="first", consistent=True), right
    yield Vote(judge=rate.judge, choice="second", consistent=True), rate.vote - right
    yield Vote(judge=rate.judge, choice="tie", consistent=False), 1 - rate.vote


def _evidence(judge: str, graded: bool, gold: Sequence[tuple[Sequence[Vote], Side]]) -> NDArray[np.float64]:
    """Return a judge's evidence for the better side of each gold pair: negative where it is wrong."""
    said = ((next((v for v in votes if v.judge == judge), None), winner) for votes, winner in gold)
    sign = {"first": 1.0, "second": -1.0}
    return np.array([sign[winner] * evidence(given, graded) if given else 0.0 for given, winner in said])


def _misfit(column: NDArray[np.float64]) -> float:
    """Return the penalised negative log-likelihood of the better sides, by one judge alone."""
    (weight,) = _climb(column[np.newaxis], centre=0.0, spread=1.0)
    return float(np.logaddexp(0, -weight * column).sum() + weight * weight / 2)


def _fit(columns: NDArray[np.float64]) -> list[float]:
    """Fit a logistic regression without intercept to [judges, pairs] of evidence.

    A judge's weight is normal around the one that serves all judges best, so that a few gold pairs do not
    tear alike judges apart.
    """
    (common,) = _climb(columns.sum(axis=0, keepdims=True), centre=0.0, spread=1.0)
    weights = _climb(columns, centre=float(common), spread=SPREAD)
    return [round(float(weight), DIGITS) for weight in weights]


def _climb(columns: NDArray[np.float64], *, centre: float, spread: float) -> NDArray[np.float64]:
    """Return the likeliest weights of 0 or more, for a normal prior around ``centre``.

    One weight after the other, by steps that never overshoot: a logistic curve bends by 1/4 at most.
    """
    weights = np.full(len(columns), centre)
    tight = 1 / spread**2
    steps = 1 / ((columns**2).sum(axis=1) / 4 + tight)
    for _ in range(5000):
        before = weights.copy()
        for judge, column in enumerate(columns):
            miss = 1 / (1 + np.exp(np.minimum(weights @ columns, 500)))
            slope = column @ miss - tight * (weights[judge] - centre)
            weights[judge] = max(0.0, weights[judge] + steps[judge] * slope)
        if np.abs(weights - before).max(initial=0.0) < 1e-8:
            break
    return weights


def _table(votes: Iterable[Sequence[Vote]]) -> pa.Table:
    """Return a row for each answer and one for its mirror image, in the columns that crowd-kit reads."""
    rows = [
        {"task": f"{number} {way}", "worker": given.judge, "label": answer}
        for number, said in enumerate(votes)
        for given in said
        if given.choice != "invalid"
        for way, answer in (("as is", given.choice), ("mirrored", MIRROR[given.choice]))
    ]
    columns = pa.schema([(name, pa.string()) for name in ("task", "worker", "label")])
    return pa.Table.from_pylist(rows, schema=columns)


def _trust(judge: str, errors: Any) -> Trust:
    """Read a judge's shares off the fitted table: rows are answers, columns what is true."""

    def share(answer: Choice, truth: Choice) -> float:
        known = truth in errors.columns and (judge, answer) in errors.index
        return float(errors.loc[(judge, answer), truth]) if known else 0.0

    def both(answer: Choice, truth: Choice) -> float:
        mean = (share(answer, truth) + share(MIRROR[answer], MIRROR[truth])) / 2
        return round(min(max(mean, RAREST), 1 - 2 * RAREST), DIGITS)

    right = both("first", "first")
    wrong = min(both("second", "first"), right, 1 - right - RAREST)
    none = 1 - right - wrong
    guess = min(both("first", "tie"), right / (none + 2 * right))  # see Trust
    return Trust(judge=judge, right=right, wrong=wrong, guess=guess)
