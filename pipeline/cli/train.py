"""vipo train."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.terminal import console

if TYPE_CHECKING:
    from pipeline.cli.options import Commands


def add(commands: Commands) -> None:
    """Register the commands."""
    command = commands.add_parser("train", help="train a model on shards, or go on with it: the same command")
    command.add_argument(
        "config", type=Path, metavar="CONFIG", help="TOML file, such as those of infra/train/"
    )
    command.add_argument("--until", type=int, metavar="UPDATES", help="stop there, with a checkpoint")
    command.set_defaults(command=_train)


def _train(given: argparse.Namespace) -> None:
    from pipeline.train.loop import train
    from pipeline.train.plot import plot
    from pipeline.train.settings import load

    training = load(given.config)
    made = train(training, until=given.until, progress=_show)
    console().print(f"{made}\n{plot(Path(training.output.folder))}", markup=False)


def _show(line: Mapping[str, Any]) -> None:
    parts = [f"{line['step']:>7,}  loss {line['loss']:.5f}  gradient {line['gradient_norm']:.3g}"]
    if "z" in line:
        parts.append(f"z {line['z']['0.05']:+.3f} {line['z']['0.5']:+.3f} {line['z']['0.95']:+.3f}")
        parts.append(f"right {line['accuracy']:.2f}  winner {line['winner_change']:+.2e}")
        parts.append(f"loser {line['loser_change']:+.2e}")
    parts.append(f"{line['pairs_per_second']:.1f} pairs/s  waits {line['data_wait']:.0%}")
    console().print("  ".join(parts), markup=False, highlight=False, soft_wrap=True)
    if line.get("alarm"):
        console().print("         alarm: the winner's error is above the reference's", markup=False)
