"""Simulated judges: their skill, their bias, what they have in common and the better side are known.

A pair has a margin: by how much its first side is better (Laplace distributed, so that many pairs are close
and some are plain). A judge perceives the margin times its skill, plus an error of variance 1, of which
``shared`` is common to all judges: what misleads one then misleads the others. In each order it leans
towards the side shown as A by its bias. What it perceives is the log-odds of its answer: a tie within
``tie``, else a side; its probability says the same ``sharp`` times as surely, or nothing if it is not
``honest``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.records import ORDERS, Calibration, Choice, Order, Side, Verdict, Vote
from pipeline.stages.policies import vote
from pipeline.stages.trust import calibrate, weigh

Floats = NDArray[np.float64]

UNREST = 0.3
"""Standard deviation of what differs between the two orders apart from the bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """One judge; ``seconds`` is what an answer costs."""

    name: str
    skill: float
    bias: float = 0.3
    tie: float = 0.2
    sharp: float = 1.0
    honest: bool = True
    seconds: float = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A panel and its pairs; the margins of the ``gold`` pairs are ``ease`` times as wide as others."""

    name: str
    judges: Sequence[Simulated]
    shared: float = 0.3
    gold: int = 100
    ease: float = 1.0

    @property
    def panel(self) -> tuple[str, ...]:
        """Names of the judges."""
        return tuple(judge.name for judge in self.judges)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One pair: its better side, and what each judge said of it in both orders."""

    id: str
    better: Side
    verdicts: dict[str, list[Verdict]]
    votes: dict[str, Vote]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """Pairs to label, and what gold pairs say of the judges."""

    cases: list[Case]
    calibrations: dict[str, Calibration]


def draw(world: World, pairs: int, seed: int) -> Draw:
    """Draw ``pairs`` pairs and the gold pairs of a world; the same seed draws the same."""
    rng = np.random.default_rng(seed)
    cases = list(_cases(world, f"{world.name} {seed}", pairs, 1.0, rng))
    gold = list(_cases(world, f"{world.name} gold {seed}", world.gold, world.ease, rng))
    found = [
        calibrate("simulated", judge, [(case.verdicts[judge], case.better) for case in gold])
        for judge in world.panel
    ]
    weighed = weigh(found, [(list(case.votes.values()), case.better) for case in gold])
    return Draw(cases=cases, calibrations={known.judge: known for known in weighed})


def _cases(world: World, name: str, count: int, ease: float, rng: np.random.Generator) -> Iterator[Case]:
    margins = rng.laplace(0.0, ease, count)
    common = rng.normal(0.0, 1.0, count)
    said = {judge.name: _verdicts(judge, world.shared, margins, common, name, rng) for judge in world.judges}
    for number, margin in enumerate(margins):
        verdicts = {judge: rows[number] for judge, rows in said.items()}
        yield Case(
            id=f"{name} {number}",
            better="first" if margin > 0 else "second",
            verdicts=verdicts,
            votes={judge: vote(judge, given) for judge, given in verdicts.items()},
        )


def _verdicts(
    judge: Simulated, shared: float, margins: Floats, common: Floats, name: str, rng: np.random.Generator
) -> list[list[Verdict]]:
    """Return a judge's verdicts in both orders on each pair."""
    error = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(0.0, 1.0, len(margins))
    seen = judge.skill * margins + error
    rows: list[list[Verdict]] = [[] for _ in margins]
    for order, towards_a in zip(ORDERS, (judge.bias, -judge.bias), strict=True):
        leans = seen + towards_a + UNREST * rng.normal(0.0, 1.0, len(margins))
        surely = (
            judge.sharp * leans if judge.honest else np.sign(leans) * abs(rng.normal(0.0, 2.0, len(leans)))
        )
        sure = 1 / (1 + np.exp(-np.clip(surely, -30, 30)))
        for number, (lean, p_first) in enumerate(zip(leans.tolist(), sure.tolist(), strict=True)):
            rows[number].append(_verdict(judge, f"{name} {number}", order, lean, p_first))
    return rows


def _verdict(judge: Simulated, pair_id: str, order: Order, lean: float, p_first: float) -> Verdict:
    choice: Choice = "tie" if abs(lean) < judge.tie else "first" if lean > 0 else "second"
    return Verdict(
        id=f"{pair_id} {judge.name} {order}",
        pair_id=pair_id,
        category="simulated",
        judge=judge.name,
        judge_id=judge.name,
        rubric_id="simulated",
        order=order,
        choice=choice,
        p_first=p_first,
        raw="",
    )
