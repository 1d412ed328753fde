"""vipo train, train sweep."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli.terminal import console, table
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.cli.options import Commands
    from pipeline.train.measure import Estimate
    from pipeline.train.settings import Training

SWEEP = ("alpha", "kappa", "seeds", "folder", "keep")


def add(commands: Commands) -> None:
    """Register the commands."""
    command = commands.add_parser("train", help="train a model on shards, or go on with it: the same command")
    command.add_argument(
        "sweep", nargs="?", choices=["sweep"], help="train it with several alphas beside their controls"
    )
    command.add_argument(
        "config", type=Path, metavar="CONFIG", help="TOML file, such as those of infra/train/"
    )
    command.add_argument("--until", type=int, metavar="UPDATES", help="stop there, with a checkpoint")
    command.add_argument(
        "--ray-workers", type=int, metavar="N", help="by Ray Train, on the cluster of RAY_ADDRESS or here"
    )
    only = command.add_argument_group("of `train sweep CONFIG`")
    only.add_argument("--alpha", type=float, nargs="+", metavar="A", help="default: -1 -0.5 0 0.5 1")
    only.add_argument("--kappa", type=float, nargs="+", metavar="K", help="default: that of CONFIG")
    only.add_argument("--seeds", type=int, metavar="N", help="trainings of each arm (default: 1)")
    only.add_argument("--folder", type=Path, help="where results go (default: sweep/ in output.folder)")
    only.add_argument(
        "--keep", action="store_const", const=True, help="keep each arm's checkpoints and export its model"
    )
    command.set_defaults(command=_run)


def _run(given: argparse.Namespace) -> None:
    if given.sweep:
        _sweep(given)
    elif any(getattr(given, name) is not None for name in SWEEP):
        raise ConfigError(f"--{', --'.join(SWEEP)} are of a sweep: vipo train sweep {given.config} ...")
    else:
        _train(given)


def _train(given: argparse.Namespace) -> None:
    from pipeline.train.loop import train
    from pipeline.train.plot import plot
    from pipeline.train.settings import load

    training = load(given.config)
    if given.ray_workers:
        made = _on_ray(training, given)
    else:
        made = train(training, until=given.until, progress=_show)
    if os.environ.get("RANK", "0") == "0":  # of all that torchrun started
        console().print(f"{made}\n{plot(Path(training.output.folder))}", markup=False)


def _on_ray(training: Training, given: argparse.Namespace) -> Path:
    from pipeline.runners.ray import connect
    from pipeline.train.cluster import train_on_ray

    address = os.environ.get("RAY_ADDRESS") or None
    if address and address.startswith(("http://", "https://")):
        raise ConfigError(
            f"RAY_ADDRESS = {address} takes jobs: `ray job submit -- vipo train {given.config} --ray-workers "
            f"{given.ray_workers}` where nodes have vipo and the file, or name the address that drivers join"
        )
    connect(address)
    return train_on_ray(training, workers=given.ray_workers, until=given.until, progress=_show)


def _sweep(given: argparse.Namespace) -> None:
    from pipeline.train.parallel import joined
    from pipeline.train.plot import plot_sweep
    from pipeline.train.settings import load
    from pipeline.train.sweep import sweep

    if given.until is not None or given.ray_workers:
        raise ConfigError("--until and --ray-workers are of a single training")
    base = load(given.config)
    folder = given.folder or Path(base.output.folder) / "sweep"
    asked = {"alphas": given.alpha, "kappas": given.kappa, "seeds": given.seeds, "keep": given.keep}
    known = {name: value for name, value in asked.items() if value is not None}
    with joined(base.device) as ranks:  # for all trainings
        result = sweep(base, folder, **known, progress=_show if ranks.first else lambda _: None)
    if not ranks.first:
        return
    against = {one.arm.name: one for one in result.compared}
    rows = [
        (
            one.arm.name,
            f"{one.kappa_eff:g}",
            _interval(one.accuracy, ".3f"),
            _interval(against[one.arm.name].accuracy, "+.3f") if one.arm.name in against else "",
            f"{one.winner_change.value:+.2e}",
            f"{one.loser_change.value:+.2e}",
        )
        for one in result.arms
    ]
    title = f"{result.pairs} held-out pairs at {result.visits} timesteps, seeds: {result.seeds}"
    table(title, "arm kappa_eff right less_its_control winner_change loser_change", rows)
    said = [f"{one.arm.name}: {one.words}" for one in result.compared]
    files = [folder / "sweep.json", plot_sweep(result, folder)]
    console().print(*said, result.verdict, *files, sep="\n", markup=False, highlight=False, soft_wrap=True)


def _interval(found: Estimate, form: str) -> str:
    return f"{found.value:{form}} ({found.low:{form}} to {found.high:{form}})"


def _show(line: Mapping[str, Any]) -> None:
    if "arm" in line:
        console().print(f"{line['arm']}, seed {line['seed']}: {line['number']} of {line['of']}", markup=False)
        return
    if "step" not in line and "parallel" in line:
        console().print(line["parallel"], markup=False, highlight=False, soft_wrap=True)
        return
    if "reference" in line:
        made = f"reference errors: {line['reference']:,} of {line['of']:,} visits"
        console().print(made, markup=False, highlight=False)
        return
    parts = [f"{line['step']:>7,}  loss {line['loss']:.5f}  gradient {line['gradient_norm']:.3g}"]
    if "z" in line:
        parts.append(f"z {line['z']['0.05']:+.3f} {line['z']['0.5']:+.3f} {line['z']['0.95']:+.3f}")
        parts.append(f"right {line['accuracy']:.2f}  winner {line['winner_change']:+.2e}")
        parts.append(f"loser {line['loser_change']:+.2e}")
    parts.append(f"{line['pairs_per_second']:.1f} pairs/s  waits {line['data_wait']:.0%}")
    parts += [f"MFU {line['mfu']:.1%}"] if "mfu" in line else []
    console().print("  ".join(parts), markup=False, highlight=False, soft_wrap=True)
    if line.get("alarm"):
        console().print("         alarm: the winner's error is above the reference's", markup=False)
