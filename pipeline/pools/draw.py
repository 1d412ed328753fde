"""Draws that are the same on every machine and under every library version.

NumPy promises its bit streams but not its distributions across versions; a pool must not change when
NumPy does. So each draw reads digits of one long hash of what is being drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

_FINE = 1 << 20


class Draw:
    """A supply of small random numbers; equal keys give equal draws."""

    __slots__ = ("_digits",)

    def __init__(self, *key: str | int, bits: int = 1024) -> None:
        self._digits = int.from_bytes(hashlib.shake_256(repr(key).encode()).digest(bits // 8), "big")

    def below(self, limit: int) -> int:
        """Return an integer in [0, limit)."""
        self._digits, digit = divmod(self._digits, limit)
        return digit

    def pick(self, options: Sequence[T]) -> T:
        """Return one of ``options``, each as likely."""
        return options[self.below(len(options))]

    def chance(self, share: float) -> bool:
        """Return True in a ``share`` of draws."""
        return self.below(_FINE) < share * _FINE


@lru_cache(maxsize=64)
def shuffled(size: int, *key: str | int) -> tuple[int, ...]:
    """Return the numbers below ``size`` in an order of their own for each key."""
    draw = Draw(*key, bits=64 + 16 * size)
    order = list(range(size))
    for last in range(size - 1, 0, -1):
        other = draw.below(last + 1)
        order[last], order[other] = order[other], order[last]
    return tuple(order)


def in_turn(options: Sequence[T], index: int, *key: str | int) -> T:
    """Return the option whose turn it is: every block of ``len(options)`` turns holds each once.

    Blocks are shuffled one by one, so two lists of options are not locked to each other.
    """
    block, place = divmod(index, len(options))
    return options[shuffled(len(options), *key, block)[place]]
