"""The log: what an interval says, the alarm, and lines that a kill or a resume leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.train.measure import wilson
from pipeline.train.meters import Log, Meters, read_log


def meters(z: list[float], t: list[float], winner_change: float) -> Meters:
    made = Meters()
    ones = torch.ones(len(z))
    made.add(loss=ones, winner=ones, z=torch.tensor(z), t=torch.tensor(t, dtype=torch.float64))
    made.add(winner_change=winner_change * ones, loser_change=2 * ones)
    return made


def test_accuracy_is_told_by_noise_and_ties_count_half() -> None:
    line = meters([1, -1, 0, 2, 3], [0.1, 0.2, 0.3, 0.6, 0.99], -0.5).read()
    assert line["accuracy"] == pytest.approx(3.5 / 5)
    assert line["accuracy_by_t"] == [0.5, 0.5, 1.0, 1.0]
    assert line["z"]["0.5"] == 1.0
    assert meters([1], [0.3], 0).read()["accuracy_by_t"] == [None, 1.0, None, None]


def test_the_alarm_rings_when_the_winner_gets_worse_whatever_the_margin() -> None:
    fleeing = meters([5.0, 6.0], [0.5, 0.5], 1e-6).read()
    assert fleeing["accuracy"] == 1.0
    assert fleeing["alarm"]
    assert not meters([5.0, 6.0], [0.5, 0.5], -1e-6).read()["alarm"]


def test_extreme_margins_are_logged() -> None:
    assert meters([-1e4, 1e4], [0.5, 0.5], 0).read()["p"] == pytest.approx(0.5)


def test_a_resumed_log_loses_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    log = Log(tmp_path, step=0)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": 0.5})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # a kill in the middle of a line
    assert [line["step"] for line in read_log(tmp_path)] == [1, 2, 3]
    Log(tmp_path, step=2).write({"step": 3, "loss": 0.4})
    assert [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").open()] == [0.5, 0.5, 0.4]


def test_wilson_interval() -> None:
    low, high = wilson(0.5, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    assert wilson(1.0, 10)[1] == pytest.approx(1.0)
