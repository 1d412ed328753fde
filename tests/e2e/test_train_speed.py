"""What makes a training faster or smaller: compiled blocks and moments of 8 bits, on a CPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pipeline.errors import ConfigError
from pipeline.train.loop import Run, train
from pipeline.train.meters import read_log
from pipeline.train.settings import Training
from tests.bench.train_gpu import main as bench
from tests.contract.test_train_families import shards, training

__all__ = ["shards"]
pytestmark = pytest.mark.slow


def curve(given: Training) -> list[tuple[object, ...]]:
    names = ("step", "loss", "z", "winner_change", "gradient_norm")
    return [tuple(line[name] for name in names) for line in read_log(Path(given.output.folder))]


@pytest.mark.parametrize("reference", ["adapters", "frozen"])
def test_compiled_blocks_start_at_a_margin_of_zero_and_are_compiled_once(
    reference: str, shards: Path, tmp_path: Path
) -> None:
    from torch._dynamo.utils import counters

    plain = training("sd3", shards, tmp_path / "plain", steps=4)
    model = replace(plain.model, compile=True, reference=reference)  # type: ignore[arg-type]
    compiled = replace(plain, model=model, output=replace(plain.output, folder=str(tmp_path / "compiled")))
    run = Run(compiled)
    lines, programs = [], [counters["frames"]["ok"]]
    batch = next(run.batches(0))
    with torch.no_grad():  # as held-out pairs are measured
        _, seen = run.losses(batch.items[:2], batch)
    assert not seen["z"].any()
    programs.append(counters["frames"]["ok"])
    for line in run.steps(0, 4):
        lines.append(line)
        programs.append(counters["frames"]["ok"])
    # Blocks of two kinds, as the last one makes nothing of the text; reference and policy share programs.
    assert programs[1] - programs[0] <= 2
    assert len(set(programs[1:])) == 1
    assert set(lines[0]["z"].values()) == {0.0}
    again = replace(compiled, output=replace(plain.output, folder=str(tmp_path / "again")))
    train(again, until=2)
    train(again)
    assert [line["loss"] for line in read_log(tmp_path / "again")] == [line["loss"] for line in lines]
    train(plain)
    for one, other in zip(lines, read_log(tmp_path / "plain"), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)


def test_moments_of_8_bits_resume_exactly(shards: Path, tmp_path: Path) -> None:
    def given(folder: str, kind: str) -> Training:
        made = training("sd3", shards, tmp_path / folder, steps=5)
        return replace(
            made,
            model=replace(made.model, rank=128),  # adapters of 4096 numbers: smaller ones keep exact moments
            optim=replace(made.optim, kind=kind, lr=1e-3, ema=0.0),  # type: ignore[arg-type]
        )

    whole, parts, exact = given("whole", "adamw8bit"), given("parts", "adamw8bit"), given("exact", "adamw")
    train(whole)
    for until in (1, 3, None):
        train(parts, until=until)
    train(exact)
    assert curve(parts) == curve(whole)
    (one,), (other,) = ((tmp_path / name / "export").glob("*.safetensors") for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()
    for line, fine in zip(read_log(tmp_path / "whole"), read_log(tmp_path / "exact"), strict=True):
        assert line["loss"] == pytest.approx(fine["loss"], rel=0.02)
    held, full = (
        load_file(tmp_path / name / "checkpoints" / "00000005" / "optimizer.safetensors")
        for name in ("whole", "exact")
    )
    codes = [name for name in held if name.endswith("|exp_avg.codes")]
    assert codes
    for name in codes:
        stem = name.removesuffix(".codes")
        assert held[name].dtype == torch.uint8
        values = held[f"{stem}.qmap"][held[name].int()].view(-1, 256) * held[f"{stem}.scale"][:, None]
        error = (values.flatten() - full[stem].flatten()).abs().max()
        assert error <= 0.2 * full[stem].abs().max(), "gradients have gone apart as well"


def test_the_gpu_bench_runs_in_tiny_shapes(capsys: pytest.CaptureFixture[str]) -> None:
    ways = [word for way in ("plain", "ours", "latents") for word in ("--way", way)]
    bench(["--tiny", "--model", "sd3", "--train", "lora", *ways])
    table = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    titles = [cells[0].strip("| ") for cells in table]
    assert titles == ["", "plain loop", "ours: eager, latents made", "+ cached latents"]
    assert all(float(cells[1]) > 0 for cells in table[1:])


def test_without_a_compiler_it_is_refused_before_a_model_is_loaded(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config
    from torch._inductor.utils import fresh_cache

    given = training("sd3", shards, tmp_path)
    absent = replace(given, model=replace(given.model, compile=True, weights="nowhere"))
    monkeypatch.setattr(config.cpp, "cxx", ("/nowhere/g++",))
    torch.compiler.reset()
    with fresh_cache(), pytest.raises(ConfigError, match=r"model\.compile needs a compiler .*: install gcc"):
        Run(absent)
