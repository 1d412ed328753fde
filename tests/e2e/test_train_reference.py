"""Cached reference errors: to the bit those of a frozen copy, made once, and never trusted blindly."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from diffusers import UNet2DConditionModel

from pipeline.errors import ConfigError
from pipeline.train.loop import Run, train
from pipeline.train.measure import read_held_out
from pipeline.train.meters import read_log
from pipeline.train.settings import Data, Model, Objective, Optim, Output, Resolution, Training, to_json
from tests.unit.train_shards import write_run
from tests.weights import checkpoints

pytestmark = pytest.mark.slow

PASSES = 4 * 2
"""Forward passes of four updates of four pairs, two at a time."""

PROGRAM = """
import sys
from pathlib import Path
import pipeline.train.reference as reference
from pipeline.train.loop import Run
from pipeline.train.settings import load
reference.SEGMENT = 4  # or so few visits would be kept at once
Run(load(Path(sys.argv[1])))
"""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    write_run(str(folder), 12, sizes=((64, 64),))
    return folder


@pytest.fixture
def given(shards: Path, tmp_path: Path) -> Training:
    """A training of four updates with cached errors and a cache of its own."""
    return Training(
        model=Model(
            family="sd15",
            weights=str(checkpoints(["sd15"]) / "sd15"),
            train="full",
            precision="fp32",
            reference="cached",
        ),
        data=Data(
            runs=(str(shards),),
            sizes=(Resolution(width=64, height=64),),
            caption_dropout=0.3,
            threads=1,
            cache=str(tmp_path / "cache"),
        ),
        objective=Objective(kind="dpo", kappa=500.0, alpha=1.0),
        optim=Optim(lr=1e-3, batch=4, micro_batch=2, steps=4),
        output=Output(folder=str(tmp_path / "cached"), log=1, checkpoint=1),
        device="cpu",
    )


@dataclass
class Count:
    """Forward passes of a denoiser."""

    passes: int = 0


@contextmanager
def counted() -> Iterator[Count]:
    count = Count()

    def seen(module: torch.nn.Module, _given: Any, _made: Any) -> None:
        real = isinstance(module, UNet2DConditionModel) and not next(module.parameters()).is_meta
        count.passes += real  # on the meta device FLOPs are counted

    handle = torch.nn.modules.module.register_module_forward_hook(seen)
    try:
        yield count
    finally:
        handle.remove()


def made(given: Training) -> tuple[Run, int]:
    """Return a run and how many forward passes it took to be ready."""
    with counted() as count:
        run = Run(given)
    return run, count.passes


def segments(given: Training) -> list[Path]:
    return sorted(Path(given.data.cache or "").glob("reference/*/*.parquet"))


def curve(folder: str) -> list[tuple[object, ...]]:
    names = ("step", "loss", "z", "winner_change", "loser_change", "gradient_norm")
    return [tuple(line[name] for name in names) for line in read_log(Path(folder))]


@pytest.mark.parametrize(("kind", "precision"), [("full", "fp32"), ("lora", "bf16")])
def test_they_train_as_the_model_itself_does_also_when_resumed(
    kind: Literal["full", "lora"], precision: Literal["fp32", "bf16"], given: Training, tmp_path: Path
) -> None:
    cached = replace(
        given,
        model=replace(given.model, train=kind, rank=2, precision=precision),
        data=replace(given.data, held_out=0.3, visits=4),
    )
    alone = replace(
        cached,
        model=replace(cached.model, reference="frozen" if kind == "full" else "adapters"),
        output=replace(given.output, folder=str(tmp_path / "alone")),
    )
    train(alone, export=False)
    train(cached, until=1)
    kept = segments(cached)
    train(cached, export=False)
    assert set(kept) < set(segments(cached)), "errors of the first update are kept, those of others added"
    assert curve(cached.output.folder) == curve(alone.output.folder)
    assert len(curve(cached.output.folder)) == 4
    one, two = read_held_out(cached), read_held_out(alone)
    assert one is not None
    assert two is not None
    assert one.pop("training") != two.pop("training")
    assert one == two
    assert one["visits"] == 4
    assert not (tmp_path / "cached" / "export").exists()


def test_another_objective_uses_what_one_has_made(given: Training) -> None:
    first, passes = made(given)
    assert passes == PASSES
    with counted() as count:
        lines = list(first.steps(0, 2))
    assert count.passes == PASSES / 2, "no forward pass is the reference's"
    other = replace(
        given,
        objective=Objective(kind="dpo", kappa=9.0, alpha=-1.0, confidence=1.0, sft=0.5),
        optim=replace(given.optim, lr=1e-5, ema=0.5),
    )
    again, passes = made(other)
    assert passes == 0
    (line,) = again.steps(0, 1)
    assert set(line["z"].values()) == set(lines[0]["z"].values()) == {0.0}
    longer = replace(given, optim=replace(given.optim, steps=6))
    assert made(longer)[1] == 2 * 2, "of two more updates"
    assert made(replace(given, seed=1))[1] == PASSES, "another seed is another noise"


def test_a_pass_that_was_killed_goes_on(given: Training, tmp_path: Path) -> None:
    file = tmp_path / "training.toml"
    file.write_text(toml(given))
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # or its sums differ
    )
    until = time.monotonic() + 180
    while not segments(given) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = len(segments(given))
    assert kept >= 1
    run, passes = made(given)
    assert passes == PASSES - 2 * kept
    (line,) = run.steps(0, 1)
    assert set(line["z"].values()) == {0.0}
    assert made(given)[1] == 0


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_segment_is_made_again(given: Training, damage: str) -> None:
    made(given)
    (path,) = segments(given)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[60] ^= 1
    path.write_bytes(whole[:-20] if damage == "cut" else flipped)
    assert made(given)[1] == PASSES
    assert [path.read_bytes() for path in segments(given)] == [whole]


def test_other_weights_get_errors_of_their_own_and_the_gate_refuses_those_put_in_their_place(
    given: Training, tmp_path: Path
) -> None:
    mine = tmp_path / "weights"
    shutil.copytree(given.model.weights, mine)
    moved = replace(given, model=replace(given.model, weights=str(mine)))
    made(given)
    assert made(moved)[1] == 0, "the same weights in another folder"
    (old,) = segments(given)
    run = Run(moved)
    with torch.no_grad():
        next(run.policy.model.parameters()).mul_(1.01)
    run.policy.pipe.save_pretrained(mine)
    assert made(moved)[1] == PASSES, "another training has written other weights to the same folder"
    (new,) = set(segments(given)) - {old}
    new.write_bytes(old.read_bytes())
    with pytest.raises(ConfigError, match=r"z at step 0 is up to .* delete the errors kept in .*/reference/"):
        list(Run(moved).steps(0, 1))


def toml(given: Training) -> str:
    """Return a training file: JSON's values are TOML's, but for null."""
    import json

    tables = {k: v for k, v in json.loads(to_json(given)).items() if isinstance(v, dict)}
    lines = ['device = "cpu"']
    for name, values in tables.items():
        lines += [f"[{name}]", *(f"{k} = {inline(v)}" for k, v in values.items() if v is not None)]
    return "\n".join(lines)


def inline(value: object) -> str:
    import json

    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{k} = {inline(v)}' for k, v in value.items())} }}"
    return json.dumps(value)
