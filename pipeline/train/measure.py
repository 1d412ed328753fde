"""How often a trained model ranks held-out pairs rightly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.train.data import Batch, Item, nearest_size

if TYPE_CHECKING:
    from pipeline.train.loop import Run

DRAW = -1
"""Held-out pairs get the timestep and noise of a visit that training never makes: the same for all models."""

Z95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Share of ``pairs`` with z above 0 (0 counts half), and its 95 % interval (Wilson).

    Changes are mean errors less the reference's. Each pair is seen at one timestep.
    """

    pairs: int
    accuracy: float
    low: float
    high: float
    winner_change: float
    loser_change: float


def held_out(run: Run) -> HeldOut | None:
    """Measure the policy as it is on the pairs kept for it; None if there are none."""
    import torch

    z: list[float] = []
    changes: dict[str, list[float]] = {"winner_change": [], "loser_change": []}
    for batch in _batches(run):
        with torch.no_grad():
            _, seen = run.losses(batch.items, batch)
        z += seen["z"].tolist()
        for name, values in changes.items():
            values += seen[name].tolist()
    if not z:
        return None
    share = sum((value > 0) + 0.5 * (value == 0) for value in z) / len(z)
    low, high = wilson(share, len(z))
    means = {name: sum(values) / len(values) for name, values in changes.items()}
    return HeldOut(pairs=len(z), accuracy=share, low=low, high=high, **means)


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``count``."""
    spread = Z95**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)


def _batches(run: Run) -> Iterator[Batch]:
    """Yield the held-out pairs in forward passes of one resolution each."""
    sizes, most = run.source.sizes, run.training.optim.micro_batch
    catalogue = run.source.catalogue
    bucket = {
        int(row): nearest_size(catalogue.read(int(row)).about["winner"], sizes) for row in run.source.held_out
    }
    for number, rows in groupby(
        sorted(bucket, key=lambda row: (bucket[row], row)), key=lambda row: bucket[row]
    ):
        held = list(rows)
        for start in range(0, len(held), most):
            items = (
                Item(sample=catalogue.read(row), draw=DRAW, pixels=None) for row in held[start : start + most]
            )
            yield Batch(step=DRAW, size=sizes[number], items=tuple(items))
