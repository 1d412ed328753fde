"""In which order pairs are seen: a function of the step alone, so one integer is the loader's whole state.

A bucket holds pairs of one resolution; its cells are its categories. In an epoch a cell gives ``weight`` x
its pairs: a weight of 2 shows each twice, one of 0.5 shows half of them and the other half in the next epoch.
Batches never mix buckets. What does not fill a bucket's last batch of an epoch is left out of that epoch.
Nothing here knows of ranks or workers: they split a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.ids import content_id

Ints = NDArray[np.int64]
ROUNDS = 6


def permuted(places: Ints, size: int, *key: str | int) -> Ints:
    """Return where a random permutation of ``range(size)``, chosen by ``key``, sends each of ``places``.

    A Feistel network permutes the next power of four; what falls outside ``size`` is sent on until it
    falls inside ("cycle walking", Black and Rogaway 2002), less than four times on average. No list is
    made, so a place costs the same in a set of ten and of ten billion.
    """
    half = np.uint64(max(1, -(-(size - 1).bit_length() // 2)))
    secret = np.random.Philox(key=int(content_id("order", key=list(key)), 16)).random_raw(ROUNDS)
    found = _feistel(places.astype(np.uint64), half, secret)
    while (outside := found >= np.uint64(size)).any():
        found[outside] = _feistel(found[outside], half, secret)
    return found.astype(np.int64)


def _feistel(values: NDArray[np.uint64], half: np.uint64, secret: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for word in secret:
        left, right = right, left ^ (_mixed(right ^ word) & mask)
    return (left << half) | right


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's finaliser (Steele, Lea and Flood 2014); products wrap as they should."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Pairs of one bucket and category: rows of a catalogue, and how often an epoch shows each."""

    bucket: int
    rows: Ints
    weight: float = 1.0

    @property
    def shown(self) -> int:
        """Pairs that an epoch shows."""
        return round(self.weight * len(self.rows))


@dataclass(frozen=True, slots=True)
class Drawn:
    """One batch: ``rows`` of the catalogue, and for each how often it was shown before (``draws``)."""

    bucket: int
    rows: Ints
    draws: Ints


class Order:
    """The batches of all epochs. Raises ConfigError if a bucket cannot fill a batch."""

    def __init__(self, cells: Sequence[Cell], *, batch: int, seed: int) -> None:
        self._batch, self._seed = batch, seed
        names = sorted({cell.bucket for cell in cells})
        self._buckets = [(name, [cell for cell in cells if cell.bucket == name]) for name in names]
        filled = [sum(cell.shown for cell in held) // batch for _, held in self._buckets]
        if not filled or 0 in filled:
            counts = ", ".join(str(sum(cell.shown for cell in held)) for _, held in self._buckets)
            raise ConfigError(
                f"a batch of {batch} pairs of one resolution cannot be filled: there are {counts or 'no'} "
                "pairs: lower optim.batch, or change data.sizes, data.categories or data.licence"
            )
        self._ends = list(accumulate(filled))
        self.steps = self._ends[-1]
        """Batches of an epoch."""

    def __getitem__(self, step: int) -> Drawn:
        """Return the batch of ``step``, counted from 0 over all epochs."""
        epoch, place = divmod(step, self.steps)
        place = int(permuted(np.array([place]), self.steps, self._seed, "batches", epoch)[0])
        number = int(np.searchsorted(self._ends, place, side="right"))
        start = (place - (self._ends[number - 1] if number else 0)) * self._batch
        name, cells = self._buckets[number]
        total = sum(cell.shown for cell in cells)
        slots = permuted(np.arange(start, start + self._batch), total, self._seed, "bucket", name, epoch)
        return self._drawn(name, cells, slots, epoch)

    def _drawn(self, name: int, cells: Sequence[Cell], slots: Ints, epoch: int) -> Drawn:
        rows, draws = np.empty_like(slots), np.empty_like(slots)
        begin = 0
        for number, cell in enumerate(cells):
            here = (slots >= begin) & (slots < begin + cell.shown)
            # Visits of a cell are counted through all epochs, so every pair is shown before one is again.
            draws[here], places = np.divmod(slots[here] - begin + epoch * cell.shown, max(1, len(cell.rows)))
            for draw in np.unique(draws[here]):
                now = np.flatnonzero(here)[draws[here] == draw]
                chosen = places[draws[here] == draw]
                found = permuted(chosen, len(cell.rows), self._seed, "cell", name, number, int(draw))
                rows[now] = cell.rows[found]
            begin += cell.shown
        return Drawn(bucket=name, rows=rows, draws=draws)
