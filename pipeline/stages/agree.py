"""Stage 5: verdicts become a winner and a loser, or one counted reason why not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pyarrow as pa

from pipeline.config import Category
from pipeline.ids import content_id
from pipeline.records import Agreement, Generation, LicenceProfile, Pair, Reason, Side, Verdict, Vote
from pipeline.stages.base import Stage, Unit, read_part
from pipeline.stages.judge import JudgeStage
from pipeline.stages.pair import PairStage
from pipeline.stages.policies import Outcome, make_policy, vote
from pipeline.storage import Store


class AgreeStage(Stage):
    """Lane: category."""

    name = "agree"

    def __init__(self, category: Category, *, pair: PairStage, judge: Sequence[JudgeStage]) -> None:
        super().__init__(
            lane=category.name,
            pair=pair.fingerprint,
            judge=[stage.fingerprint for stage in judge],
            policy=asdict(category.policy),
        )
        self.category, self.pair, self.judge = category, pair, tuple(judge)
        self.policy = make_policy(category.policy)

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per bucket."""
        return (self.unit(unit.bucket) for unit in self.pair.units(store))

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Label every pair of the bucket."""
        verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
        for stage in self.judge:
            for row in read_part(Verdict, stage.unit(unit.bucket).key, store):
                verdicts[row.pair_id].append(row)
        made = self.pair.generations(unit.bucket, store)
        pairs = read_part(Pair, self.pair.unit(unit.bucket).key, store)
        return Agreement.table(self._row(pair, verdicts[pair.id], made) for pair in pairs)

    def _row(self, pair: Pair, verdicts: list[Verdict], made: dict[str, Generation]) -> Agreement:
        votes = tuple(self._votes(verdicts))
        outcome = self._outcome(pair, votes)
        reason = outcome if isinstance(outcome, Reason) else None
        winner, loser = self._sides(pair, outcome)
        sides = made[pair.first_id], made[pair.second_id]
        return Agreement(
            id=content_id(
                "agreement",
                pair=pair.id,
                policy=asdict(self.category.policy),
                verdicts=sorted(verdict.id for verdict in verdicts),
            ),
            pair_id=pair.id,
            root_id=pair.root_id,
            category=pair.category,
            policy=self.category.policy.kind,
            kept=reason is None,
            winner_id=winner,
            loser_id=loser,
            confidence=None if reason else confidence(verdicts, outcome),
            reason=reason,
            votes=votes,
            bytes=sum(side.bytes for side in sides),
            licence_profile=stricter(*(side.licence_profile for side in sides)),
        )

    def _votes(self, verdicts: list[Verdict]) -> Iterator[Vote]:
        for stage in self.judge:
            given = [verdict for verdict in verdicts if verdict.judge == stage.spec.name]
            if given:
                yield vote(stage.spec.name, given)

    def _outcome(self, pair: Pair, votes: Sequence[Vote]) -> Outcome:
        if pair.first_sha256 is None or pair.second_sha256 is None:
            return Reason.MISSING_MEDIA
        if pair.first_sha256 == pair.second_sha256:
            return Reason.SAME_MEDIA
        if pair.gold:
            return Reason.GOLD
        if any(vote.choice == "invalid" for vote in votes):
            return Reason.INVALID_VERDICT
        outcome = self.policy.decide(votes)
        if pair.expected and not isinstance(outcome, Reason) and outcome != pair.expected:
            return Reason.UNEXPECTED
        return outcome

    @staticmethod
    def _sides(pair: Pair, outcome: Outcome) -> tuple[str | None, str | None]:
        if isinstance(outcome, Reason):
            return None, None
        both = pair.first_id, pair.second_id
        return both if outcome == "first" else (both[1], both[0])


def confidence(verdicts: Sequence[Verdict], winner: Side | Reason) -> float:
    """Return the mean probability that judges give the winner, over both orders; 0.5 if none gave any."""
    given = [verdict.p_first for verdict in verdicts if verdict.p_first is not None]
    if not given:
        return 0.5
    mean = sum(given) / len(given)
    return mean if winner == "first" else 1 - mean


def stricter(one: LicenceProfile, other: LicenceProfile) -> LicenceProfile:
    """Return the profile under which both sides may be used."""
    return "research" if "research" in (one, other) else "permissive"
