"""How often a trained model ranks held-out pairs rightly, and by what: intervals, and pairs to compare by.

Each held-out pair is visited at several timesteps, spread evenly, that no training visits and that are the
same for all models. Of a single visit the noise decides more than the pair does, so a pair's z is the mean
over its visits.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice, zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.train.data import Batch, Item, nearest_size
from pipeline.train.meters import BINS

if TYPE_CHECKING:
    from pipeline.train.loop import Run
    from pipeline.train.settings import Training

FILE = "held_out.json"
RESAMPLES = 2000
Z95 = 1.959964
EACH = ("z", "winner_change", "loser_change")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """What ``pairs`` say, each at ``visits`` timesteps.

    ``accuracy``: share of pairs whose mean z is above 0 (0 counts half), with Wilson's interval;
    ``accuracy_by_t``: of visits, by quarters of (0, 1), None where there are none. The others are means with
    bootstrap intervals over pairs; changes are errors less the reference's. ``each``: pairs' own means, by
    ``pair_id``.
    """

    pairs: int
    visits: int
    accuracy: Estimate
    accuracy_by_t: tuple[float | None, ...]
    z: Estimate
    winner_change: Estimate
    loser_change: Estimate
    each: Mapping[str, Sequence[Any]]


def held_out(run: Run) -> HeldOut | None:
    """Measure the policy as it is on the pairs kept for it; None if there are none."""
    ids: list[str] = []
    seen: dict[str, list[float]] = {name: [] for name in ("t", *EACH)}
    for batch_ids, found in _measured(run):
        ids += batch_ids
        for name, values in seen.items():
            values += found[name]
    visits = run.training.data.visits
    return summary(ids[::visits], {k: np.reshape(v, (-1, visits)) for k, v in seen.items()}) if ids else None


def _measured(run: Run) -> Iterator[tuple[list[str], dict[str, list[float]]]]:
    """Yield pair ids and what was seen of each batch, in order; ranks take turns."""
    import torch

    batches, ranks = held_out_batches(run), run.ranks
    mine: list[tuple[list[str], dict[str, list[float]]]] = []
    while turn := list(islice(batches, ranks.count)):
        # Of the last turn some ranks repeat a batch: sharded, all must make as many forward passes.
        batch = turn[min(ranks.rank, len(turn) - 1)]
        with torch.no_grad():
            _, found = run.losses(batch.items, batch)
        if ranks.rank < len(turn):
            ids = [item.sample.pair_id for item in batch.items]
            mine.append((ids, {name: found[name].double().tolist() for name in ("t", *EACH)}))
    for turns in zip_longest(*ranks.gathered(mine)):
        yield from filter(None, turns)


def summary(ids: Sequence[str], seen: Mapping[str, Floats]) -> HeldOut:
    """Return what [pairs, visits] of t, z, winner_change and loser_change say."""
    pairs, visits = seen["z"].shape
    each = {name: seen[name].mean(1) for name in EACH}
    share = float(right(each["z"]).mean())
    low, high = wilson(share, pairs)
    part = np.minimum((seen["t"] * BINS).astype(int), BINS - 1)
    rights = right(seen["z"])
    return HeldOut(
        pairs=pairs,
        visits=visits,
        accuracy=Estimate(value=share, low=low, high=high),
        accuracy_by_t=tuple(
            float(rights[part == number].mean()) if (part == number).any() else None for number in range(BINS)
        ),
        **{name: bootstrap(values) for name, values in each.items()},
        each={"pair_id": list(ids), **{name: values.tolist() for name, values in each.items()}},
    )


def right(z: Floats) -> Floats:
    """Return 1 where z is above 0, 0 where it is below and a half where it is 0."""
    return (np.sign(z) + 1) / 2


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``count``."""
    spread = Z95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Floats) -> Estimate:
    """Return the mean of [pairs] or [seeds, pairs] and its percentile interval, both drawn anew each time.

    Give differences of two models pair by pair, and it is the paired bootstrap.
    """
    table, chance = np.atleast_2d(values), np.random.default_rng(0)
    seeds, pairs = table.shape
    means = [
        table[chance.integers(seeds, size=seeds)][:, chance.integers(pairs, size=pairs)].mean()
        for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(means, (0.025, 0.975))
    return Estimate(value=float(table.mean()), low=float(low), high=float(high))


def write_held_out(training: Training, found: HeldOut) -> None:
    """Write ``held_out.json`` into a training's folder, whole or not at all."""
    path = Path(training.output.folder) / FILE
    written = path.with_suffix(".tmp")
    written.write_text(json.dumps({**_made_by(training), **asdict(found)}) + "\n", encoding="utf-8")
    written.replace(path)


def read_held_out(training: Training) -> dict[str, Any] | None:
    """Return what ``held_out.json`` says; None if it is not there, or of fewer updates or visits.

    Raises ConfigError if it is of other settings.
    """
    path = Path(training.output.folder) / FILE
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    made_by = _made_by(training)
    if held and held["training"] != made_by["training"]:
        raise ConfigError(
            f"{path}: was measured under other settings (training.json beside it says which): restore them, "
            "or give another folder"
        )
    return held if held.items() >= made_by.items() else None


def held_out_batches(run: Run) -> Iterator[Batch]:
    """Yield the visits of held-out pairs, pair by pair, in forward passes of one resolution each."""
    sizes, most = run.source.sizes, run.training.optim.micro_batch
    catalogue = run.source.catalogue
    bucket = {
        int(row): nearest_size(catalogue.about(int(row))["winner"], sizes) for row in run.source.held_out
    }
    rows = sorted(bucket, key=lambda row: (bucket[row], row))
    for number, held in groupby(rows, key=lambda row: bucket[row]):
        items = (
            Item(sample=sample, draw=-1 - visit, pixels=None)
            for sample in map(catalogue.read, held)
            for visit in range(run.training.data.visits)
        )
        while part := tuple(islice(items, most)):
            yield Batch(step=-1, size=sizes[number], items=part)


def _made_by(training: Training) -> dict[str, Any]:
    return {"training": training.fingerprint, "steps": training.optim.steps, "visits": training.data.visits}
