"""SFT, then Poly-DPO from what it made, killed once on the way and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.train.loop import train
from pipeline.train.meters import read_log
from pipeline.train.plot import plot
from pipeline.train.settings import load
from tests.unit.train_shards import write_run
from tests.weights import checkpoints

pytestmark = pytest.mark.slow

PROGRAM = """
import sys
from pathlib import Path
from pipeline.train.loop import train
from pipeline.train.settings import load
train(load(Path(sys.argv[1])))
"""

FILE = """
device = "cpu"
[model]
family = "sd15"
weights = "{weights}"
train = "full"
reference = "frozen"
precision = "fp32"
[data]
runs = ["{runs}"]
sizes = [{{ width = 64, height = 64 }}]
held_out = 0.3
threads = 2
[objective]
{objective}
[optim]
lr = 1e-3
batch = 4
micro_batch = 4
steps = {steps}
[output]
folder = "{folder}"
log = 1
checkpoint = 2
"""


def config(folder: Path, name: str, *, weights: Path, objective: str, steps: int) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(
        FILE.format(
            weights=weights, runs=folder / "run", objective=objective, steps=steps, folder=folder / name
        )
    )
    return path


def test_sft_then_dpo_and_a_kill_between(tmp_path: Path) -> None:
    write_run(str(tmp_path / "run"), 16, sizes=((64, 64),))
    tiny = checkpoints(["sd15"]) / "sd15"
    sft = load(config(tmp_path, "sft", weights=tiny, objective='kind = "sft"', steps=8))
    train(sft)
    losses = [line["loss"] for line in read_log(tmp_path / "sft")]
    assert sum(losses[-3:]) < sum(losses[:3]), "it learns"
    assert plot(tmp_path / "sft").read_bytes().startswith(b"<?xml")

    goal = 'kind = "dpo"\nkappa = 500.0\nalpha = 1.0'
    dpo = config(tmp_path, "dpo", weights=tmp_path / "sft" / "export", objective=goal, steps=6)
    killed_after(dpo, tmp_path / "dpo" / "checkpoints" / "00000002")
    train(load(dpo))
    lines = read_log(tmp_path / "dpo")
    assert [line["step"] for line in lines] == list(range(1, 7))
    assert set(lines[0]["z"].values()) == {0.0}
    assert lines[0]["kappa_eff"] == pytest.approx(500 / 1.5)
    assert plot(tmp_path / "dpo").read_bytes().startswith(b"<?xml")
    held = json.loads((tmp_path / "dpo" / "held_out.json").read_text())
    assert held["accuracy"]["low"] <= held["accuracy"]["value"] <= held["accuracy"]["high"]
    assert 0 < held["pairs"] < 16
    assert len(list((tmp_path / "dpo" / "checkpoints").iterdir())) == 2, "older ones are removed"

    dpo.write_text(dpo.read_text().replace("kappa = 500.0", "kappa = 400.0"))
    with pytest.raises(ConfigError, match="was written under other settings"):
        train(load(dpo))


def killed_after(file: Path, checkpoint: Path) -> None:
    """Start a training and kill it once a checkpoint is there."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    until = time.monotonic() + 180
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.parent.exists()
