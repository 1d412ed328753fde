"""Samples while a model is trained: every family draws them, and they change nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.train.families import FAMILIES
from pipeline.train.loop import Run, train
from pipeline.train.meters import read_log
from pipeline.train.samples import Samples
from pipeline.train.settings import FamilyName, Training
from pipeline.train.settings import Samples as Asked
from tests.contract.test_train_families import shards, training

__all__ = ["shards"]
pytestmark = pytest.mark.slow
ASKED = Asked(every=2, prompts=("a red cat", "two trees"), steps=2)


def curve(given: Training) -> list[tuple[object, ...]]:
    names = ("step", "loss", "z", "winner_change", "gradient_norm")
    return [tuple(line[name] for name in names) for line in read_log(Path(given.output.folder))]


@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_a_training_with_samples_is_the_training_without(full: bool, shards: Path, tmp_path: Path) -> None:
    plain = training("sd15", shards, tmp_path / "plain", full=full, steps=4)
    drawn = replace(
        plain, samples=ASKED, output=replace(plain.output, folder=str(tmp_path / "drawn"), checkpoint=2)
    )
    train(plain)
    train(drawn, until=2)
    train(drawn)
    assert curve(drawn) == curve(plain)
    one, other = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "export").rglob("*.safetensors")}
        for name in ("plain", "drawn")
    )
    assert one == other
    folder = tmp_path / "drawn" / "samples"
    sheets = {path.stem: np.asarray(Image.open(path)) for path in folder.glob("0*.png")}
    assert sorted(sheets) == ["00000000", "00000002", "00000004"]
    assert sheets["00000002"].shape == sheets["00000004"].shape
    assert (sheets["00000002"] != sheets["00000004"]).any()


@pytest.mark.parametrize("family", list(FAMILIES))
def test_every_family_draws_with_averaged_weights_in_bf16(
    family: FamilyName, shards: Path, tmp_path: Path
) -> None:
    given = training(family, shards, tmp_path, full=family in ("sdxl", "qwen_image"))
    run = Run(replace(given, samples=ASKED, model=replace(given.model, precision="bf16")))
    samples = Samples(run)
    first = samples.draw(0)
    assert samples.draw(0) == first
    assert len(first.getcolors(1 << 24) or ()) > 100, "not one colour, not black"
    before = samples.draw(1)
    weights = {name: value.detach().clone() for name, value in run.trained.items()}
    with torch.no_grad():
        for name, mean in run.averaged.items():
            mean.add_(0.05 * torch.randn_like(mean))
            weights |= {f"mean {name}": mean.clone()}
    assert samples.draw(1) != before
    now = run.trained | {f"mean {name}": mean for name, mean in run.averaged.items()}
    assert all(torch.equal(weights[name], now[name]) for name in weights), "and puts them back"
