"""How a model is laid over processes, and what is refused before any of them loads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.train.meters import Meters
from pipeline.train.parallel import ALONE, Ranks, choose, joined, refuse_split
from pipeline.train.settings import Optim, Parallel, Training, load

GIB = 2**30
EIGHT = Ranks(count=8)


@pytest.fixture
def training() -> Training:
    given = load(Path(__file__).parents[2] / "infra" / "train" / "demo-dpo.toml")
    return replace(given, optim=Optim(lr=1e-4, batch=16, micro_batch=4, steps=10))


def test_a_model_is_divided_when_a_gpu_has_no_room_for_it() -> None:
    fits = choose("auto", EIGHT, needed=50 * GIB, memory=80 * GIB)
    assert fits.kind == "ddp"
    assert fits.why == (
        "8 processes, ddp: 50.0 GiB of weights, gradients, moments and copies fit 70% of a GPU's 80 GiB"
    )
    large = choose("auto", EIGHT, needed=60 * GIB, memory=80 * GIB)
    assert large.kind == "fsdp"
    assert "do not fit" in large.why
    assert choose("ddp", EIGHT, needed=60 * GIB, memory=80 * GIB).kind == "ddp"
    assert choose("fsdp", EIGHT, needed=1, memory=None).kind == "fsdp"
    assert choose("auto", EIGHT, needed=60 * GIB, memory=None).kind == "ddp"
    assert choose("fsdp", ALONE, needed=60 * GIB, memory=80 * GIB).kind == "alone"


def test_a_batch_that_processes_cannot_share_equally_is_refused(training: Training) -> None:
    refuse_split(training, 4)
    with pytest.raises(ConfigError, match=r"optim\.batch = 16 cannot be split over 8 .*: lower optim\.micro"):
        refuse_split(training, 8)


def test_processes_and_micro_batches_are_no_part_of_what_is_trained(training: Training) -> None:
    other = replace(training, optim=replace(training.optim, micro_batch=1), parallel=Parallel(kind="fsdp"))
    assert other.fingerprint == training.fingerprint


def test_figures_are_those_of_all_ranks() -> None:
    ranks = [Meters(waited=waited) for waited in (0.1, 0.3)]
    for number, meters in enumerate(ranks):
        values = torch.tensor([number, number + 2.0])
        meters.add(loss=values, winner=values)
    ranks[0].merge(ranks)
    line = ranks[0].read()
    assert line["loss"] == 1.5
    assert ranks[0].waited == 0.3


def test_a_world_without_a_launcher_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match=r"RANK expected.*: start it by torchrun"), joined("cpu"):
        pass
