"""Stage 6: judges on the pairs that may ship; none is asked more than the policy needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from pipeline.config import Category, Policy
from pipeline.ids import content_id, unit_interval
from pipeline.judges.base import Hosting, JudgeSpec
from pipeline.records import Calibration, Pair
from pipeline.stages.ask import AskStage, votes_of
from pipeline.stages.base import Unit
from pipeline.stages.calibrate import CalibrateStage
from pipeline.stages.pair import PairStage
from pipeline.stages.policies import make_policy
from pipeline.storage import Store


class JudgeStage(AskStage):
    """Lane: category and judge. Under early exit each judge comes a wave after those ``before`` it, and is
    asked about a pair only while the pair can still be kept, or if the pair belongs to the audited share.
    """

    name = "judge"
    gold = False

    def __init__(
        self,
        category: Category,
        spec: JudgeSpec,
        *,
        pair: PairStage,
        hosting: Hosting,
        policy: Policy,
        panel: Sequence[str],
        before: Sequence[JudgeStage] = (),
        calibrate: CalibrateStage | None = None,
    ) -> None:
        exits = policy.early_exit
        super().__init__(
            category,
            spec,
            pair=pair,
            hosting=hosting,
            policy=asdict(policy) if exits else None,
            panel=list(panel) if exits else None,
            before=[stage.fingerprint for stage in before] if exits else None,
            calibrate=calibrate.fingerprint if exits and calibrate else None,
        )
        self.wave = len(before) if exits else 0
        self.policy, self.panel, self.before, self.calibrate = policy, tuple(panel), tuple(before), calibrate

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield the pairs, and under early exit what settles some of them."""
        yield from super().needs(unit)
        if self.policy.early_exit:
            yield from (stage.unit(unit.bucket) for stage in self.before)
        if self.is_calibrated and self.calibrate:
            yield self.calibrate.unit(0)

    @property
    def is_calibrated(self) -> bool:
        """Whether what gold pairs say decides which pairs are asked about."""
        return self.policy.early_exit and self.calibrate is not None

    def still_open(self, pairs: list[Pair], unit: Unit, store: Store) -> list[Pair]:
        """Return the pairs that earlier judges have not settled, and the audited ones."""
        if not self.policy.early_exit:
            return pairs
        calibrations = self.calibrate.read(store) if self.calibrate else {}
        mine = calibrations.get(self.spec.name)
        if mine and mine.abstains:
            return [pair for pair in pairs if audited(pair, self.policy)]
        return self._unsettled(pairs, calibrations, unit, store)

    def _unsettled(
        self, pairs: list[Pair], calibrations: Mapping[str, Calibration], unit: Unit, store: Store
    ) -> list[Pair]:
        policy = make_policy(self.policy, self.panel, calibrations)
        votes = votes_of(self.before, unit.bucket, store)
        left = self.panel[len(self.before) :]
        return [
            pair for pair in pairs if audited(pair, self.policy) or not policy.settled(votes[pair.id], left)
        ]


def audited(pair: Pair, policy: Policy) -> bool:
    """Say whether all judges are asked about a pair whatever the first ones say; its id tosses the coin."""
    return not policy.early_exit or unit_interval(content_id("audit", pair=pair.id)) < policy.audit
