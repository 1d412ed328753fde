"""Every family with a tiny model of the real classes: same contract, on a CPU."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from pipeline.errors import ConfigError
from pipeline.train.families import FAMILIES
from pipeline.train.loop import Run, train
from pipeline.train.meters import read_log
from pipeline.train.settings import Data, FamilyName, Model, Objective, Optim, Output, Resolution, Training
from tests.unit.train_shards import write_run
from tests.weights import checkpoints

TINY: dict[FamilyName, str] = {
    "sd15": "sd15",
    "sdxl": "sdxl",
    "sd3": "sd3",
    "flux": "flux",
    "qwen_image": "qwenimage",
    "wan": "wan",
}
FRAMES = 5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_run(str(folder / "image"), 8, shards=1, sizes=((64, 64),))
    write_run(str(folder / "video"), 8, shards=1, sizes=((64, 64),), frames=FRAMES)
    return folder


def training(family: FamilyName, shards: Path, out: Path, *, full: bool = False, steps: int = 2) -> Training:
    video = family == "wan"
    return Training(
        model=Model(
            family=family,
            weights=str(checkpoints([TINY[family]]) / TINY[family]),
            train="full" if full else "lora",
            rank=2,
            precision="fp32",
            reference="frozen" if full else "adapters",
            checkpointing=True,
        ),
        data=Data(
            runs=(str(shards / ("video" if video else "image")),),
            sizes=(Resolution(width=64, height=64, frames=FRAMES if video else 1),),
            caption_dropout=0.3,
            threads=1,
        ),
        objective=Objective(kind="dpo", kappa=500.0, alpha=1.0, confidence=1.0, safeguard=1.0, sft=0.1),
        optim=Optim(lr=1e-2, batch=4, micro_batch=2, steps=steps, ema=0.5),
        output=Output(folder=str(out), log=1, checkpoint=1),
        device="cpu",
    )


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_it_trains_and_diffusers_loads_the_result(
    family: FamilyName, full: bool, shards: Path, tmp_path: Path
) -> None:
    import diffusers

    given = training(family, shards, tmp_path, full=full)
    before = Run(given)
    export = train(given)
    lines = read_log(tmp_path)
    assert [line["step"] for line in lines] == [1, 2]
    assert set(lines[0]["z"].values()) == {0.0}, "no update yet: the policy is the reference"
    assert lines[0]["accuracy"] == 0.5
    assert any(lines[1]["z"].values())
    assert lines[0]["gradient_norm"] > 0
    name = FAMILIES[family].denoiser
    kind = getattr(diffusers, FAMILIES[family].pipeline)
    if full:
        loaded = getattr(kind.from_pretrained(export, torch_dtype=torch.float32), name)
    else:
        pipe = kind.from_pretrained(given.model.weights, torch_dtype=torch.float32)
        pipe.load_lora_weights(export)
        loaded = getattr(pipe, name)
    batch = next(before.source.batches(0, threads=1))
    noisy, _, time, condition, _ = before._inputs(batch.items[:1], batch)
    after = Run(given)
    after.resume()
    with torch.no_grad():
        for key, mean in after.averaged.items():
            after.trained[key].copy_(mean)
        ours = after.policy.predict(noisy, time, condition)
        old = before.policy.predict(noisy, time, condition)
        theirs = FAMILIES[family].predict(loaded.eval(), noisy, time, condition, given.model.guidance)
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-5)
    assert (ours - old).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("family", "full"), [("sdxl", False), ("flux", False), ("wan", False), ("sd15", True), ("sd3", True)]
)
def test_bf16_starts_at_a_margin_of_zero_and_moves_float32_weights(
    family: FamilyName, full: bool, shards: Path, tmp_path: Path
) -> None:
    given = training(family, shards, tmp_path, full=full, steps=1)
    run = Run(replace(given, model=replace(given.model, precision="bf16")))
    before = {name: value.detach().clone() for name, value in run.trained.items()}
    (line,) = run.steps(0, 1)
    assert set(line["z"].values()) == {0.0}
    assert {value.dtype for value in run.trained.values()} == {torch.float32}
    assert any(not torch.equal(before[name], value) for name, value in run.trained.items())


@pytest.mark.parametrize("family", ["sd15", "flux"])
def test_resume_is_exact_twice(family: FamilyName, shards: Path, tmp_path: Path) -> None:
    whole = training(family, shards, tmp_path / "whole", steps=5)
    parts = training(family, shards, tmp_path / "parts", steps=5)
    train(whole)
    for until in (1, 3, None):
        train(parts, until=until)

    def curve(folder: Path) -> list[tuple[object, ...]]:
        names = ("step", "loss", "z", "winner_change", "gradient_norm")
        return [tuple(line[name] for name in names) for line in read_log(folder)]

    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert len(curve(tmp_path / "whole")) == 5
    (one,), (other,) = ((tmp_path / n / "export").glob("*.safetensors") for n in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()


def test_a_reference_that_is_not_the_policy_is_refused(shards: Path, tmp_path: Path) -> None:
    given = training("sd15", shards, tmp_path, full=True)
    run = Run(given)
    assert run.policy.frozen is not None
    with torch.no_grad():
        next(run.policy.frozen.parameters()).mul_(1.0001)
    with pytest.raises(ConfigError, match=r"z at step 0 is up to .* and must be 0 to the bit"):
        list(run.steps(0, 1))


def test_micro_batches_give_the_same_update(shards: Path, tmp_path: Path) -> None:
    given = training("sd3", shards, tmp_path / "a", steps=1)
    train(given)
    other = replace(
        given,
        optim=replace(given.optim, micro_batch=4),
        output=replace(given.output, folder=str(tmp_path / "b")),
    )
    train(other)
    one, two = (read_log(tmp_path / n)[0] for n in "ab")
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-6)
    assert one["gradient_norm"] == pytest.approx(two["gradient_norm"], rel=1e-4)


def test_the_cache_changes_nothing_but_work(shards: Path, tmp_path: Path) -> None:
    given = training("qwen_image", shards, tmp_path / "plain")
    cached = replace(
        given,
        data=replace(given.data, cache=str(tmp_path / "cache")),
        output=replace(given.output, folder=str(tmp_path / "cached")),
    )
    train(given)
    train(cached)
    kept = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len([path for path in kept if "latents" in path.parts]) == 8
    train(replace(cached, output=replace(given.output, folder=str(tmp_path / "again"))))
    assert sorted((tmp_path / "cache").rglob("*.safetensors")) == kept
    losses = [[line["loss"] for line in read_log(tmp_path / name)] for name in ("plain", "cached", "again")]
    assert losses[0] == losses[1] == losses[2]
    run = Run(cached)
    batches = run.source.batches(0, threads=1, decode=run.encoder.decode)
    assert all(item.pixels is None for batch in islice(batches, 2) for item in batch.items)
