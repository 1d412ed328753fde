"""AdamW with moments of 32 or of 8 bits, and its state as plain tensors.

8 bits: torchao's, after arXiv 2110.02861. A moment is a code a number and a scale a block of 256; parameters
of under 4096 numbers, or of no whole blocks, keep exact ones. Updates are computed in float32 either way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.train.compiling import require_compiler
from pipeline.train.parallel import placed

if TYPE_CHECKING:
    from torch import Tensor, nn, optim

    from pipeline.train.settings import Optim

FIRST = "exp_avg"
"""The moment that has a sign."""


def adamw(settings: Optim, trained: Mapping[str, nn.Parameter]) -> optim.Optimizer:
    """Return the optimiser of ``settings``. Raises ConfigError where 8 bits cannot be had."""
    import torch
    from torch.distributed.tensor import DTensor

    parameters = list(trained.values())
    given: dict[str, Any] = {
        "lr": settings.lr,
        "betas": (settings.beta1, settings.beta2),
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    if settings.kind == "adamw":
        return torch.optim.AdamW(parameters, **given, fused=True)
    setting = "optim.kind = 'adamw8bit'"
    if any(isinstance(value, DTensor) for value in parameters):
        raise ConfigError(
            f"{setting} does not know weights divided by fsdp: use 'adamw', or parallel.kind = 'ddp'"
        )
    try:
        from torchao.optim import AdamW8bit
    except ImportError:
        raise ConfigError(f"{setting} needs torchao: pip install 'vipo[train]'") from None
    require_compiler(parameters[0].device, setting)
    made: optim.Optimizer = AdamW8bit(parameters, **given)
    return made


def set_lr(optimizer: optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next update."""
    import torch

    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # another number would make another compiled program
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def flat(trained: Mapping[str, nn.Parameter], optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state by ``<parameter>|<part>``, of 8 bits ``<parameter>|<part>.<tensor>``."""
    import torch

    found: dict[str, Tensor] = {}
    for name, value in trained.items():
        for part, held in optimizer.state[value].items():
            if hasattr(held, "codes"):
                found |= {f"{name}|{part}.{inner}": getattr(held, inner) for inner in held.tensor_attrs}
            else:
                found[f"{name}|{part}"] = torch.as_tensor(held)
    return found


def restore(
    trained: Mapping[str, nn.Parameter], optimizer: optim.Optimizer, stored: Iterable[tuple[str, Tensor]]
) -> None:
    """Give an optimiser the state that ``flat`` returned."""
    for key, value in stored:
        name, _, part = key.rpartition("|")
        of, (part, _, inner) = trained[name], part.partition(".")
        state = optimizer.state[of]
        if inner:
            if part not in state:
                state[part] = _codes(of, signed=part == FIRST)
            getattr(state[part], inner).copy_(value)
        elif value.shape == of.shape:
            state[part] = placed(value, of)
        else:  # the count of updates, which torchao holds on the host
            state[part] = value.to(of.device) if optimizer.defaults.get("fused") else value


def _codes(of: nn.Parameter, *, signed: bool) -> Any:
    from torchao.optim.subclass_8bit import OptimState8bit

    return OptimState8bit.zeros(of.shape, signed, device=of.device, dtype=of.dtype)
