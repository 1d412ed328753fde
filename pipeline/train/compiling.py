"""torch.compile: whether it works here, and of which parts of a model.

Only the repeated blocks are compiled, one program for all that are alike: seconds instead of minutes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pipeline.train.families import Family

PROGRAMS = 256
"""Most programs of one kind of block: its shapes times the resolutions trained at. torch allows 8."""


def require_compiler(device: torch.device, setting: str) -> None:
    """Refuse ``setting`` where torch cannot compile for ``device``, by trying. Raises ConfigError."""
    import torch

    try:
        torch.compile(lambda value: value + 1)(torch.zeros(2, device=device))
    except RuntimeError as error:
        cause = str(error).partition("\n")[0][:160]
        raise ConfigError(
            f"{setting} needs a compiler and there is none that works ({cause}): install gcc (CPU) or triton "
            "(GPU), or leave it out"
        ) from error


def compile_blocks(model: nn.Module, family: Family) -> None:
    """Compile the blocks of a denoiser, each shape for itself unless lengths of prompts would make too many.

    One shape more than PROGRAMS is an error: torch would go on uncompiled, and reference errors that were
    cached before would no longer be the policy's.
    """
    import torch

    torch._dynamo.config.recompile_limit = PROGRAMS
    torch._dynamo.config.accumulated_recompile_limit = 8 * PROGRAMS
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    for part in model.modules():
        if type(part).__name__ in family.blocks:
            part.compile(dynamic=family.dynamic)
