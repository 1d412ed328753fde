"""Curves of a training's log, and what a sweep found, each as one SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError
from pipeline.train.meters import BINS, QUANTILES, read_log

if TYPE_CHECKING:
    from pipeline.train.measure import Estimate
    from pipeline.train.sweep import Compared, Measured, Result

POLY = {"marker": "o", "linestyle": "-"}
CONTROL = {"marker": "s", "linestyle": "--", "markerfacecolor": "white"}
COLOURS = {"accuracy": "#1d4fa3", "winner": "#12876a", "loser": "#c5413f", "control": "#6f7680"}
ASIDE = 0.04
"""How far control and Poly-DPO stand apart at one alpha, or their intervals would hide each other."""


def plot(folder: Path) -> Path:
    """Write ``curves.svg`` beside a training's log and return it. Raises ConfigError without matplotlib."""
    lines = read_log(folder)
    preference = any("z" in line for line in lines)
    figure = _figure((11, 6) if preference else (7, 3))
    places = figure.subplots(2, 3).flat if preference else figure.subplots(1, 2).flat
    axes = iter(places)
    _curve(next(axes), lines, {"loss": "loss"}, "loss")
    _curve(next(axes), lines, {"gradient norm": "gradient_norm"}, "gradient norm")
    if preference:
        _preference(axes, lines)
    figure.suptitle(folder.name)
    path = folder / "curves.svg"
    figure.savefig(path)
    return path


def plot_sweep(result: Result, folder: Path) -> Path:
    """Write ``sweep.svg`` into ``folder`` and return it: a row for each kappa. Raises as ``plot`` does."""
    figure = _figure((13, 0.6 + 3.6 * len(result.kappas)))
    by_name = {one.arm.name: one for one in result.arms}
    for kappa, axes in zip(result.kappas, figure.subplots(len(result.kappas), 3, squeeze=False), strict=True):
        compared = [one for one in result.compared if one.arm.kappa == kappa]
        controls = {one.arm.alpha: by_name[one.control.name] for one in compared}
        mine = [by_name[one.arm.name] for one in compared]
        mine += [one for one in result.arms if one.arm.kappa == kappa and not one.arm.alpha]
        _arms(axes[:2], {one.arm.alpha: one for one in mine}, controls)
        _differences(axes[2], compared)
        axes[0].set_title(f"kappa {kappa:g}: share of held-out pairs ranked rightly", fontsize=9)
    seeds = f"{result.seeds} seed{'s' * (result.seeds > 1)}"
    about = f"{result.pairs} held-out pairs at {result.visits} timesteps, {seeds}"
    figure.suptitle(f"{about}; bars are 95 % intervals, dots are seeds", fontsize=10)
    path = folder / "sweep.svg"
    figure.savefig(path)
    return path


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("curves need matplotlib: pip install 'vipo[train]'") from None
    return Figure(figsize=size, layout="constrained")


def _arms(axes: Sequence[Any], mine: dict[float, Measured], controls: dict[float, Measured]) -> None:
    for name, arms, style, aside in (
        ("Poly-DPO", mine, POLY, -ASIDE),
        ("DPO of the same kappa_eff", controls, CONTROL, ASIDE),
    ):
        alphas = sorted(arms)
        at = [alpha + aside for alpha in alphas]
        colour = COLOURS["accuracy" if style is POLY else "control"]
        _points(axes[0], at, [arms[alpha].accuracy for alpha in alphas], style, colour, name)
        for place, alpha in zip(at, alphas, strict=True):
            each = arms[alpha].accuracies
            axes[0].plot([place] * len(each), each, ".", color=colour, markersize=4, alpha=0.6)
        for side, values in (
            ("winner", [arms[alpha].winner_change for alpha in alphas]),
            ("loser", [arms[alpha].loser_change for alpha in alphas]),
        ):
            label = f"{side}, {'Poly-DPO' if style is POLY else 'control'}"
            _points(axes[1], at, values, style, COLOURS[side], label)
    axes[1].axhline(0, color="grey", linewidth=0.8)
    axes[1].set_title("error less the reference's (winner above 0: it flees the loser)", fontsize=9)
    for axis in axes:
        _by_alpha(axis, sorted(mine))
        axis.margins(y=0.25)
        axis.legend(fontsize=7, ncols=2, loc="upper center")


def _differences(axis: Any, compared: Sequence[Compared]) -> None:
    ordered = sorted(compared, key=lambda one: one.arm.alpha)
    alphas = [one.arm.alpha for one in ordered]
    _points(axis, alphas, [one.accuracy for one in ordered], {"marker": "o", "linestyle": ""}, "#1a1c20", "")
    axis.axhline(0, color="grey", linewidth=0.8)
    axis.set_title("Poly-DPO less its control, pair by pair (0 inside: not told apart)", fontsize=9)
    _by_alpha(axis, alphas)


def _points(
    axis: Any, at: Sequence[float], found: Sequence[Estimate], style: dict[str, str], colour: str, label: str
) -> None:
    """Draw values and their intervals."""
    below = [max(0.0, one.value - one.low) for one in found]
    above = [max(0.0, one.high - one.value) for one in found]
    axis.errorbar(
        at,
        [one.value for one in found],
        yerr=(below, above),
        color=colour,
        label=label,
        capsize=2.5,
        linewidth=1.1,
        markersize=5,
        **style,
    )


def _by_alpha(axis: Any, alphas: Sequence[float]) -> None:
    axis.set_xlabel("alpha", fontsize=8)
    axis.set_xticks(alphas, [f"{alpha:+g}" if alpha else "0" for alpha in alphas])
    axis.tick_params(labelsize=8)


def _preference(axes: Any, lines: Sequence[dict[str, Any]]) -> None:
    steps = [line["step"] for line in lines]
    changes = {"winner": "winner_change", "loser": "loser_change"}
    axis = next(axes)
    _curve(axis, lines, changes, "error less the reference's (winner above 0: alarm)")
    axis.axhline(0, color="grey", linewidth=0.8)
    axis = next(axes)
    for quantile in map(str, QUANTILES):
        axis.plot(steps, [line["z"][quantile] for line in lines], label=quantile)
    _finish(axis, "margin z, quantiles")
    _curve(next(axes), lines, {"p": "p", "accuracy": "accuracy"}, "p and implicit accuracy")
    axis = next(axes)
    for part in range(BINS):
        values = [line["accuracy_by_t"][part] for line in lines]
        known = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
        axis.plot(
            *zip(*known, strict=True), label=f"t {part / BINS:g}-{(part + 1) / BINS:g}"
        ) if known else None
    _finish(axis, "implicit accuracy by t")


def _curve(axis: Any, lines: Sequence[dict[str, Any]], names: dict[str, str], title: str) -> None:
    for label, name in names.items():
        axis.plot([line["step"] for line in lines], [line[name] for line in lines], label=label)
    _finish(axis, title)


def _finish(axis: Any, title: str) -> None:
    axis.set_title(title, fontsize=9)
    axis.set_xlabel("updates", fontsize=8)
    axis.legend(fontsize=7)
