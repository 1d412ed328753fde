"""What all tiny checkpoints are made with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import nn

Model = Any
"""A torch module; transformers and diffusers leave their classes half typed."""


BY_SIZE = {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15, "shift": 3.0}
"""FLUX's and Qwen-Image's noise schedule, which shifts with the number of latent tokens."""


class Checkpoint(Protocol):
    """What writes itself as a repository's files."""

    def save_pretrained(self, folder: Path, *, safe_serialization: bool) -> None:
        """Write all files to ``folder``."""


def seeded(make: Callable[[], Model]) -> Model:
    """Return ``make()`` with weights that are the same in every process and keep the variance of what passes.

    Some classes leave parameters uninitialised (Z-Image's pad tokens) or at zero (output layers), with which
    a random model gives NaN or a flat picture. Gains, which are all ones, and biases stay as they are.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        model = make().eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim > 1 and not bool((weight == 1).all()):
                    nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    return model


def flow(**options: Any) -> FlowMatchEulerDiscreteScheduler:
    """Return the flow-matching Euler scheduler that most of these models use."""
    return FlowMatchEulerDiscreteScheduler(**options)
