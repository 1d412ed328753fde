"""Krippendorff's alpha for nominal values, counted pair by pair, with an interval."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

VALUES = ("first", "second", "tie")

GROUPS = 20
"""Pairs fall into as many groups; leaving out one at a time shows how far chance moves alpha."""

T95 = 2.093
"""Two-sided 95 % quantile of Student's t with GROUPS - 1 degrees of freedom."""


@dataclass(slots=True)
class Alpha:
    """Agreement beyond chance of judges that need not all have judged every pair: 1 perfect, 0 chance.

    After Krippendorff, "Computing Krippendorff's alpha-reliability" (2011), section C.
    """

    _counts: Counter[tuple[int, tuple[int, ...]]] = field(default_factory=Counter)

    def add(self, values: Iterable[str], group: int) -> None:
        """Count what judges said of a pair, each one of VALUES; ``group`` is any number of that pair."""
        said = list(values)
        if len(said) > 1:  # else there is nobody to agree with
            self._counts[group % GROUPS, tuple(said.count(value) for value in VALUES)] += 1

    @property
    def pairs(self) -> int:
        """Pairs on which two judges or more gave a value."""
        return self._counts.total()

    @property
    def value(self) -> float | None:
        """Alpha, or None where all said the same of all pairs (or nothing): chance has no room."""
        return _alpha(self._coincidences().sum(axis=0))

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bounds at 95 % by the jackknife over groups of pairs; None where there are too few pairs."""
        groups = self._coincidences()
        total = groups.sum(axis=0)
        value = _alpha(total)
        without = [one for one in (_alpha(total - group) for group in groups) if one is not None]
        if value is None or self.pairs < GROUPS or len(without) < GROUPS:
            return None
        mean = sum(without) / GROUPS
        error = math.sqrt((GROUPS - 1) / GROUPS * sum((one - mean) ** 2 for one in without))
        return value - T95 * error, min(1.0, value + T95 * error)

    def _coincidences(self) -> NDArray[np.float64]:
        """Return [group, value, value]: how often two judges gave these two values to one pair."""
        found = np.zeros((GROUPS, len(VALUES), len(VALUES)))
        for (group, said), pairs in sorted(self._counts.items()):
            each = np.array(said, dtype=np.float64)
            found[group] += pairs * (np.outer(each, each) - np.diag(each)) / (each.sum() - 1)
        return found


def _alpha(coincidences: NDArray[np.float64]) -> float | None:
    each = coincidences.sum(axis=1)
    count = each.sum()
    by_chance = count * count - (each * each).sum()
    if by_chance <= 1e-9:
        return None
    differing = count - np.trace(coincidences)
    return float(1 - (count - 1) * differing / by_chance)
