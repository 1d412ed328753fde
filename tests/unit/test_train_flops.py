"""FLOPs of a training are those that its passes really make, and devices are known by their names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from pipeline.train.flops import of_forward, peak
from pipeline.train.models import Policy
from tests.contract.test_train_families import training

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_what_is_counted_is_what_is_done(full: bool, tmp_path: Path) -> None:
    given = training("sd3", tmp_path, tmp_path, full=full)
    policy = Policy(replace(given.model, checkpointing=False), device="cpu", seed=0)
    noisy, time = torch.randn(2, 16, 8, 8), torch.full((2,), 500.0)
    told = {"encoder_hidden_states": torch.randn(2, 333, 64), "pooled_projections": torch.randn(2, 64)}
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as policys:
        torch.autograd.backward(policy.predict(noisy, time, told).sum())
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as references:
        policy.predict_reference(noisy, time, told)
    done = policys.get_total_flops() + references.get_total_flops()
    # Settings ask for checkpointing: what is computed twice counts once.
    assert of_forward(given, policy.model, noisy, time, told) == done
    cached = replace(given, model=replace(given.model, reference="cached"))
    assert of_forward(cached, policy.model, noisy, time, told) == policys.get_total_flops()


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 503.8e12),
        ("NVIDIA Tesla T4", None),
    ],
)
def test_peaks_go_by_name(name: str, rate: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert peak(torch.device("cuda"), "bf16") == rate
    assert peak(torch.device("cuda"), "fp32") is None
    assert peak(torch.device("cpu"), "bf16") is None
