"""A sweep over alpha and kappa: what of Poly-DPO's effect its kappa-matched DPO does not have as well.

Near z = 0 Poly-DPO(alpha, kappa) behaves like DPO at ``kappa_eff`` (see ``loss``), so a better alpha may be
nothing but a better kappa. Beside every alpha stands that control, from the same weights, on the same pairs
in the same order with the same noise, once for each seed. Which alpha is best is read as a meter of the
data's quality only as far as Poly-DPO departs from its control.
"""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import ConfigError, CorruptError, StorageError
from pipeline.train.data import source
from pipeline.train.loop import Progress, train
from pipeline.train.loss import kappa_eff
from pipeline.train.measure import Estimate, Floats, bootstrap, read_held_out, right, wilson
from pipeline.train.settings import Training, check

ALPHAS = (-1.0, -0.5, 0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One objective of a sweep. Arms of one name are one: they are trained once."""

    alpha: float
    kappa: float

    @property
    def name(self) -> str:
        """What its folder is called."""
        return f"alpha{self.alpha:+g}-kappa{self.kappa:g}"

    @property
    def control(self) -> Arm:
        """The Diffusion-DPO that it behaves like near z = 0."""
        return Arm(alpha=0.0, kappa=kappa_eff(self.kappa, [self.alpha]))

    def training(self, base: Training, seed: int, folder: Path) -> Training:
        """Return ``base`` with this objective and seed."""
        return replace(
            base,
            objective=replace(base.objective, alpha=self.alpha, kappa=self.kappa),
            output=replace(base.output, folder=str(folder / self.name / f"seed-{seed}")),
            seed=seed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An arm on held-out pairs. ``accuracy``: mean over seeds, with Wilson's interval of so many pairs;
    ``accuracies``: of each seed. Changes have intervals over pairs and seeds.
    """

    arm: Arm
    kappa_eff: float
    accuracy: Estimate
    accuracies: tuple[float, ...]
    winner_change: Estimate
    loser_change: Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Poly-DPO less its control, pair by pair and seed by seed, with intervals over both."""

    arm: Arm
    control: Arm
    accuracy: Estimate
    winner_change: Estimate
    loser_change: Estimate

    @property
    def words(self) -> str:
        """What the difference in accuracy allows to say."""
        found = self.accuracy
        said = f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
        if found.low <= 0 <= found.high:
            return f"{said}: the interval contains 0: not told from DPO at kappa {self.control.kappa:g}"
        better = "better" if found.value > 0 else "worse"
        return f"{said}: {better} than DPO at kappa {self.control.kappa:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a sweep found: arms by name, and Poly-DPO against its controls."""

    kappas: tuple[float, ...]
    seeds: int
    pairs: int
    visits: int
    arms: tuple[Measured, ...]
    compared: tuple[Compared, ...]

    @property
    def verdict(self) -> str:
        """How far this may be read as a meter of the data's quality."""
        apart = [one.arm.name for one in self.compared if not one.accuracy.low <= 0 <= one.accuracy.high]
        counted = f"{len(apart)} of {len(self.compared)} alphas depart from their kappa-matched control"
        means = (
            f"{', '.join(apart)}: only there may alpha be read as a meter of the data's quality, and in "
            f"{len(self.compared)} comparisons at 95 % some depart by chance"
            if apart
            else "none is told from DPO at another kappa, so nothing is said of the data's quality"
        )
        once = "; one seed: intervals leave out the luck of a training" if self.seeds == 1 else ""
        return f"{counted}: {means}{once}"


def plan(
    alphas: Collection[float], kappas: Collection[float]
) -> tuple[dict[str, Arm], list[tuple[Arm, Arm]]]:
    """Return the arms to train by name, and each Poly-DPO arm with its control."""
    arms: dict[str, Arm] = {}
    compared = []
    for kappa in kappas:
        for alpha in alphas:
            arm = arms.setdefault((given := Arm(alpha=alpha, kappa=kappa)).name, given)
            if alpha:
                control = arms.setdefault(arm.control.name, arm.control)
                compared.append((arm, control))
    return arms, compared


def sweep(
    base: Training,
    folder: Path,
    *,
    alphas: Sequence[float] = ALPHAS,
    kappas: Sequence[float] = (),
    seeds: int = 1,
    keep: bool = False,
    progress: Progress = lambda _: None,
) -> Result:
    """Train every arm with seeds 0, 1, ..., or go on with it; write ``sweep.json`` into ``folder``.

    An arm is an ordinary training in ``<folder>/<arm>/seed-<n>``; one that is finished is not trained again.
    ``kappas``: default, that of ``base``. ``keep`` leaves each arm's checkpoints and exports its model.
    ``progress`` gets the lines of each log, before them the arm's. Raises as ``train`` does.
    """
    asked = dict.fromkeys(kappas or (base.objective.kappa or 0.0,))
    arms, compared = plan(dict.fromkeys(alphas), asked)
    _check(base, arms, seeds)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in arms}
    for seed in range(seeds):
        for number, (name, arm) in enumerate(arms.items(), start=1):
            place = {"number": seed * len(arms) + number, "of": seeds * len(arms)}
            progress({"arm": name, "seed": seed, **place})
            found[name].append(_trained(arm.training(base, seed, folder), keep, progress))
    result = _result(arms, compared, found, tuple(asked))
    stored = {"verdict": result.verdict, **asdict(result), "training": asdict(base)}
    for held, one in zip(stored["compared"], result.compared, strict=True):
        held["words"] = one.words
    (folder / "sweep.json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    return result


def _check(base: Training, arms: Mapping[str, Arm], seeds: int) -> None:
    """Refuse a sweep that could say nothing, before anything is trained. Raises ConfigError."""
    goal = base.objective
    if goal.kind != "dpo":
        raise ConfigError("sweep: objective.kind is sft, which has no alpha: give a file of kind dpo")
    if goal.higher:
        raise ConfigError("sweep: objective.higher is set and only alpha is varied: remove it")
    if seeds < 1 or not arms:
        raise ConfigError("sweep: no seeds or no alphas: give at least one of each")
    for name, arm in arms.items():
        check(arm.training(base, 0, Path()), f"sweep, {name}")
    if not len(source(base.data, batch=base.optim.batch, seed=0).held_out):
        raise ConfigError(
            f"sweep: no pairs are held out with data.held_out = {base.data.held_out:g}, and it compares by "
            "them alone: raise it, such as to 0.05"
        )


def _trained(training: Training, keep: bool, progress: Progress) -> dict[str, Any]:
    """Return what held-out pairs say of an arm, trained first unless it is."""
    folder = Path(training.output.folder)
    held = read_held_out(training)
    if held is None or (keep and not (folder / "export").exists()):
        train(training, export=keep, progress=progress)
        gc.collect()  # or a second model is loaded beside the first
        held = read_held_out(training)
    if held is None:
        raise StorageError(f"{folder}: what was measured there is gone: run the same command again")
    if not keep:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return held


def _result(
    arms: Mapping[str, Arm],
    compared: Sequence[tuple[Arm, Arm]],
    found: Mapping[str, Sequence[Mapping[str, Any]]],
    kappas: tuple[float, ...],
) -> Result:
    def table(arm: Arm, name: str) -> Floats:
        return np.array([held["each"][name] for held in found[arm.name]])  # [seeds, pairs]

    def rights(arm: Arm) -> Floats:
        return right(table(arm, "z"))

    one = next(iter(found.values()))[0]
    if any(held["each"]["pair_id"] != one["each"]["pair_id"] for each in found.values() for held in each):
        raise CorruptError("sweep: data.runs changed since arms were measured: begin another --folder")
    measured = []
    for arm in arms.values():
        shares = rights(arm).mean(1)
        low, high = wilson(float(shares.mean()), one["pairs"])
        measured.append(
            Measured(
                arm=arm,
                kappa_eff=arm.control.kappa,
                accuracy=Estimate(value=float(shares.mean()), low=low, high=high),
                accuracies=tuple(shares.tolist()),
                winner_change=bootstrap(table(arm, "winner_change")),
                loser_change=bootstrap(table(arm, "loser_change")),
            )
        )
    differences = [
        Compared(
            arm=arm,
            control=control,
            accuracy=bootstrap(rights(arm) - rights(control)),
            winner_change=bootstrap(table(arm, "winner_change") - table(control, "winner_change")),
            loser_change=bootstrap(table(arm, "loser_change") - table(control, "loser_change")),
        )
        for arm, control in compared
    ]
    return Result(
        kappas=kappas,
        seeds=len(next(iter(found.values()))),
        pairs=one["pairs"],
        visits=one["visits"],
        arms=tuple(measured),
        compared=tuple(differences),
    )
