"""A sweep by its command: interrupted, gone on with, and read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli import main as vipo
from pipeline.errors import ConfigError
from pipeline.train.meters import read_log
from pipeline.train.settings import load
from pipeline.train.sweep import sweep
from tests.unit.train_shards import write_run
from tests.weights import checkpoints

pytestmark = pytest.mark.slow

FILE = """
device = "cpu"
[model]
family = "sd15"
weights = "{weights}"
train = "full"
reference = "cached"
precision = "fp32"
[data]
runs = ["{folder}/run"]
sizes = [{{ width = 64, height = 64 }}]
held_out = 0.4
visits = 2
threads = 1
cache = "{folder}/cache"
[objective]
kind = "dpo"
kappa = 300.0
[optim]
lr = 1e-3
batch = 2
micro_batch = 2
steps = 2
[output]
folder = "{folder}/single"
log = 1
checkpoint = 1
"""
ARMS = ["alpha+0-kappa200", "alpha+0-kappa300", "alpha+1-kappa300"]


def test_a_sweep_is_interrupted_and_gone_on_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(str(tmp_path / "run"), 12, sizes=((64, 64),))
    file = tmp_path / "mine.toml"
    file.write_text(FILE.format(weights=checkpoints(["sd15"]) / "sd15", folder=tmp_path))
    base, folder = load(file), tmp_path / "sweep"

    with pytest.raises(ConfigError, match=r"no pairs are held out .* raise it"):
        sweep(replace(base, data=replace(base.data, held_out=0.0)), folder)

    def interrupt(line: Mapping[str, Any]) -> None:
        if line.get("number") == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(base, folder, alphas=[0.0, 1.0], seeds=2, progress=interrupt)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("log.jsonl")}
    assert len(before) == 2

    command = ["train", "sweep", str(file), "--alpha", "0", "1", "--seeds", "2", "--folder", str(folder)]
    assert vipo(command) == 0
    shown = capsys.readouterr().out
    assert "alpha+1-kappa300" in shown
    assert "kappa-matched control" in shown
    logs = sorted(folder.rglob("log.jsonl"))
    assert [str(path.parent.relative_to(folder)) for path in logs] == [
        f"{arm}/seed-{seed}" for arm in ARMS for seed in range(2)
    ]
    assert {path: path.stat().st_mtime_ns for path in before} == before, "finished arms are not trained again"
    assert not list(folder.rglob("checkpoints")), "nor is their weight kept"
    assert not list(folder.rglob("export"))
    assert len(list((tmp_path / "cache" / "reference").iterdir())) == 2, "once a seed, for all arms"
    starts = {read_log(path.parent)[0]["winner_error"] for path in logs}
    assert len(starts) == 2, "arms of a seed begin with the same pairs, noise and weights"
    assert (folder / "sweep.svg").read_bytes().startswith(b"<?xml")

    with pytest.raises(ConfigError, match=r"was measured under other settings .* give another folder"):
        sweep(replace(base, optim=replace(base.optim, lr=1e-4)), folder, alphas=[0.0])

    found = json.loads((folder / "sweep.json").read_text())
    (compared,) = found["compared"]
    arm, control = ({"alpha": 1.0, "kappa": 300.0}, {"alpha": 0.0, "kappa": 200.0})
    assert (compared["arm"], compared["control"]) == (arm, control)
    shares, changes = {}, {}
    for name in (ARMS[2], ARMS[0]):
        held = [json.loads(path.read_text()) for path in sorted((folder / name).rglob("held_out.json"))]
        z = np.array([one["each"]["z"] for one in held])
        shares[name] = (z > 0).mean(1) + 0.5 * (z == 0).mean(1)
        changes[name] = np.mean([one["winner_change"]["value"] for one in held])
    measured = {f"alpha{one['arm']['alpha']:+g}-kappa{one['arm']['kappa']:g}": one for one in found["arms"]}
    assert measured[ARMS[2]]["accuracies"] == pytest.approx(shares[ARMS[2]])
    assert compared["accuracy"]["value"] == pytest.approx((shares[ARMS[2]] - shares[ARMS[0]]).mean())
    assert compared["winner_change"]["value"] == pytest.approx(changes[ARMS[2]] - changes[ARMS[0]])
    assert compared["accuracy"]["low"] <= compared["accuracy"]["value"] <= compared["accuracy"]["high"]
