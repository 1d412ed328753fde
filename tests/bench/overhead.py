"""What does the Ray runner cost? The same CPU-bound build on both runners, in turn, as a ratio.

    make bench            or            python -m tests.bench.overhead --rounds 3 --quota 150

Builds one image category in fresh folders: local runner with 1 worker, local with 2, Ray with 2. With
no overhead and two idle cores two workers take half the time of one: a ratio of 0.50. Starting Ray is
counted apart, since a build pays it once.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from io import StringIO

from rich.console import Console

from pipeline import api
from pipeline.config import Runner
from pipeline.runners import ray

SIDES: tuple[tuple[str, Runner, int], ...] = (
    ("local, 1 worker", "local", 1),
    ("local, 2 workers", "local", 2),
    ("ray, 2 workers", "ray", 2),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quota", type=int, default=150)
    given = parser.parse_args()
    started = time.perf_counter()
    ray.connect(None)
    print(f"starting Ray: {time.perf_counter() - started:.1f} s, on {os.cpu_count()} cores")
    seconds: dict[str, list[float]] = {name: [] for name, _, _ in SIDES}
    for number in range(given.rounds):
        for name, runner, workers in SIDES:
            seconds[name].append(_build(runner, workers, given.quota))
            print(f"round {number + 1}: {name}: {seconds[name][-1]:.1f} s", flush=True)
    base = seconds[SIDES[0][0]]
    for name, _, _ in SIDES[1:]:
        ratios = [one / other for one, other in zip(seconds[name], base, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"{name} / {SIDES[0][0]}: median {statistics.median(ratios):.2f} ({spread}); ideal 0.50")


def _build(runner: Runner, workers: int, quota: int) -> float:
    settings = api.load("laptop", categories=["composition"], runner=runner, workers=workers, quota=quota)
    with tempfile.TemporaryDirectory() as run:
        started = time.perf_counter()
        api.build(settings, run, console=Console(file=StringIO()))
        return time.perf_counter() - started


if __name__ == "__main__":
    main()
