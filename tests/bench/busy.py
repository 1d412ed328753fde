"""Does a GPU wait for what is not GPU work? A pretended GPU, and all else real.

    make bench      or, it alone,      python -m tests.bench.busy --items 1000

The null generator holds its device for 0.1 s an item; encoding a noisy 1024 px JPEG, hashing it and putting
it into a folder are real. The same items go through the generate stage (one Ray actor) and through Ray Data
(``map_batches`` on one actor, then ``map``), in turn, on a Ray that is up already. Busy is the device's
time over the wall time: whole, from asking for the worker to the last item put; steady, from the first item
or unit that is done to the last.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import api, media
from pipeline.config import Category, Settings, Size, load_category
from pipeline.generators.base import Rendered, Request
from pipeline.generators.table import GENERATORS, make_generator
from pipeline.records import Checks, Prompt
from pipeline.runners import ray as runner
from pipeline.runners.base import Bench, Task
from pipeline.runners.flow import Flow
from pipeline.stages import Lanes, lanes
from pipeline.storage import open_store

GENERATOR = "null/slow"
SECONDS = float(GENERATORS[GENERATOR].options["seconds"])

CATEGORY = f"""\
name = "composition"
title = "Load"
modality = "image"
size = {{ width = 1024, height = 1024 }}
quota = 1
rubric = {{ question = "?", criteria = ["none"] }}
policy = {{ kind = "majority", votes = 1 }}

[embedded]
generators = ["{GENERATOR}"]
judges = ["composition-frame"]
recipes = [{{ kind = "across_seeds", generations = 4 }}]
"""
PROMPTS = 25  # a bucket: 100 items, so that a unit takes ten seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--items", type=int, default=1000, help="rounded up to whole units of 100")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    runner.connect(None)
    units = -(-given.items // (4 * PROMPTS))
    sides: dict[str, Callable[[int], tuple[float, float]]] = {"generate stage": _ours, "Ray Data": _theirs}
    for number in range(given.rounds):
        for name, side in sides.items():
            whole, steady = side(units)
            print(f"round {number + 1}: {name}: busy {whole:.3f} whole, {steady:.3f} steady", flush=True)


def _ours(units: int) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as folder:
        lane = _lane(units, Path(folder))
        store = open_store(f"{folder}/run")
        for unit in lane.prompts.units(store):
            assert Bench(store.uri).do(lane.prompts, unit).cause is None
        (stage,) = lane.generate
        flow = Flow(overlap=True)
        for unit in stage.units(store):
            flow.add(Task(stage=stage, unit=unit), ())
        started = time.perf_counter()
        workers = runner.RayWorkers(store.uri, 1)
        ends: list[tuple[float, int]] = []
        while len(ends) < units:
            workers.hire(flow.needs())
            for worker in workers.idle():
                if task := flow.next(worker, workers.staff()):
                    workers.start(worker, task)
            for _, done in workers.wait():
                assert done.cause is None, done.cause
                ends.append((time.perf_counter(), done.rows))
        workers.close()
    items, later = sum(rows for _, rows in ends), sum(rows for _, rows in ends[1:])
    return SECONDS * items / (ends[-1][0] - started), SECONDS * later / (ends[-1][0] - ends[0][0])


def _lane(units: int, folder: Path) -> Lanes:
    (folder / "composition.toml").write_text(CATEGORY)
    category: Category = load_category(folder / "composition.toml")
    profile = api.load("laptop", categories=["composition"]).profile
    settings = Settings(profile=dataclasses.replace(profile, bucket_size=PROMPTS), categories=(category,))
    return lanes(category, settings, buckets=units)


class _Device:
    """The same pretended GPU as a class of Ray Data's."""

    def __init__(self) -> None:
        self._generator = make_generator(GENERATORS[GENERATOR])

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        requests = [_request(int(number)) for number in batch["id"]]
        made = [result for result in self._generator.generate(requests) if isinstance(result, Rendered)]
        return {"frames": np.stack([item.frames for item in made]), "done": [time.time() for _ in made]}


def _request(seed: int) -> Request:
    prompt = Prompt(
        id="0",
        root_id="0",
        category="composition",
        bucket=0,
        text="anything",
        subject="anything",
        style="any",
        checks=Checks(),
        source="none",
        licence="CC0-1.0",
    )
    return Request(id=str(seed), prompt=prompt, seed=seed, size=Size(width=1024, height=1024))


def _theirs(units: int) -> tuple[float, float]:
    import ray

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = units * 4 * PROMPTS
    with tempfile.TemporaryDirectory() as folder:

        def put(row: dict[str, Any]) -> dict[str, Any]:
            encoded = media.encode(row["frames"], 0)
            open_store(folder).put(media.key(encoded.sha256, encoded.mime), encoded.data)
            return {"done": row["done"]}

        started = time.perf_counter()
        rows = ray.data.range(items).map_batches(_Device, batch_size=1, concurrency=1, num_cpus=0.5)
        done = [row["done"] for row in rows.map(put, num_cpus=0.5).iter_rows()]
        whole = time.perf_counter() - started
    return SECONDS * items / whole, SECONDS * (items - 1) / (max(done) - min(done))


if __name__ == "__main__":
    main()
