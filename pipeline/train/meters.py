"""What a training says of itself: one JSON line an interval."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

BINS = 4
"""Parts of (0, 1) by which implicit accuracy is told apart: it is easy to be right where noise is little."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(slots=True)
class Meters:
    """What an interval saw. Per pair: t, loss, z, the winner's error, both errors less the reference's.

    ``flops``: of this rank's forward and backward passes; ``peak``: FLOP/s of its device, if they are known.
    """

    peak: float | None = None
    flops: float = 0.0
    pairs: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    norms: list[float] = field(default_factory=list)
    waited: float = 0.0
    since: float = field(default_factory=time.monotonic)

    def add(self, **values: Tensor) -> None:
        """Add one value a pair."""
        for name, each in values.items():
            self.pairs[name].extend(each.detach().double().cpu().tolist())

    def merge(self, ranks: Sequence[Meters]) -> None:
        """Take what all ranks saw of the same updates; one that waits for data makes all wait."""
        for name in ranks[0].pairs:
            self.pairs[name] = [value for one in ranks for value in one.pairs[name]]
        self.waited = max(one.waited for one in ranks)

    def read(self) -> dict[str, Any]:
        """Return what the interval says.

        ``alarm`` is set when the winner's error has risen above the reference's: the margin then grows by
        fleeing the loser alone, which is how alignment is lost while accuracy looks well.
        """
        seconds = time.monotonic() - self.since
        count = len(self.pairs["loss"])
        line: dict[str, Any] = {
            "loss": _mean(self.pairs["loss"]),
            "winner_error": _mean(self.pairs["winner"]),
        }
        if z := self.pairs.get("z"):
            line |= self._preference(np.array(z), np.array(self.pairs["t"]))
        line |= {
            "gradient_norm": max(self.norms, default=math.nan),
            "pairs_per_second": count / seconds,
            "data_wait": self.waited / seconds,
            "tflops": self.flops / seconds / 1e12,
        }
        if self.peak:
            line["mfu"] = self.flops / seconds / self.peak
        return line

    def _preference(self, z: np.ndarray[Any, Any], t: np.ndarray[Any, Any]) -> dict[str, Any]:
        right = (z > 0) + 0.5 * (z == 0)
        part = np.minimum((t * BINS).astype(int), BINS - 1)
        winner = _mean(self.pairs["winner_change"])
        return {
            "z": dict(zip(map(str, QUANTILES), np.quantile(z, QUANTILES).tolist(), strict=True)),
            "p": float(np.mean(1 / (1 + np.exp(-np.clip(z, -500, 500))))),
            "accuracy": float(right.mean()),
            "accuracy_by_t": [
                float(right[part == n].mean()) if (part == n).any() else None for n in range(BINS)
            ],
            "winner_change": winner,
            "loser_change": _mean(self.pairs["loser_change"]),
            "alarm": winner > 0,
        }


class Log:
    """``log.jsonl`` of a training's folder; a resumed one loses the lines after its checkpoint."""

    def __init__(self, folder: Path, *, step: int) -> None:
        self._path = folder / "log.jsonl"
        kept = [line for line in read_log(folder) if line["step"] <= step]
        self._path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line; ``step`` says how many updates were done."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a training's log; one that a kill cut off is left out."""
    path = folder / "log.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else math.nan
