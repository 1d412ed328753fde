"""What a build tells Prometheus, through the metrics of Ray; the local runner imports and tells nothing.

The driver records all of it, so totals do not go down when a worker ends; Ray's agent on the driver's node
shows it at that node's metrics port, each name with ``ray_`` before it. A driver that is a Ray client
(``ray://``) is no process of the cluster: Ray shows nothing of it.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pyarrow as pa

    from pipeline.runners.base import Outcome, Task

PREFIX = "ray_"
"""What Ray puts before every name."""

LANE = ("stage", "category", "model")
"""Labels of a lane; ``model`` is its generator or judge, or empty."""

BOUNDARIES = (1.0, 5.0, 15.0, 60.0, 180.0, 600.0, 1800.0, 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One name; each series of it is of one ``run`` and has ``labels`` besides."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: tuple[str, ...]


UNITS = Metric(
    name="vipo_units_total",
    kind="counter",
    about="Units by what became of them: done, retried, failed.",
    labels=(*LANE, "state"),
)
ROWS = Metric(
    name="vipo_rows_total",
    kind="counter",
    about="Rows committed: generations, verdicts and so on.",
    labels=LANE,
)
WORKER_SECONDS = Metric(
    name="vipo_worker_seconds_total",
    kind="counter",
    about="Seconds that workers spent on units, failed attempts among them.",
    labels=LANE,
)
UNIT_SECONDS = Metric(
    name="vipo_unit_seconds",
    kind="histogram",
    about="Seconds that a worker took for a unit. Ray takes its sum from the buckets: it is not exact.",
    labels=("stage",),
)
UNITS_LEFT = Metric(
    name="vipo_units_left",
    kind="gauge",
    about="Units of a stage that are neither done nor given up.",
    labels=("stage",),
)
WORKERS = Metric(
    name="vipo_workers",
    kind="gauge",
    about="Workers by the stage that they have open; none yet: an empty label.",
    labels=("stage",),
)
IDLE = Metric(name="vipo_idle_workers", kind="gauge", about="Workers that have no task.", labels=())
MEDIA_BYTES = Metric(
    name="vipo_media_bytes_total",
    kind="counter",
    about="Bytes of the media of committed generations.",
    labels=LANE,
)
FAILED_ROWS = Metric(
    name="vipo_failed_rows_total",
    kind="counter",
    about="Rows that say why an item could not be made.",
    labels=LANE,
)
PAIRS = Metric(
    name="vipo_pairs_total",
    kind="counter",
    about="Labelled pairs: kept, or the reason why not.",
    labels=("category", "outcome"),
)
KEPT = Metric(
    name="vipo_kept_pairs",
    kind="gauge",
    about="Kept pairs of a category, those of earlier drivers among them.",
    labels=("category",),
)
QUOTA = Metric(
    name="vipo_quota_pairs",
    kind="gauge",
    about="Kept pairs wanted of a category.",
    labels=("category",),
)
DOLLARS = Metric(
    name="vipo_remote_dollars_total",
    kind="counter",
    about="List price of the generations of remote services that were committed.",
    labels=("category", "model"),
)

METRICS = (
    *(UNITS, ROWS, WORKER_SECONDS, UNIT_SECONDS, UNITS_LEFT, WORKERS, IDLE),
    *(MEDIA_BYTES, FAILED_ROWS, PAIRS, KEPT, QUOTA, DOLLARS),
)
METHODS = {"counter": "inc", "gauge": "set", "histogram": "observe"}


def counts(table: pa.Table) -> dict[str, int]:
    """Return what of a unit's rows the driver should know: counted by the worker, which has them in hand.

    ``bytes`` of media, ``failed`` rows, and of labelled pairs ``kept`` and each reason.
    """
    found: Counter[str] = Counter()
    names = set(table.column_names)
    if {"media_sha256", "bytes"} <= names:
        found["bytes"] = sum(table["bytes"].to_pylist())
    if "status" in names:
        found["failed"] = table["status"].to_pylist().count("failed")
    if {"kept", "reason"} <= names:
        found.update(str(reason or "kept") for reason in table["reason"].to_pylist())
    return {name: count for name, count in found.items() if count}


class Meter:
    """Records the metrics of one run; does nothing in a process that has not joined a Ray cluster."""

    def __init__(self, run: str) -> None:
        ray: Any = sys.modules.get("ray")
        self._run, self._made = run, dict[str, Any]()
        self._on = ray is not None and ray.is_initialized()

    def record(self, metric: Metric, value: float, **labels: str) -> None:
        """Add ``value`` to a counter, set a gauge to it, or count it into a histogram."""
        if self._on and (value > 0 or metric.kind == "gauge"):
            made = self._made.get(metric.name) or self._make(metric)
            getattr(made, METHODS[metric.kind])(value, {"run": self._run, **labels})

    def advance(self, outcome: Outcome) -> None:
        """Record a unit that is done or given up."""
        task, done = outcome.task, outcome.done
        self._attempt(task, "done" if done.cause is None else "failed", done.seconds)
        if done.cause is not None:
            return
        lane = _lane(task)
        self.record(ROWS, done.rows, **lane)
        self.record(UNIT_SECONDS, done.seconds, stage=task.unit.stage)
        if task.unit.stage == "agree":
            for reason, count in done.counts.items():
                self.record(PAIRS, count, category=lane["category"], outcome=reason)
            return
        failed = done.counts.get("failed", 0)
        self.record(MEDIA_BYTES, done.counts.get("bytes", 0), **lane)
        self.record(FAILED_ROWS, failed, **lane)
        dollars: float = getattr(getattr(task.stage, "spec", None), "dollars", 0.0)
        spent = (done.rows - failed) * dollars
        self.record(DOLLARS, spent, category=lane["category"], model=lane["model"])

    def retried(self, task: Task, seconds: float) -> None:
        """Record an attempt that failed and will be followed by another."""
        self._attempt(task, "retried", seconds)

    def _attempt(self, task: Task, state: str, seconds: float) -> None:
        self.record(UNITS, 1, **_lane(task), state=state)
        self.record(WORKER_SECONDS, seconds, **_lane(task))

    def _make(self, metric: Metric) -> Any:
        from ray.util import metrics

        given: dict[str, Any] = {"description": metric.about, "tag_keys": ("run", *metric.labels)}
        if metric.kind == "histogram":
            given["boundaries"] = list(BOUNDARIES)
        made = getattr(metrics, metric.kind.capitalize())(metric.name, **given)
        self._made[metric.name] = made
        return made


def _lane(task: Task) -> dict[str, str]:
    category, _, model = task.unit.lane.partition(".")
    return {"stage": task.unit.stage, "category": category, "model": model}
