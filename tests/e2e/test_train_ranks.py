"""Several processes make the updates of one: DDP, FSDP2, torchrun, Ray Train. Run as a program, it trains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.train.data import Batch, Item
from pipeline.train.loop import Run, train
from pipeline.train.meters import read_log
from pipeline.train.parallel import joined
from pipeline.train.settings import load
from tests.e2e.nodes import descendants
from tests.e2e.world import QUIET, Command, until
from tests.unit.train_shards import write_run
from tests.weights import checkpoints

pytestmark = pytest.mark.slow

STEPS = 3
KINDS = [(kind, how) for kind in ("ddp", "fsdp") for how in ("full", "lora")]
NAMES = [f"{kind}-{how}" for kind, how in KINDS]

FILE = """
device = "cpu"
[model]
family = "sd15"
weights = "{weights}"
train = "{train}"
rank = 2
reference = "{reference}"
precision = "{precision}"
checkpointing = true
[data]
runs = ["{folder}/run"]
sizes = [{{ width = 64, height = 64 }}]
held_out = {held_out}
threads = 1
cache = "{folder}/cache"
[objective]
kind = "dpo"
kappa = 100.0
alpha = 1.0
[optim]
lr = 1e-4
batch = 4
micro_batch = 1
steps = {steps}
clip = 0.01
ema = 0.5
[parallel]
kind = "{kind}"
[output]
folder = "{folder}/{name}"
log = 1
checkpoint = 1
"""

losses = Run.losses


def recorded(self: Run, items: Sequence[Item], batch: Batch) -> tuple[Any, dict[str, Any]]:
    """Write down which pairs are trained on, then go on."""
    if torch.is_grad_enabled():
        seen = Path(self.training.output.folder) / f"seen-{self.ranks.rank}-of-{self.ranks.count}"
        with seen.open("a") as file:
            file.writelines(f"{batch.step} {item.sample.pair_id} {item.draw}\n" for item in items)
    return losses(self, items, batch)


def work(jobs: Sequence[str]) -> None:
    """Do trainings one after the other, each ``<file>`` or ``<file>@<updates>``."""
    with pytest.MonkeyPatch.context() as patch, joined("cpu"):
        patch.setattr(Run, "losses", recorded)
        for job in jobs:
            file, _, end = job.partition("@")
            train(load(Path(file)), until=int(end) if end else None)


def torchrun(*given: str) -> subprocess.CompletedProcess[str]:
    command = (*("torch.distributed.run", "--standalone", "--nproc-per-node", "2"), *given)
    return subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, **QUIET, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def config(folder: Path, name: str, *, train: str = "full", kind: str = "auto", **other: object) -> Path:
    path = folder / f"{name}.toml"
    given: dict[str, object] = {
        "weights": checkpoints(["sd15"]) / "sd15",
        "reference": "frozen" if train == "full" else "adapters",
        "precision": "fp32",
        "held_out": 0.0,
        "steps": STEPS,
        **other,
    }
    path.write_text(FILE.format(folder=folder, name=name, train=train, kind=kind, **given))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which one process and two have trained the same."""
    folder = tmp_path_factory.mktemp("parallel")
    write_run(str(folder / "run"), 16, sizes=((64, 64),))
    work([str(config(folder, how, train=how)) for how in ("full", "lora")])
    mixed = config(folder, "mixed", kind="fsdp")
    work([f"{mixed}@1"])
    half = config(folder, "half", kind="fsdp", precision="bf16", steps=1)
    cached = config(folder, "cached", kind="fsdp", train="lora", reference="cached", held_out=0.3)
    jobs = [config(folder, f"{kind}-{how}", train=how, kind=kind) for kind, how in KINDS]
    made = torchrun(__file__, *map(str, [*jobs, half, cached]), f"{mixed}@2")
    assert made.returncode == 0, made.stderr
    work([str(mixed)])
    return folder


def last(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoints/{STEPS:08d}/{name}.safetensors")


def seen(folder: Path) -> list[str]:
    return sorted(line for path in folder.glob("seen-*") for line in path.read_text().splitlines())


def same_curve(one: Path, other: Path) -> None:
    lines = read_log(one), read_log(other)
    assert [line["step"] for line in lines[0]] == [line["step"] for line in lines[1]]
    for name in ("loss", "winner_error", "gradient_norm", "winner_change"):
        curves = [torch.tensor([line[name] for line in each]) for each in lines]
        torch.testing.assert_close(*curves, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_make_the_updates_of_one(name: str, world: Path) -> None:
    one, two = world / name.partition("-")[2], world / name
    for part in ("weights", "averaged", "optimizer"):
        torch.testing.assert_close(last(two, part), last(one, part), rtol=0, atol=1e-5)
    begun = load_file(one / "checkpoints/00000002/weights.safetensors")
    assert max((begun[key] - value).abs().max() for key, value in last(one, "weights").items()) > 5e-5
    files = sorted(path.relative_to(one) for path in (one / "export").rglob("*.safetensors"))
    assert files
    for file in files:
        torch.testing.assert_close(load_file(two / file), load_file(one / file), rtol=0, atol=1e-5)
    assert set(read_log(two)[0]["z"].values()) == {0.0}
    assert seen(two) == seen(one)
    assert len(list(two.glob("seen-*-of-2"))) == 2, "each has had a share"
    same_curve(one, two)


def test_it_goes_on_with_another_number_of_processes_twice(world: Path) -> None:
    parts = {path.name: len(path.read_text().splitlines()) for path in (world / "mixed").glob("seen-*")}
    assert parts == {"seen-0-of-1": 8, "seen-0-of-2": 2, "seen-1-of-2": 2}
    assert seen(world / "mixed") == seen(world / "full")
    same_curve(world / "full", world / "mixed")
    torch.testing.assert_close(
        last(world / "mixed", "weights"), last(world / "full", "weights"), rtol=0, atol=1e-5
    )


def test_sharded_bf16_starts_at_a_margin_of_zero_and_moves_float32_weights(world: Path) -> None:
    (line,) = read_log(world / "half")
    assert set(line["z"].values()) == {0.0}
    assert line["gradient_norm"] > 0
    assert "fsdp: parallel.kind says so" in line["parallel"]
    kinds = {
        value.dtype for value in load_file(world / "half/checkpoints/00000001/weights.safetensors").values()
    }
    assert kinds == {torch.float32}


def test_cached_references_and_held_out_pairs_are_shared_out(world: Path) -> None:
    found = train(load(config(world, "alone", train="lora", held_out=0.3))).parent
    same_curve(found, world / "cached")
    one, two = (measured(folder) for folder in (found, world / "cached"))
    assert two["each"]["pair_id"] == one["each"]["pair_id"]
    assert two["each"]["z"] == pytest.approx(one["each"]["z"], abs=1e-2)


def measured(folder: Path) -> Mapping[str, Any]:
    import json

    return dict(json.loads((folder / "held_out.json").read_text()))


def test_one_that_fails_ends_all_and_says_why(tmp_path: Path) -> None:
    write_run(str(tmp_path / "run"), 8, shards=1, sizes=((64, 64),))
    file = config(tmp_path, "damaged", steps=2)
    (tar,) = (tmp_path / "run").rglob("*.tar")
    data = tar.read_bytes()
    place = data.index(b'{"pair_id": "') + len(b'{"pair_id": "')
    tar.write_bytes(data[:place] + b"not it" + data[place + 6 :])  # one rank reads it, within two updates
    made = torchrun("-m", "pipeline", "train", str(file))
    assert made.returncode
    said = [line for line in made.stderr.splitlines() if line.startswith("vipo: ")]
    assert any("is damaged: run `vipo repair`" in line for line in said), made.stderr
    assert "/pipeline/train/" not in made.stderr, "no traceback of ours"


def test_ray_train_goes_on_when_a_worker_dies(world: Path) -> None:
    file = config(world, "ray", kind="ddp")
    command = Command("train", str(file), "--ray-workers", "2")
    first = world / "ray/checkpoints/00000001/state.json"
    until(lambda: first.exists() or command.process.poll() is not None, "a checkpoint is there")
    workers = [pid for pid, line in descendants(command.process.pid).items() if "RayTrainWorker" in line]
    assert len(workers) == 2, command.errors
    os.kill(workers[1], signal.SIGKILL)
    assert command.end() == 0, command.errors
    same_curve(world / "full", world / "ray")
    torch.testing.assert_close(
        last(world / "ray", "weights"), last(world / "full", "weights"), rtol=0, atol=1e-5
    )


if __name__ == "__main__":
    work(sys.argv[1:])
