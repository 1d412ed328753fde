"""How often are kept labels right? The scene renderer knows what it did wrong, so the truth is known.

    make bench-labels            or            python -m tests.bench.labels --quota 100 --run runs/labels

Builds (or goes on with) a dataset of all categories by the embedded generators and judges, then holds
every label against the harm that the renderer recorded. The better side is the one with less harm; a
pair is *decidable* when the harms differ by 0.25 or more (see generators/scene/defects.py). Precision
counts every kept pair: one whose sides are harmed alike counts as wrong. Left out are gold pairs, and
those with a side from a perturbed prompt, whose harm against the original prompt nobody recorded.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from pipeline import api
from pipeline.config import Policy, Pool
from pipeline.generators.scene.defects import harm
from pipeline.records import Agreement, Generation, Pair, Reason, Vote
from pipeline.report.statistics import wilson
from pipeline.runners.status import parts, read_lanes, read_settings
from pipeline.stages import Lanes, Stage, read_part
from pipeline.stages.policies import make_policy
from pipeline.storage import Store, open_store

DECIDABLE = 0.25

POOL = 20261121
"""Seed of the pools: prompts on which no constant of a judge was set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One judged pair: ``lead`` is by how much less the first side is harmed."""

    lead: float
    votes: Sequence[Vote]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Counts of one policy in one category."""

    kept: int
    right: int
    decidable: int
    decidable_kept: int


def cases(lane: Lanes, store: Store) -> Iterator[Case]:
    """Yield the judged pairs of a category whose winner no recipe knows."""

    def rows(stages: Sequence[Stage]) -> Iterator[str]:
        return (key for stage in stages for key in parts(stage, store))

    harms = {
        row.id: harm(row.category, row.defects or ())
        for key in rows(lane.generate)
        for row in read_part(Generation, key, store)
    }
    pairs = {row.id: row for key in rows([lane.pair]) for row in read_part(Pair, key, store)}
    for key in rows([lane.agree]):
        for row in read_part(Agreement, key, store):
            pair = pairs[row.pair_id]
            if pair.expected is None and row.votes:
                lead = harms[pair.second_id] - harms[pair.first_id]
                yield Case(lead=lead, votes=row.votes)


def score(every: Sequence[Case], policy: Policy) -> Score:
    """Apply a policy to the same votes and compare with the truth."""
    panel = sorted({vote.judge for case in every for vote in case.votes})
    decide = make_policy(policy, panel, {}).decide
    kept = right = decidable = decidable_kept = 0
    for case in every:
        outcome = decide(case.votes)
        chosen = 0 if isinstance(outcome, Reason) else 1 if outcome == "first" else -1
        kept += bool(chosen)
        right += chosen * case.lead > 0
        decidable += abs(case.lead) >= DECIDABLE
        decidable_kept += bool(chosen) and abs(case.lead) >= DECIDABLE
    return Score(kept=kept, right=right, decidable=decidable, decidable_kept=decidable_kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", default="runs/labels")
    parser.add_argument("--quota", type=int, default=100, help="kept pairs of each category")
    parser.add_argument("--category", action="append", default=[])
    given = parser.parse_args()
    settings = api.load("laptop", quota=given.quota, categories=given.category)
    fresh = tuple(replace(category, pool=Pool(seed=POOL)) for category in settings.categories)
    api.build(replace(settings, categories=fresh), given.run)
    show(open_store(given.run))


def show(store: Store) -> None:
    """Print the table of all categories and policies."""
    table = Table(title="Kept labels against what the renderer did", title_justify="left")
    for number, heading in enumerate(
        ("category", "policy", "pairs", "kept", "precision", "95 % interval", "decidable", "of them kept")
    ):
        table.add_column(heading, justify="right" if number > 1 else "left")
    for lane in read_lanes(read_settings(store), store):
        every = list(cases(lane, store))
        judges = [stage.spec.name for stage in lane.judge]
        policies = [("unanimous (default)", Policy(kind="unanimous")), ("majority", Policy(kind="majority"))]
        policies += [(f"single {name}", Policy(kind="single", judge=name)) for name in judges]
        for label, policy in policies:
            table.add_row(*_row(lane.category.name, label, len(every), score(every, policy)))
        table.add_section()
    Console(width=130).print(table)


def _row(category: str, label: str, pairs: int, found: Score) -> tuple[str, ...]:
    low, high = wilson(found.right, found.kept)
    return (
        category,
        label,
        str(pairs),
        str(found.kept),
        f"{found.right / max(1, found.kept):.3f}",
        f"{low:.3f}-{high:.3f}",
        str(found.decidable),
        f"{found.decidable_kept / max(1, found.decidable):.2f}",
    )


if __name__ == "__main__":
    main()
