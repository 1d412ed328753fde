"""Timestep and noise of a pair: the same wherever, whenever and beside whichever others it is trained on.

They come from a counter-based generator (Philox) whose key is a hash of (seed, pair, draw); ``draw`` counts
how often the pair was seen. torch's generators cannot do this: their numbers depend on what was drawn before
(so on rank, batch and worker), differ between CPU and CUDA, and ``randn`` fills tensors of 16 and more
elements in another order than smaller ones. With keys, errors of a reference model can be stored and used
again, and a resumed or differently split run sees the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.ids import content_id

if TYPE_CHECKING:
    from torch import Tensor

Prediction = Literal["epsilon", "v_prediction", "flow"]
TIMESTEPS = 1000
"""Discrete timesteps of the diffusion models."""

LEAST = 2.0**-53
"""Keeps a coin off 0, whose normal quantile is minus infinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How timesteps t in (0, 1) are spread: uniform, or sigmoid(mean + std x normal).

    ``shift`` s then moves them towards noise as samplers of flow models do: t s / (1 + (s - 1) t).
    """

    spread: Literal["uniform", "logit_normal"] = "uniform"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def at(self, coin: float) -> float:
        """Return the ``coin``-quantile, ``coin`` in [0, 1)."""
        t = coin
        if self.spread == "logit_normal":
            t = 1 / (1 + math.exp(-(self.mean + self.std * NormalDist().inv_cdf(max(coin, LEAST)))))
        return self.shift * t / (1 + (self.shift - 1) * t)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """All that is left to chance about one visit of a pair: two coins in [0, 1), then the noise."""

    time: float
    caption: float
    generator: np.random.Generator

    def noise(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """Return standard normal noise of ``shape``; winner and loser share it. Call once."""
        return self.generator.standard_normal(tuple(shape), dtype=np.float32)


def chance(seed: int, pair_id: str, draw: int) -> Chance:
    """Return what (seed, pair, draw) determines.

    Draws from -1 downwards are the visits of a held-out pair: with its prompt, at timesteps spread evenly
    (van der Corput's sequence, turned by a coin of the pair), and the same whatever the seed.
    """
    if draw >= 0:
        return _chance(seed, pair_id, draw)
    place = int(f"{-1 - draw:032b}"[::-1], 2) / 2**32
    turned = (_chance(0, pair_id, -1).time + place) % 1
    return replace(_chance(0, pair_id, draw), time=turned, caption=1.0)


def _chance(seed: int, pair_id: str, draw: int) -> Chance:
    key = int(content_id("noise", seed=seed, pair=pair_id, draw=draw), 16)
    generator = np.random.Generator(np.random.Philox(key=key))
    time, caption = generator.random(2)
    return Chance(time=float(time), caption=float(caption), generator=generator)


@dataclass(frozen=True, slots=True)
class Process:
    """How data becomes noise, and what the model predicts of it. ``t`` is float64 [n] in [0, 1).

    flow: x = (1-t) x0 + t eps, predicted is eps - x0. epsilon and v_prediction: x = a x0 + s eps with
    a^2 = ``kept`` of the discrete timestep and s^2 = 1 - a^2, predicted is eps or a eps - s x0.
    """

    predicts: Prediction
    kept: tuple[float, ...] = ()

    def noisy(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return x at ``t``."""
        signal, scale = self._levels(data, t)
        return signal * data + scale * noise

    def target(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Return what a perfect model predicts."""
        if self.predicts == "epsilon":
            return noise
        if self.predicts == "flow":
            return noise - data
        signal, scale = self._levels(data, t)
        return signal * noise - scale * data

    def timestep(self, t: Tensor) -> Tensor:
        """Return what the model is told: a discrete timestep [n] int64, or t x 1000 as float32 for flow."""
        import torch

        return (t * TIMESTEPS).float() if self.predicts == "flow" else (t * TIMESTEPS).to(torch.int64)

    def _levels(self, data: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        import torch

        if self.predicts == "flow":
            levels = 1 - t, t
        else:
            known = torch.tensor(self.kept, dtype=torch.float64).to(t.device, non_blocking=True)
            kept = known[self.timestep(t)]
            levels = kept.sqrt(), (1 - kept).sqrt()
        shape = (-1, *[1] * (data.ndim - 1))
        return levels[0].to(data.dtype).reshape(shape), levels[1].to(data.dtype).reshape(shape)
