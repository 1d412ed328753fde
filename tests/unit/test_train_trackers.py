"""Trackers: what TensorBoard gets, what a client like W&B's gets, and what a resumed training adds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.train.trackers import Trackers

LINE = {
    "loss": 0.5,
    "z": {"0.05": -1.0},
    "accuracy_by_t": [1.0, None],
    "alarm": True,
    "parallel": "1 process",
}


def lines(trackers: Trackers, *steps: int, loss: float = 0.5) -> None:
    for step in steps:
        trackers.line({"step": step, **LINE, "loss": loss})


def test_tensorboard_has_every_number_and_the_sheet(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Trackers(["tensorboard"], tmp_path, {})
    first.picture(0, Image.new("RGB", (4, 4), "red"))
    lines(first, 1, 2, 3)
    first.close()
    again = Trackers(["tensorboard"], tmp_path, {})
    lines(again, 3, 4, loss=0.25)
    again.close()
    seen = EventAccumulator(str(tmp_path / "tensorboard"))
    seen.Reload()
    assert [(one.step, one.value) for one in seen.Scalars("loss")] == [
        (1, 0.5),
        (2, 0.5),
        (3, 0.25),
        (4, 0.25),
    ]
    assert set(seen.Tags()["scalars"]) == {"loss", "z/0.05", "accuracy_by_t/0", "alarm"}
    assert [one.step for one in seen.Images("samples")] == [0]


CLIENT = """
import json

class Run:
    def __init__(self, name):
        self.name = name

    def log(self, values, step):
        with open({told!r}, "a") as file:
            file.write(json.dumps([self.name, step, sorted(values)]) + chr(10))

    def finish(self):
        pass

class Image:
    def __init__(self, picture):
        picture.load()

def init(project, name, config, resume):
    return Run(name)
"""
"""What W&B's and trackio's clients have in common."""


def test_a_resumed_training_goes_on_in_its_run_and_tells_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    (tmp_path / "trackio.py").write_text(CLIENT.format(told=str(told)))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "trackio", raising=False)
    for steps in ((1, 2, 3), (2, 3, 4)):
        trackers = Trackers(["trackio"], tmp_path, {"seed": 1})
        lines(trackers, *steps)
        trackers.picture(steps[1], Image.new("RGB", (4, 4)))
        trackers.close()
    lines_told = [json.loads(line) for line in told.read_text().splitlines()]
    assert len({run for run, _, _ in lines_told}) == 1
    assert [step for _, step, values in lines_told if "loss" in values] == [1, 2, 3, 4]
    assert [step for _, step, values in lines_told if values == ["samples"]] == [2, 3]


def test_what_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match=r"wandb is not installed: pip install 'wandb', or leave it out"):
        Trackers(["wandb"], Path(), {})
