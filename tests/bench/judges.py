"""Which agreement policy keeps most at equal precision, and what early exit saves, by simulated judges.

    make bench-judges            or            python -m tests.bench.judges --pairs 2000 --draws 5

Judges of known skill (see simulated.py) label pairs whose better side is known; policies, weights, consensus,
early exit and statistics are the code of a build. Three tables and a plot:

1. Precision and kept share of each policy, and what the policies that know probabilities keep at that same
   precision. Precision counts every kept pair. ``claimed`` sets the precision asked for beside what came out
   among the kept pairs whose probability lies just above it.
2. Early exit: questions and seconds against the full panel, for the same kept pairs (checked pair by pair).
3. Whether statistics of the audited share lie where those of the full panel do.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

from rich.console import Console
from rich.table import Table

from pipeline.config import Policy
from pipeline.records import Reason
from pipeline.report.statistics import Share
from pipeline.stages.policies import AgreementPolicy, Consensus, make_policy
from pipeline.stages.trust import consensus
from tests.bench.exits import audit, early_exit
from tests.bench.plot import Chart, Mark, draw_charts
from tests.bench.simulated import Case, Draw, Simulated, World, draw

PRECISION = 0.95

MARGIN = 0.02
"""Kept pairs whose probability is within this of PRECISION should be right about as often as they claim."""

QWEN_8B = Simulated(name="8B", skill=1.5, bias=0.6, seconds=0.056)
QWEN_30B = Simulated(name="30B-A3B", skill=2.0, bias=0.5, seconds=0.034)
QWEN_32B = Simulated(name="32B", skill=2.5, bias=0.3, seconds=0.202)
QWEN_235B = Simulated(name="235B", skill=3.0, bias=0.2, seconds=0.149)
WEAK = Simulated(name="weak", skill=1.0, bias=0.8, seconds=0.03)
CHANCE = Simulated(name="chance", skill=0.0, bias=0.2, seconds=0.05)
"""Skills and biases are assumed, seconds are those of one H200 at its limit."""

UNEQUAL = (QWEN_235B, QWEN_8B, WEAK)
ALIKE = tuple(replace(QWEN_30B, name=name) for name in ("one", "two", "three"))
FIVE = (QWEN_235B, QWEN_32B, QWEN_30B, QWEN_8B, WEAK)

WORLDS = (
    World(name="three alike", judges=ALIKE),
    World(name="three unequal", judges=UNEQUAL),
    World(name="errors of their own", judges=UNEQUAL, shared=0.0),
    World(name="errors half shared", judges=UNEQUAL, shared=0.5),
    World(name="five unequal", judges=FIVE),
    World(name="one at chance", judges=(QWEN_32B, QWEN_30B, QWEN_8B, CHANCE)),
    World(name="40 gold pairs", judges=UNEQUAL, gold=40),
    World(name="gold easier", judges=UNEQUAL, ease=2.0),
    World(name="gold far easier", judges=UNEQUAL, ease=4.0),
    World(name="overconfident", judges=tuple(replace(judge, sharp=4.0) for judge in UNEQUAL)),
    World(name="probabilities idle", judges=tuple(replace(judge, honest=False) for judge in UNEQUAL)),
)

EXITS = ("three alike", "three unequal", "five unequal", "one at chance")
"""Worlds in which early exit is tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What a policy made of a pair: whether it kept it, how sure it was, whether the side was right."""

    kept: bool
    confidence: float
    right: bool


def label(policy: AgreementPolicy, case: Case) -> Label:
    """Decide one pair from all votes."""
    votes = list(case.votes.values())
    outcome = policy.decide(votes)
    return Label(
        kept=not isinstance(outcome, Reason),
        confidence=policy.confidence(votes) or 0.0,
        right=outcome == case.better,
    )


def policies(world: World, drawn: Draw, agreed: Consensus) -> dict[str, AgreementPolicy]:
    """Return every policy as a build would make it; those that know probabilities keep all they can."""
    known, panel = drawn.calibrations, world.panel
    best = max(world.judges, key=lambda judge: judge.skill).name
    found = {
        "unanimous": make_policy(Policy(kind="unanimous"), panel, known),
        "majority": make_policy(Policy(kind="majority"), panel, known),
        f"single {best}": make_policy(Policy(kind="single", judge=best), panel, {}),
        "weighted": make_policy(Policy(kind="weighted", precision=0.5), panel, known),
        "dawid_skene": make_policy(Policy(kind="dawid_skene", precision=0.5), panel, known, agreed),
    }
    if CHANCE in world.judges:
        found["unanimous, all heard"] = make_policy(Policy(kind="unanimous"), panel, {})
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How one policy labelled the pairs of one world: all ``labels``, and those it keeps.

    A policy that is ``graded`` knows probabilities and keeps what is PRECISION or more.
    """

    labels: list[Label]
    kept: list[Label]
    graded: bool

    @classmethod
    def of(cls, labels: list[Label]) -> Score:
        """Pick the kept ones."""
        graded = any(found.confidence for found in labels)
        kept = [found for found in labels if found.kept and not (graded and found.confidence < PRECISION)]
        return cls(labels=labels, kept=kept, graded=graded)

    @property
    def share(self) -> float:
        """Share of the pairs that it keeps."""
        return len(self.kept) / len(self.labels)

    @property
    def marginal(self) -> Share:
        """Right labels among the kept pairs that are hardly sure enough."""
        return right(found for found in self.kept if found.confidence < PRECISION + MARGIN)

    def curve(self) -> Iterator[tuple[float, float]]:
        """Yield (share kept, precision) for every probability at which the policy could cut."""
        ranked = sorted((found for found in self.labels if found.kept), key=lambda found: -found.confidence)
        good = 0
        for count, found in enumerate(ranked, 1):
            good += found.right
            if count == len(ranked) or ranked[count].confidence != found.confidence:
                yield count / len(self.labels), good / count

    def kept_at(self, precision: float) -> float:
        """Return the largest share that it can keep at this precision or better."""
        return max((share for share, reached in self.curve() if reached >= precision), default=0.0)


def right(labels: Iterable[Label]) -> Share:
    """Return the share of right labels."""
    held = [found.right for found in labels]
    return Share(sum(held), len(held))


def scores(world: World, draws: Sequence[Draw]) -> dict[str, Score]:
    """Let every policy label the pairs of all draws."""
    agreed = consensus(list(case.votes.values()) for case in draws[0].cases)
    labels: dict[str, list[Label]] = {}
    for drawn in draws:
        for name, policy in policies(world, drawn, agreed).items():
            labels.setdefault(name, []).extend(label(policy, case) for case in drawn.cases)
    return {name: Score.of(found) for name, found in labels.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2000, help="pairs of each draw")
    parser.add_argument(
        "--draws", type=int, default=5, help="draws of each world, each with its own gold pairs"
    )
    parser.add_argument("--plot", type=Path, default=Path("runs/judges.svg"))
    given = parser.parse_args()
    tables, charts = _tables(), []
    for world in WORLDS:
        draws = [draw(world, given.pairs, seed) for seed in range(given.draws)]
        found = scores(world, draws)
        charts.append(_chart(world, found))
        _add_policies(tables[0], world, found, draws)
        if world.name in EXITS:
            _add_exits(tables[1], world, draws)
            _add_audit(tables[2], world, draws)
    for table in tables:
        Console(width=150).print(table)
    given.plot.parent.mkdir(parents=True, exist_ok=True)
    given.plot.write_text(draw_charts(charts))
    print(f"plot: {given.plot}")


def _tables() -> tuple[Table, Table, Table]:
    span = f"claimed {PRECISION:.2f}-{PRECISION + MARGIN:.2f}"
    return (
        _table(
            "1. What each policy keeps, and what those that know probabilities keep at the same precision",
            ("judges", "policy"),
            ("kept", "precision (95 %)", span, "weighted keeps", "dawid_skene keeps"),
        ),
        _table(
            "2. Early exit against the full panel, the audited share of 5 % included",
            ("judges", "policy", "order"),
            ("kept", "same pairs", "questions", "foretold", "seconds"),
        ),
        _table(
            "3. Statistics under early exit (unanimous), and how often the full panel's is in the interval",
            ("judges", "statistic of each draw and judge"),
            ("full panel", "audited pairs", "in interval", "all that was asked", "in interval "),
        ),
    )


def _add_policies(table: Table, world: World, found: Mapping[str, Score], draws: Sequence[Draw]) -> None:
    for name, score in found.items():
        precision = right(score.kept)
        same = [found[other].kept_at(precision.value or 1.0) for other in ("weighted", "dawid_skene")]
        low, high = precision.interval
        table.add_row(
            world.name,
            name + _silenced(name, draws),
            f"{score.share:.3f}",
            f"{precision.value or 0:.3f} ({low:.3f}-{high:.3f})",
            f"{score.marginal.value:.3f}" if score.graded and score.marginal.total else "",
            *("" if score.graded else f"{share:.3f}" for share in same),
        )
    table.add_section()


def _silenced(policy: str, draws: Sequence[Draw]) -> str:
    """Name the judges that abstain, if the policy heeds it."""
    if policy not in ("unanimous", "majority"):
        return ""
    names = [known.judge for drawn in draws for known in drawn.calibrations.values() if known.abstains]
    return "".join(f" (less {name}: {names.count(name)} of {len(draws)})" for name in sorted(set(names)))


def _add_exits(table: Table, world: World, draws: Sequence[Draw]) -> None:
    for kind in ("unanimous", "majority", "weighted"):
        found = early_exit(world, draws, Policy(kind=kind, precision=PRECISION, early_exit=True))
        table.add_row(
            world.name,
            kind,
            ", ".join(found.order),
            f"{found.kept:.3f}",
            "yes" if found.same_kept else "NO",
            *(f"{share:.2f}" for share in (found.questions, found.foretold, found.seconds)),
        )
    table.add_section()


def _add_audit(table: Table, world: World, draws: Sequence[Draw]) -> None:
    settings = Policy(kind="unanimous", early_exit=True)
    rows = [row for drawn in draws for row in audit(world, drawn, settings)]
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        table.add_row(
            world.name,
            kind,
            f"{mean(row.full for row in own):.3f}",
            f"{mean(row.audited.value for row in own):.3f}",
            f"{sum(row.audited.holds(row.full) for row in own)} of {len(own)}",
            f"{mean(row.asked.value for row in own):.3f}",
            f"{sum(row.asked.holds(row.full) for row in own)} of {len(own)}",
        )
    table.add_section()


def _table(title: str, texts: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in texts:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def _chart(world: World, every: Mapping[str, Score]) -> Chart:
    marks = [
        Mark(
            policy=name,
            points=list(score.curve()) if score.graded else [(score.share, right(score.kept).value or 0.0)],
        )
        for name, score in every.items()
    ]
    return Chart(title=world.name, marks=sorted(marks, key=lambda mark: -len(mark.points)))


if __name__ == "__main__":
    main()
