"""What a small build has measured, in place of what is cited: shares kept and asked, speeds, bytes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

from pipeline.config import Category, Settings
from pipeline.report.statistics import Z95, wilson
from pipeline.runners.build import SETTINGS_KEY
from pipeline.runners.progress import Speed
from pipeline.runners.status import parts, read_lanes, read_settings, speeds
from pipeline.stages import Lanes, Stage, read_columns
from pipeline.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """A share or a mean with its 95 % interval, of ``count`` things."""

    value: float
    low: float
    high: float
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """What became of a category's pairs: the share kept, and the share that each judge was asked about."""

    kept: Measure
    asked: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """A run as the measure of others. ``labelled`` is by category, ``bytes`` and ``speeds`` by lane."""

    settings: Settings | None = None
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    labelled: Mapping[str, Labelled] = field(default_factory=dict)
    bytes: Mapping[str, Measure] = field(default_factory=dict)

    def of(self, category: Category, settings: Settings) -> Labelled | None:
        """Return how pairs of ``category`` were labelled, if by the same judges, policy and recipes."""
        known = {each.name: each for each in self.settings.categories} if self.settings else {}
        if self.settings is None or category.name not in known:
            return None
        mine, other = settings.cast(category), self.settings.cast(known[category.name])
        same = (mine.judges, mine.recipes, settings.policy(category), category.rubric) == (
            other.judges,
            other.recipes,
            self.settings.policy(known[category.name]),
            known[category.name].rubric,
        )
        return self.labelled.get(category.name) if same else None

    def seconds(self, stage: str, category: str, model: str) -> float | None:
        """Return the worker-seconds of one generation or answer, None if none was made."""
        speed = self.speeds.get(f"{stage}/{Stage.lane_of(category, model)}", Speed())
        return speed.seconds / speed.rows if speed.rows else None

    def weight(self, category: str, model: str) -> Measure | None:
        """Return the bytes of one medium of a generator, None if it made none."""
        return self.bytes.get(Stage.lane_of(category, model))


def read_pilot(store: Store) -> Pilot:
    """Read the parts of a run; one that has not begun has measured nothing. Raises StorageError."""
    if store.size(SETTINGS_KEY) is None:
        return Pilot()
    settings = read_settings(store)
    every = read_lanes(settings, store)
    labelled = {lane.category.name: found for lane in every if (found := _labelled(lane, store))}
    generators = (stage for lane in every for stage in lane.generate)
    weights = {stage.lane: weight for stage in generators if (weight := _bytes(stage, store))}
    return Pilot(settings=settings, speeds=speeds(store), labelled=labelled, bytes=weights)


def _labelled(lane: Lanes, store: Store) -> Labelled | None:
    """Count pairs that may ship; gold pairs are not among them."""
    formed: Counter[str] = Counter()
    kept: Counter[str] = Counter()
    asked: Counter[str] = Counter()
    for row in _rows(lane.agree, ["root_id", "kept", "reason", "votes"], store):
        if row["reason"] != "gold":
            formed[row["root_id"]] += 1
            kept[row["root_id"]] += row["kept"]
            asked.update(vote["judge"] for vote in row["votes"])
    total = formed.total()
    if not total:
        return None
    judges = [stage.spec.name for stage in lane.judge]
    return Labelled(
        kept=clustered([(kept[root], count) for root, count in formed.items()]),
        asked={judge: asked[judge] / total for judge in judges},
    )


def clustered(clusters: Iterable[tuple[int, int]]) -> Measure:
    """Return the share of hits in clusters of (hits, trials), with an interval for trials that hang together.

    Pairs of one prompt are kept or dropped together more often than others, so they tell less than as many
    independent ones: Wilson's interval at the effective number of trials (Kish, 1965: trials over the design
    effect, here of the linearised variance of a ratio).
    """
    every = list(clusters)
    trials, hits = sum(count for _, count in every), sum(hit for hit, _ in every)
    share = hits / trials
    spread = sum((hit - share * count) ** 2 for hit, count in every)
    binomial = trials * share * (1 - share)
    effect = max(1.0, spread / binomial) if binomial else 1.0
    effective = max(1, round(trials / effect))
    low, high = wilson(round(share * effective), effective)
    return Measure(value=share, low=min(low, share), high=max(high, share), count=trials)


def _bytes(stage: Stage, store: Store) -> Measure | None:
    weights = [row["bytes"] for row in _rows(stage, ["bytes", "status"], store) if row["status"] == "ok"]
    if not weights:
        return None
    mean = fmean(weights)
    half = Z95 * stdev(weights) / math.sqrt(len(weights)) if len(weights) > 1 else mean
    return Measure(value=mean, low=max(0.0, mean - half), high=mean + half, count=len(weights))


def _rows(stage: Stage, columns: list[str], store: Store) -> Iterator[dict[str, Any]]:
    for key in parts(stage, store):
        yield from read_columns(columns, key, store).to_pylist()
