"""Stage 7: verdicts become a winner and a loser, or one counted reason why not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain

import pyarrow as pa

from pipeline.config import Category, Policy
from pipeline.errors import WorkerError
from pipeline.ids import content_id
from pipeline.records import Agreement, Generation, Pair, Reason, Side, Vote, stricter
from pipeline.stages.ask import GoldStage, votes_of
from pipeline.stages.base import Stage, Unit, read_part
from pipeline.stages.calibrate import CalibrateStage
from pipeline.stages.judge import JudgeStage, audited
from pipeline.stages.pair import PairStage
from pipeline.stages.policies import AgreementPolicy, Outcome, make_policy
from pipeline.stages.trust import consensus
from pipeline.storage import Store


class AgreeStage(Stage):
    """Lane: category. Pairs are labelled by ``policy``, which knows what gold pairs say of each judge."""

    name = "agree"

    def __init__(
        self,
        category: Category,
        policy: Policy,
        *,
        pair: PairStage,
        judge: Sequence[JudgeStage],
        gold: Sequence[GoldStage] = (),
        calibrate: CalibrateStage | None = None,
        count: int,
        skipped: Sequence[int] = (),
    ) -> None:
        super().__init__(
            lane=category.name,
            pair=pair.fingerprint,
            judge=[stage.fingerprint for stage in judge],
            calibrate=calibrate.fingerprint if calibrate else None,
            policy=asdict(policy),
            count=count,
        )
        self.category, self.settings, self.pair = category, policy, pair
        self.judge, self.gold, self.calibrate = tuple(judge), tuple(gold), calibrate
        self.first = [bucket for bucket in range(count) if bucket not in skipped]
        self.policy: AgreementPolicy | None = None

    @property
    def is_calibrated(self) -> bool:
        """Whether what gold pairs say decides which pairs are kept."""
        return self.calibrate is not None

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per bucket."""
        return (self.unit(unit.bucket) for unit in self.pair.units(store))

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield the verdicts of the bucket, and what the policy knows of the judges."""
        yield from (stage.unit(unit.bucket) for stage in (*self.judge, *self.gold))
        if self.calibrate:
            yield self.calibrate.unit(0)
        if self.settings.kind == "dawid_skene":
            others = (bucket for bucket in self.first if bucket != unit.bucket)
            yield from (stage.unit(bucket) for bucket in others for stage in self.judge)

    def open(self, store: Store) -> None:
        """Read what gold pairs say of the judges, and for a consensus what the judges say of each other."""
        panel = [stage.spec.name for stage in self.judge]
        calibrations = self.calibrate.read(store) if self.calibrate else {}
        agreed = None
        if self.settings.kind == "dawid_skene":
            buckets = (votes_of(self.judge, bucket, store).values() for bucket in self.first)
            agreed = consensus(chain.from_iterable(buckets))
        self.policy = make_policy(self.settings, panel, calibrations, agreed)

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Label every pair of the bucket."""
        votes = votes_of((*self.judge, *self.gold), unit.bucket, store)
        made = self.pair.generations(unit.bucket, store)
        pairs = read_part(Pair, self.pair.unit(unit.bucket).key, store)
        return Agreement.table(self._row(pair, tuple(votes[pair.id]), made) for pair in pairs)

    def _row(self, pair: Pair, votes: tuple[Vote, ...], made: dict[str, Generation]) -> Agreement:
        if self.policy is None:
            raise WorkerError(f"{self.lane}: not open: call open() before process()")
        outcome = self._outcome(pair, votes, self.policy)
        reason = outcome if isinstance(outcome, Reason) else None
        winner, loser = self._sides(pair, outcome)
        sides = made[pair.first_id], made[pair.second_id]
        return Agreement(
            id=content_id("agreement", stage=self.fingerprint, pair=pair.id),
            pair_id=pair.id,
            root_id=pair.root_id,
            category=pair.category,
            policy=self.settings.kind,
            kept=reason is None,
            winner_id=winner,
            loser_id=loser,
            confidence=None if isinstance(outcome, Reason) else self._confidence(votes, outcome, self.policy),
            reason=reason,
            votes=votes,
            bytes=sum(side.bytes for side in sides),
            licence_profile=stricter(*(side.licence_profile for side in sides)),
            audited=audited(pair, self.settings),
        )

    @staticmethod
    def _outcome(pair: Pair, votes: Sequence[Vote], policy: AgreementPolicy) -> Outcome:
        if pair.first_sha256 is None or pair.second_sha256 is None:
            return Reason.MISSING_MEDIA
        if pair.first_sha256 == pair.second_sha256:
            return Reason.SAME_MEDIA
        if pair.gold:
            return Reason.GOLD
        outcome = policy.decide(votes)
        if pair.expected and not isinstance(outcome, Reason) and outcome != pair.expected:
            return Reason.UNEXPECTED
        return outcome

    @staticmethod
    def _confidence(votes: Sequence[Vote], winner: Side, policy: AgreementPolicy) -> float:
        posterior = policy.confidence(votes)
        return confidence(votes, winner) if posterior is None else posterior

    @staticmethod
    def _sides(pair: Pair, outcome: Outcome) -> tuple[str | None, str | None]:
        if isinstance(outcome, Reason):
            return None, None
        both = pair.first_id, pair.second_id
        return both if outcome == "first" else (both[1], both[0])


def confidence(votes: Sequence[Vote], winner: Side) -> float:
    """Return the mean probability that judges give the winner; 0.5 if none gave any."""
    given = [vote.p_first for vote in votes if vote.p_first is not None]
    if not given:
        return 0.5
    mean = sum(given) / len(given)
    return mean if winner == "first" else 1 - mean
