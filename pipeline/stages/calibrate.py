"""Stage 5: what judges say of gold pairs becomes how far each can be trusted."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa

from pipeline.config import Category
from pipeline.records import Calibration, Pair, Side, Verdict
from pipeline.stages.ask import GoldStage
from pipeline.stages.base import Stage, Unit, read_part
from pipeline.stages.pair import PairStage
from pipeline.stages.policies import vote
from pipeline.stages.trust import calibrate, weigh
from pipeline.storage import Store


class CalibrateStage(Stage):
    """Lane: category; one unit. A row says how a judge did on the gold pairs of the first ``count`` buckets.

    ``count`` does not grow with the build: what was labelled stays labelled. ``skipped`` buckets have units
    that failed for good, and the user ships without them.
    """

    name = "calibrate"

    def __init__(
        self,
        category: Category,
        *,
        pair: PairStage,
        gold: Sequence[GoldStage],
        count: int,
        skipped: Sequence[int] = (),
    ) -> None:
        super().__init__(lane=category.name, gold=[stage.fingerprint for stage in gold], count=count)
        self.category, self.pair, self.gold, self.count = category, pair, tuple(gold), count
        self.skipped = frozenset(skipped)

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield the one unit."""
        del store
        yield self.unit(0)

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield what all judges say of the gold pairs that count."""
        return (stage.unit(bucket) for bucket in self.buckets(unit) for stage in self.gold)

    def buckets(self, unit: Unit) -> Iterable[int]:
        """Return the buckets whose gold pairs count."""
        del unit
        return [bucket for bucket in range(self.count) if bucket not in self.skipped]

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Count each judge's answers to gold pairs."""
        known: dict[str, Side] = {}
        for bucket in self.buckets(unit):
            for pair in read_part(Pair, self.pair.unit(bucket).key, store):
                if pair.gold and pair.expected:
                    known[pair.id] = pair.expected
        answers = {stage.spec.name: self._answers(stage, unit, known, store) for stage in self.gold}
        rows = [
            calibrate(self.category.name, judge, [(given[pair], known[pair]) for pair in sorted(given)])
            for judge, given in sorted(answers.items())
        ]
        gold = (
            ([vote(judge, given[pair]) for judge, given in answers.items() if pair in given], known[pair])
            for pair in sorted(known)
        )
        return Calibration.table(weigh(rows, gold))

    def read(self, store: Store) -> dict[str, Calibration]:
        """Return what the unit found, by judge. Raises StorageError if it is not done."""
        return {row.judge: row for row in read_part(Calibration, self.unit(0).key, store)}

    def _answers(
        self, stage: GoldStage, unit: Unit, known: Mapping[str, Side], store: Store
    ) -> dict[str, list[Verdict]]:
        """Return a judge's verdicts by pair."""
        verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
        for bucket in self.buckets(unit):
            for row in read_part(Verdict, stage.unit(bucket).key, store):
                if row.pair_id in known:
                    verdicts[row.pair_id].append(row)
        return verdicts
