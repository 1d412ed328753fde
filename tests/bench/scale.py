"""Does the driver hold out to 1,300,000 pairs? Null generators and judges, and all else real.

    make bench-scale      or            python -m tests.bench.scale --pairs 10000 30000 --out scale

Builds the shipped categories at several sizes, ten image pairs to three video pairs, with two workers on this
machine: real driver, records, parts, agreement, quotas, shards and manifest. Media are tiny and few; prompts
are a user's pool in Parquet. Three null judges under early exit keep the cube of --agree of the pairs: 0.9
keeps 0.73; 0.7 keeps 0.34, as models may, at twice the work.

Each build is a process of its own. The largest is ended by SIGKILL amid its shards, and gone on with.
``driver`` and ``workers`` are processor seconds, which hardly hang on what else this machine does; ``alone``
the seconds in which no worker had a unit; ``resumed`` is how long after the start of the process the first
new unit went to a worker. OUT.json and OUT.svg hold the same, and the seconds of each stage.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from pipeline import api
from pipeline.config import Cast, Category, Policy, Pool, Recipe, Settings, Size
from pipeline.dataset.manifest import read_manifest
from pipeline.generators.table import GENERATORS
from pipeline.judges.table import JUDGES
from pipeline.records import Modality
from pipeline.runners.base import Done, Task
from pipeline.runners.build import Build
from pipeline.runners.local import LocalWorkers
from pipeline.runners.progress import Display
from pipeline.runners.status import speeds
from pipeline.storage import open_store

SIZES = (10_000, 30_000, 100_000, 300_000, 1_300_000)
WORKERS = 2

SIZE: dict[Modality, Size] = {
    "image": Size(width=24, height=24),
    "video": Size(width=48, height=32, frames=3, fps=8),
}
COMPARED: dict[Modality, int] = {"image": 5, "video": 5}
"""Generations of a prompt, every two a pair."""

SHARD = 1_000_000
"""Bytes: it cuts 1,300,000 pairs into some 2,700 shards, as a GiB would with media of full size."""

PICTURES = 32
"""Different media of a generator: a store of millions of tiny files would measure the file system."""

PANEL = ("null/one", "null/two", "null/three")


@dataclass(slots=True, kw_only=True)
class Notes:
    """What is seen of a driver; the process is killed when it starts shard number ``fatal``."""

    fatal: int | None
    since: float
    first: float | None = None
    idle_since: float = 0.0
    alone: float = 0.0
    running: int = 0
    units: Counter[str] = dataclasses.field(default_factory=Counter)

    def begun(self, stage: str) -> None:
        now = time.time()
        self.first = self.first or now - self.since
        if not self.running:
            self.alone += now - self.idle_since
        self.running += 1
        self.units[stage] += 1
        if self.units["shard"] == self.fatal:
            self.print()
            os.kill(os.getpid(), signal.SIGKILL)

    def ended(self, count: int) -> None:
        self.running -= count
        if count and not self.running:
            self.idle_since = time.time()

    def print(self) -> None:
        """Print the figures so far as JSON."""
        alone = self.alone + (0.0 if self.running else time.time() - self.idle_since)
        cpu, wall = time.process_time(), time.time() - self.since
        figures = {"cpu": cpu, "wall": wall, "alone": alone, "memory": _peak(), "first": self.first}
        print(json.dumps({**figures, "units": self.units.total(), "workers": _workers_cpu()}), flush=True)


class Watched(LocalWorkers):
    """Workers whose driver is watched; a call's last argument is the task."""

    def __init__(self, uri: str, notes: Notes) -> None:
        super().__init__(uri, WORKERS)
        self._notes = notes

    def start(self, *given: Any) -> bool:
        """See ``Workers``."""
        started = super().start(*given)
        if started:
            self._notes.begun(given[-1].stage.name)
        return started

    def wait(self) -> list[tuple[Task, Done]]:
        """See ``Workers``."""
        ended = super().wait()
        self._notes.ended(len(ended))
        return ended


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A build: pairs to keep, the share on which each judge votes, the folder of its pools and run."""

    pairs: int
    agree: float
    folder: Path

    @property
    def arguments(self) -> list[str]:
        """What a process of its own is started with."""
        return ["--pairs", str(self.pairs), "--agree", str(self.agree), "--one", str(self.folder)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, nargs="+", default=SIZES, help="kept pairs, image and video")
    parser.add_argument("--agree", type=float, default=0.9)
    parser.add_argument("--out", type=Path, default=Path("scale"))
    parser.add_argument("--folder", type=Path, help="where runs lie meanwhile (default: a temporary one)")
    parser.add_argument("--kill", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        _build(Scale(pairs=given.pairs[0], agree=given.agree, folder=given.one), kill=given.kill)
        return
    rows: list[dict[str, Any]] = []
    for pairs in sorted(given.pairs):
        with tempfile.TemporaryDirectory(dir=given.folder, prefix="scale-") as folder:
            scale = Scale(pairs=pairs, agree=given.agree, folder=Path(folder))
            rows.append(_measure(scale, kill=pairs == max(given.pairs)))
        print(_line(rows[-1]), flush=True)
        given.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
        given.out.with_suffix(".svg").write_text(_plot(rows))


def _measure(scale: Scale, *, kill: bool) -> dict[str, Any]:
    """Write pools, build in processes of their own, and add up what they print."""
    _write_pools(scale)
    parts = [_process(scale, "--kill")] if kill else []
    parts.append(_process(scale))
    store = open_store(str(scale.folder / "run"))
    lanes = speeds(store)
    stages = {lane.partition("/")[0]: 0.0 for lane in lanes}
    for lane, speed in lanes.items():
        stages[lane.partition("/")[0]] += speed.seconds
    manifest = read_manifest(store)
    return {
        "pairs": sum(category.pairs for category in manifest.categories),
        "judged": sum(speed.rows for lane, speed in lanes.items() if lane.startswith("pair/")),
        "shards": len(manifest.shards),
        "units": sum(part["units"] for part in parts),
        "driver": sum(part["cpu"] for part in parts),
        "alone": sum(part["alone"] for part in parts),
        "wall": sum(part["wall"] for part in parts),
        "workers": sum(part["workers"] for part in parts),
        "memory": max(part["memory"] for part in parts),
        "resumed": parts[-1]["first"] if kill else None,
        "stages": stages,
    }


def _process(scale: Scale, *extra: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench.scale", *scale.arguments, *extra]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != (-signal.SIGKILL if "--kill" in extra else 0):
        raise SystemExit(f"the build of {scale.pairs:,} pairs failed ({done.returncode})")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _build(scale: Scale, *, kill: bool) -> None:
    settings = _settings(scale)
    born = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + _start_of_process()
    notes = Notes(fatal=scale.pairs // 1_000 if kill else None, since=born, idle_since=born)
    store = open_store(str(scale.folder / "run"))
    with Display(store, Console(file=sys.stderr)) as display:
        built = Build(settings, store, workers=Watched(store.uri, notes), display=display).run()
    if built.failures or built.short:
        raise SystemExit(f"the build is not whole: {built.failures[:1]}, short of {built.short}")
    notes.print()


def _start_of_process() -> float:
    """Return when this process began, in seconds since the machine did."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _workers_cpu() -> float:
    """Return the processor seconds of all workers, those that have ended among them."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    alive = 0
    for process in multiprocessing.active_children():
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        alive += int(fields[11]) + int(fields[12])
    return ended.ru_utime + ended.ru_stime + alive / os.sysconf("SC_CLK_TCK")


def _peak() -> int:
    """Return the most memory that this process ever held, in bytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


def _settings(scale: Scale) -> Settings:
    """Return the shipped categories with null generators and judges; their rows are this process's alone."""
    found = api.load("cluster", runner="local", workers=WORKERS)
    for modality in COMPARED:
        row = GENERATORS["null/quick" if modality == "image" else "null/quick-video"]
        for name in _generators(modality):
            noise = float(name.startswith("null/better"))
            options = {**row.options, "pictures": PICTURES, "noise": noise}
            GENERATORS[name] = replace(row, name=name, options=options)
    for name in PANEL:
        judge = JUDGES["null/quick"]
        JUDGES[name] = replace(judge, name=name, options={**judge.options, "agree": scale.agree})
    profile = replace(found.profile, cast="embedded", gpus=0, expected_kept=scale.agree**3, shard_bytes=SHARD)
    return Settings(profile=profile, categories=tuple(_category(each, scale) for each in found.categories))


def _generators(modality: Modality) -> tuple[str, ...]:
    """Return those to compare, and the two whose order is known: a null judge goes by bytes."""
    compared = [f"null/{number}" for number in range(COMPARED[modality])]
    return tuple(f"{name}-{modality}" for name in (*compared, "null/better", "null/worse"))


def _category(category: Category, scale: Scale) -> Category:
    *compared, better, worse = _generators(category.modality)
    pool = scale.folder / f"{category.name}.parquet"
    cast = Cast(
        generators=tuple(compared),
        judges=PANEL,
        recipes=(
            Recipe(kind="across_models", generations=len(compared), share=0.94),
            Recipe(kind="gold", winner=better, loser=worse, share=0.06),
        ),
        policy=Policy(kind="unanimous", votes=2, early_exit=True),
    )
    return replace(
        category,
        size=SIZE[category.modality],
        quota=_quota(category, scale),
        embedded=cast,
        models=None,
        pool=Pool(uri=str(pool), sha256=hashlib.sha256(pool.read_bytes()).hexdigest(), licence="CC0-1.0"),
    )


def _quota(category: Category, scale: Scale) -> int:
    """Return the category's part of the pairs, in the proportion of the shipped quotas."""
    return round(scale.pairs * category.quota / 1_300_000)


def _write_pools(scale: Scale) -> None:
    """Write a file of prompts for each category, a quarter more than it should need."""
    for category in api.load("cluster").categories:
        compared = COMPARED[category.modality]
        kept = 0.94 * compared * (compared - 1) / 2 * scale.agree**3
        texts = [
            f"{category.title}, prompt {number:,}: three red apples on a wooden table beside a window, soft "
            "light from the left, a grey cat looking at them, photograph"
            for number in range(200 + round(1.25 * _quota(category, scale) / kept))
        ]
        pq.write_table(pa.table({"text": texts}), scale.folder / f"{category.name}.parquet")


def _line(row: dict[str, Any]) -> str:
    pairs = row["pairs"]
    line = (
        f"{pairs:>9,} pairs of {row['judged']:,} judged, {row['units']:,} units, {row['shards']:,} shards: "
        f"driver {row['driver']:.1f} s ({1e6 * row['driver'] / pairs:.0f} us a pair), "
        f"peak {row['memory'] / 2**20:.0f} MiB, alone {row['alone']:.1f} s; "
        f"workers {row['workers']:.0f} s ({1e3 * row['workers'] / pairs:.2f} ms a pair); "
        f"wall {row['wall']:.0f} s"
    )
    return line if row["resumed"] is None else f"{line}; resumed after {row['resumed']:.1f} s"


WIDTH, HEIGHT, LEFT, TOP, PANEL_WIDTH = 900, 260, 60, 40, 300
CURVES = (
    ("driver, processor us a pair", lambda row: 1e6 * row["driver"] / row["pairs"]),
    ("workers, processor ms a pair", lambda row: 1e3 * row["workers"] / row["pairs"]),
    ("driver, peak MiB", lambda row: row["memory"] / 2**20),
)


def _plot(rows: Sequence[dict[str, Any]]) -> str:
    """Return one SVG: a panel for each of ``CURVES`` over the number of pairs, on a logarithmic axis."""
    panels = "".join(
        f'<g transform="translate({place * PANEL_WIDTH},0)">{_panel(title, rows, curve)}</g>'
        for place, (title, curve) in enumerate(CURVES)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
        "<style>text{font:11px sans-serif;fill:#1a1c20}.g{stroke:#e3e1da}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>{panels}</svg>\n'
    )


def _panel(title: str, rows: Sequence[dict[str, Any]], curve: Callable[[dict[str, Any]], float]) -> str:
    top = 1.25 * max(map(curve, rows))
    right, bottom = PANEL_WIDTH - 20, HEIGHT - 40
    low, high = (math.log10(bound(row["pairs"] for row in rows)) for bound in (min, max))
    points = [
        (
            LEFT + (right - LEFT) * (math.log10(row["pairs"]) - low) / ((high - low) or 1.0),
            bottom - (bottom - TOP) * curve(row) / top,
        )
        for row in rows
    ]
    grid = "".join(
        f'<line class="g" x1="{LEFT}" x2="{right}" y1="{y}" y2="{y}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{top * share:.3g}</text>'
        for share in (0.0, 0.5, 1.0)
        for y in (round(bottom - (bottom - TOP) * share),)
    )
    marks = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#1d4fa3"/>'
        f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{row["pairs"] / 1000:,.0f}k</text>'
        for (x, y), row in zip(points, rows, strict=True)
    )
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    line = f'<polyline points="{path}" fill="none" stroke="#1d4fa3" stroke-width="2"/>'
    return f'<text x="{LEFT}" y="22" font-weight="bold">{title}</text>{grid}{line}{marks}'


if __name__ == "__main__":
    main()
