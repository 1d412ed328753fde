"""What training costs in arithmetic, and what a device could do: utilisation by the model's own FLOPs (MFU).

Counted are matrix products, convolutions and attention of what the objective needs: forward and backward of
the policy, forward of the reference model unless its errors are cached (PaLM, arXiv 2204.02311, appendix B).
What checkpointing computes twice counts once, encoders and the optimiser do not count.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pipeline.train.families import FAMILIES, Condition
from pipeline.train.models import adapt
from pipeline.train.settings import FamilyName, Training

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Shapes = tuple[tuple[str, tuple[int, ...], bool], ...]

PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989.4e12,
    "H200": 989.4e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX PRO 6000": 503.8e12,
    "RTX 4090": 165.2e12,
}
"""Dense bfloat16 FLOP/s with float32 sums, from NVIDIA's data sheets (halved where they count sparsity), by a
part of the device's name; the first that fits."""


def peak(device: torch.device, precision: str) -> float | None:
    """Return the FLOP/s that ``device`` could reach in bf16; None if that is not known or not used."""
    import torch

    known = device.type == "cuda" and precision == "bf16"
    name = torch.cuda.get_device_name(device) if known else ""
    return next((rate for part, rate in PEAKS.items() if part in name), None)


def of_forward(training: Training, denoiser: Any, noisy: Tensor, time: Tensor, given: Condition) -> float:
    """Return the FLOPs of one forward pass of the loop, its backward pass and the reference's.

    A denoiser like the one given is built and run on the meta device: nothing is computed or held, and
    neither compiled programs nor checkpointing nor division over ranks is in the way.
    """
    referred = training.objective.kind == "dpo" and training.model.reference != "cached"
    tensors = {"noisy": noisy, "time": time, **given}
    shapes = tuple((name, tuple(one.shape), one.is_floating_point()) for name, one in tensors.items())
    settings = training.model
    rank = settings.rank if settings.train == "lora" else 0
    return _counted(settings.family, json.dumps(denoiser.config), rank, settings.guidance, shapes, referred)


@lru_cache(64)
def _counted(
    name: FamilyName, config: str, rank: int, guidance: float, shapes: Shapes, referred: bool
) -> float:
    import diffusers
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    family, about = FAMILIES[name], json.loads(config)
    # As products, attention counts the same on every device.
    with torch.device("meta"), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model = getattr(diffusers, about["_class_name"]).from_config(about).eval()
        kinds = {True: torch.float32, False: torch.int64}
        given = {part: torch.empty(shape, dtype=kinds[real]) for part, shape, real in shapes}
        noisy, time = given.pop("noisy"), given.pop("time")
        forward = 0
        if rank:
            with torch.no_grad():
                family.predict(model, noisy, time, given, guidance)
            forward = counter.get_total_flops()
            adapt(model.requires_grad_(False), family, rank, 0)
        with torch.enable_grad():  # whoever asks
            made = family.predict(model, noisy, time, given, guidance).sum()
        forward = forward or counter.get_total_flops()
        torch.autograd.backward(made)
        total = counter.get_total_flops()
    if rank:
        total -= forward
    return float(total + forward * referred)
