"""A pool drawn to target shares of its subjects, styles and difficulties.

Three steps. Water-filling turns shares into a number of prompts for each subject, style and difficulty:
what one lacks goes to the others by their shares. Logit raking (Deville and Saerndal 1992, section 2.2,
case 6) spreads the numbers over the cells (subject, style, difficulty) so that no cell gives more than it
has. A sequence then takes prompts so that every prefix has the shares of the whole: a build stops
somewhere in a pool.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.config import nearest
from pipeline.errors import ConfigError
from pipeline.records import Prompt

DIMENSIONS = ("subject", "style", "difficulty")
UNNAMED = ""
"""The value of a prompt that says no subject or style: it keeps its share of the pool, under no cap."""

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

_FINE = 1 << 12  # raked numbers are rounded to this, so that no machine's exp decides what is drawn
_FAR, _ZERO = 40.0, 1e-12  # logits and shares beyond are all or nothing
_SWEEPS, _STRICT_SWEEPS = 400, 100
_LAST = np.iinfo(np.int64).min
_CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The share wanted of one value, in [0, 1]."""

    value: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The shares wanted of one dimension's values: ``shares`` of those named, ``rest`` of all others.

    even: the others get the same; pool: as in the pool. None but those named gets more than ``cap``.
    """

    shares: tuple[Share, ...] = ()
    cap: float = 1.0
    rest: Literal["even", "pool"] = "even"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The shares wanted; by default subjects and styles alike, none above 2 %, difficulty as it is."""

    subject: Spread = field(default_factory=lambda: Spread(cap=0.02))
    style: Spread = field(default_factory=lambda: Spread(cap=0.02))
    difficulty: Spread = field(default_factory=lambda: Spread(rest="pool"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """What one value got: ``wanted`` by its share, ``available`` in the pool, ``drawn``; in prompts."""

    dimension: str
    value: str
    available: int
    wanted: float
    drawn: int

    @property
    def lacking(self) -> int:
        """Return how many prompts others had to stand in for; one or two are but rounding."""
        lacking = round(self.wanted - self.drawn)
        return lacking if lacking > 2 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """``prompts`` (Prompt's columns) in the order to be built in; ``left_out`` counts unusable rows."""

    prompts: pa.Table
    strata: tuple[Stratum, ...]
    left_out: Mapping[str, int]


def draw(source: Callable[[], Iterable[Prompt]], count: int, target: Target, *, seed: int = 0) -> Drawn:
    """Draw ``count`` usable root prompts to the shares of ``target``.

    ``source`` is read twice and may come in any order: the same prompts give the same draw. Raises
    ConfigError if the pool has fewer, if the caps leave fewer, and for a share of what the pool lacks.
    """
    pool = _Index(source(), seed)
    if not 0 < count <= len(pool):
        raise ConfigError(
            f"draw: {count:,} prompts of a pool that has {len(pool):,} usable ones: "
            f"ask for 1 to {len(pool):,}, or give it a larger pool"
        )
    spreads = (target.subject, target.style, target.difficulty)
    wanted = [
        _wanted(dimension, spread, values, available, count)
        for dimension, spread, values, available in zip(
            DIMENSIONS, spreads, pool.values, pool.available, strict=True
        )
    ]
    margins = [_filled(limits, weights, count) for limits, weights in wanted]
    limits = [each for each, _ in wanted]
    raked = _raked(pool.cells, pool.sizes, limits, margins)
    order = _sequence(pool.cells, pool.sizes, limits, raked, count)
    if len(order) < count:
        raise ConfigError(
            f"draw: the caps of subject, style and difficulty together leave {len(order):,} of {count:,} "
            "prompts: raise a cap, or ask for fewer"
        )
    return Drawn(
        prompts=_gathered(source(), pool.places(order)),
        strata=tuple(_strata(pool, wanted, order, count)),
        left_out=dict(pool.left_out),
    )


class _Index:
    """Which cell each usable root prompt is in: twelve bytes a prompt, its text is not kept."""

    def __init__(self, prompts: Iterable[Prompt], seed: int) -> None:
        self.left_out: Counter[str] = Counter()
        met: dict[tuple[str, ...], int] = {}
        keys, codes = array("Q"), array("I")
        for prompt in _usable(prompts, self.left_out):
            keys.append(_key(seed, prompt.text))
            codes.append(met.setdefault((prompt.subject, prompt.style, str(prompt.difficulty)), len(met)))
        # By a hash of their names: no value goes first in every pool, and the order met does not matter.
        self.values = [
            sorted({cell[place] for cell in met}, key=lambda value: _key(seed, value)) for place in range(3)
        ]
        code_of = [{value: code for code, value in enumerate(values)} for values in self.values]
        cells = np.array([[code_of[d][cell[d]] for d in range(3)] for cell in met], np.int64).reshape(-1, 3)
        ranked = np.lexsort(cells.T[::-1])
        self.cells: Ints = cells[ranked]
        renamed = np.empty(len(met), np.int64)
        renamed[ranked] = np.arange(len(met))
        own = renamed[np.array(codes, np.int64)]
        self.sizes: Ints = np.bincount(own, minlength=len(met))
        self.available = [
            np.bincount(column, self.sizes, len(values)).astype(np.int64)
            for column, values in zip(self.cells.T, self.values, strict=True)
        ]
        self._by_cell = np.lexsort((np.array(keys, np.uint64), own))
        self._first = np.concatenate(([0], np.cumsum(self.sizes)))

    def __len__(self) -> int:
        return len(self._by_cell)

    def places(self, order: Ints) -> Ints:
        """Return which usable prompt is taken at each turn, if ``order`` names the turns' cells."""
        by_cell = np.argsort(order, kind="stable")
        taken = np.bincount(order, minlength=len(self.sizes))
        within = np.arange(len(order)) - np.repeat(np.cumsum(taken) - taken, taken)
        places = np.empty(len(order), np.int64)
        places[by_cell] = self._by_cell[self._first[order[by_cell]] + within]
        return places


def _usable(prompts: Iterable[Prompt], left_out: Counter[str]) -> Iterator[Prompt]:
    for prompt in prompts:
        if prompt.status == "failed":
            left_out[prompt.reason or "no reason given"] += 1
        elif prompt.perturbation is not None:
            left_out["perturbed: it comes with its root"] += 1
        else:
            yield prompt


def _key(seed: int, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{text}".encode(), digest_size=8).digest(), "big")


def _wanted(
    dimension: str, spread: Spread, values: list[str], available: Ints, count: int
) -> tuple[Floats, Floats]:
    """Return the most prompts and the share of each value. Raises ConfigError if they leave too few."""
    shares = _checked(dimension, spread, values)
    named = np.array([value in shares for value in values])
    unnamed = np.array([value == UNNAMED for value in values]) & ~named
    weights = np.array([shares.get(value, 0.0) for value in values])
    weights[unnamed] = (1 - weights.sum()) * available[unnamed] / available.sum()
    others = ~named & ~unnamed
    by = np.ones(len(values)) if spread.rest == "even" else available.astype(np.float64)
    weights[others] = max(0.0, 1 - weights.sum()) * by[others] / max(1.0, by[others].sum())
    caps = np.maximum(weights * named, spread.cap)
    caps[unnamed] = 1.0
    if _most(available, weights, caps, count) < count:
        _refuse(dimension, spread, available, weights, caps, count)
    return _limits(available, weights, caps, count), weights


def _checked(dimension: str, spread: Spread, values: list[str]) -> dict[str, float]:
    shares = {each.value: each.share for each in spread.shares}
    for value, share in shares.items():
        if value not in values:
            raise ConfigError(f"draw: no {dimension} {value!r} in the pool: {nearest(value, values)[:300]}")
        if not 0 <= share <= 1:
            raise ConfigError(f"draw: {dimension} {value!r}: share = {share:g} must be in [0, 1]")
    if len(shares) < len(spread.shares):
        raise ConfigError(f"draw: shares of [{dimension}] name a value twice: remove one")
    if sum(shares.values()) > 1 + 1e-9:
        raise ConfigError(f"draw: shares of [{dimension}] add up to {sum(shares.values()):g}, above 1")
    if not 0 < spread.cap <= 1:
        raise ConfigError(f"draw: cap = {spread.cap:g} of [{dimension}] must be above 0 and at most 1")
    return shares


def _limits(available: Ints, weights: Floats, caps: Floats, count: int) -> Floats:
    # Rounded up, or a small draw could hold nothing; 1e-9: 0.07 * 100 is a little more than 7.
    return np.where(weights > 0, np.minimum(available, np.ceil(caps * count - 1e-9)), 0.0)


def _most(available: Ints, weights: Floats, caps: Floats, count: int) -> int:
    return int(_limits(available, weights, caps, count).sum())


def _refuse(
    dimension: str, spread: Spread, available: Ints, weights: Floats, caps: Floats, count: int
) -> None:
    fits = bisect_left(range(1, count), True, key=lambda n: _most(available, weights, caps, n) < n)
    caps_up_to = (share / 1000 for share in range(1, 1000))
    least = next(
        (cap for cap in caps_up_to if _most(available, weights, np.maximum(caps, cap), count) >= count), 1.0
    )
    raise ConfigError(
        f"draw: {dimension}s at no more than {spread.cap:g} each, and the shares, leave fewer than {count:,} "
        f"prompts: ask for {fits:,}, or set cap = {least:g} under [{dimension}] in the target"
    )


def _filled(limits: Floats, weights: Floats, total: float) -> Floats:
    """Return min(limits, level * weights), level such that they add up to ``total``."""
    filled, left, weight = np.zeros(len(limits)), float(total), float(weights.sum())
    ratios = np.divide(limits, weights, out=np.full(len(limits), np.inf), where=weights > 0)
    for value in np.argsort(ratios, kind="stable")[: int((weights > 0).sum())]:
        filled[value] = min(limits[value], left * weights[value] / weight if weight > 0 else 0.0)
        left -= filled[value]
        weight -= weights[value]
    return filled


def _raked(cells: Ints, sizes: Ints, limits: list[Floats], margins: list[Floats]) -> Floats:
    """Return how many prompts of each cell to draw: none above its size, sums as ``margins`` say.

    Where no numbers do both, the margins move half way, sweep by sweep and within ``limits``, to what the
    others leave possible.
    """
    logits, margins = np.zeros(len(cells)), list(margins)
    of_values = [np.bincount(column, sizes, len(each)) for column, each in zip(cells.T, limits, strict=True)]
    for sweep in range(_SWEEPS):
        error = 0.0
        for place, (column, whole) in enumerate(zip(cells.T, of_values, strict=True)):
            found = np.bincount(column, sizes * _share(logits), len(whole))
            error = max(error, float(np.abs(found - margins[place]).max()))
            if sweep >= _STRICT_SWEEPS:
                margins[place] = _filled(limits[place], (found + margins[place]) / 2, margins[place].sum())
            # Too short a step where a value's cells differ, never too long: p (1 - p) is concave.
            step = _logit(margins[place] / whole) - _logit(found / whole)
            logits = np.clip(logits + step[column], -_FAR, _FAR)
        if error < 0.05:
            break
    return sizes * _share(logits)


def _share(logits: Floats) -> Floats:
    shares: Floats = 1 / (1 + np.exp(-logits))
    return shares


def _logit(shares: Floats) -> Floats:
    inner = np.clip(shares, _ZERO, 1 - _ZERO)
    logits: Floats = np.log(inner / (1 - inner))
    return logits


def _sequence(cells: Ints, sizes: Ints, limits: list[Floats], raked: Floats, count: int) -> Ints:
    """Return the cell of each turn: the subject furthest behind its share, then what else is behind.

    A cell or value is behind by what its share of the turns so far has not got yet, in multiples of
    1 / ``whole``: integers, so that all machines draw alike. No value gets more than its limit. Returns
    fewer than ``count`` turns if the limits end it.
    """
    rates = np.rint(raked * _FINE).astype(np.int64)
    whole = int(rates.sum())
    sums = [
        np.bincount(column, rates, len(each)).astype(np.int64)
        for column, each in zip(cells.T, limits, strict=True)
    ]
    behind, room = [np.zeros_like(each) for each in sums], [np.array(each, np.int64) for each in limits]
    left, order = sizes.copy(), np.empty(count, np.int64)
    for place, values in enumerate(room):
        left[values[cells[:, place]] == 0] = 0
    first = np.searchsorted(cells[:, 0], np.arange(len(sums[0]) + 1))
    of_subject = np.bincount(cells[:, 0], left, len(sums[0])).astype(np.int64)
    taken = np.zeros_like(sizes)
    for turn in range(count):
        for each, rate in zip(behind, sums, strict=True):
            each += rate
        subject = int(np.argmax(np.where(of_subject > 0, behind[0], _LAST)))
        if not of_subject[subject]:
            return order[:turn]
        own = slice(first[subject], first[subject + 1])
        score = rates[own] * (turn + 1) - taken[own] * whole
        score += behind[1][cells[own, 1]] + behind[2][cells[own, 2]]
        cell = int(first[subject] + np.argmax(np.where(left[own] > 0, score, _LAST)))
        order[turn] = cell
        taken[cell] += 1
        left[cell] -= 1
        of_subject[subject] -= 1
        for place, value in enumerate(cells[cell]):
            behind[place][value] -= whole
            room[place][value] -= 1
            if not room[place][value]:
                left[cells[:, place] == value] = 0
                of_subject = np.bincount(cells[:, 0], left, len(sums[0])).astype(np.int64)
    return order


def _gathered(prompts: Iterable[Prompt], places: Ints) -> pa.Table:
    """Return the prompts at ``places``, in that order."""
    wanted, batches, held = set(places.tolist()), [Prompt.table(())], []
    for place, prompt in enumerate(_usable(prompts, Counter())):
        if place in wanted:
            held.append(prompt)
        if len(held) == _CHUNK:
            batches.append(Prompt.table(held))
            held = []
    found = pa.concat_tables([*batches, Prompt.table(held)])
    return found.take(pa.array(np.argsort(np.argsort(places))))


def _strata(pool: _Index, wanted: list[tuple[Floats, Floats]], order: Ints, count: int) -> Iterator[Stratum]:
    for place, dimension in enumerate(DIMENSIONS):
        values, (_, weights) = pool.values[place], wanted[place]
        drawn = np.bincount(pool.cells[order, place], minlength=len(values))
        for code in sorted(range(len(values)), key=values.__getitem__):
            yield Stratum(
                dimension=dimension,
                value=values[code],
                available=int(pool.available[place][code]),
                wanted=float(weights[code] / weights.sum() * count),
                drawn=int(drawn[code]),
            )
