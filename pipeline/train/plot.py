"""Curves of a training's log as one SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError
from pipeline.train.meters import BINS, QUANTILES, read_log


def plot(folder: Path) -> Path:
    """Write ``curves.svg`` beside a training's log and return it. Raises ConfigError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError("curves need matplotlib: pip install 'vipo[train]'") from None
    lines = read_log(folder)
    preference = any("z" in line for line in lines)
    figure = Figure(figsize=(11, 6) if preference else (7, 3), layout="constrained")
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
