"""The loader of the trainer beside webdataset's own, on the same shards in the same minutes.

    python -m tests.bench.loader --run runs/demo --rounds 5

Each samples/s is the median of the rounds, which take turns. ``bytes``: members as bytes. ``decoded``: both
sides as pixels. webdataset reads its shards in order with a shuffle buffer; ours reads the permuted order, so
it pays for random reads, and can go on at any step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import webdataset

from pipeline.train.data import Source, source, undecoded
from pipeline.train.settings import Data, Resolution

BATCH = 16


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.loader")
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--category", default="alignment", help="of images")
    parser.add_argument("--samples", type=int, default=20_000, help="read as bytes; a tenth of them decoded")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    shards = json.loads((given.run / "manifest.json").read_text())["shards"]
    tars = [str(given.run / shard["tar"]) for shard in shards if shard["category"] == given.category]
    pairs = _source(given.run, given.category)
    readers: dict[str, Callable[[int], Iterator[object]]] = {
        "webdataset, bytes": lambda _: iter(_theirs(tars)),
        "ours, bytes": lambda threads: _ours(pairs, threads, decode=False),
        "webdataset, decoded": lambda _: iter(_theirs(tars).decode("rgb8", only=["winner.jpg", "loser.jpg"])),
        "ours, decoded": lambda threads: _ours(pairs, threads, decode=True),
    }
    found: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(given.rounds):
        for name, reader in readers.items():
            count = given.samples if name.endswith("bytes") else given.samples // 10
            found[name].append(_rate(reader(given.threads), count))
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    for name, rates in found.items():
        print(f"{name:<22} {medians[name]:>9,.0f} samples/s   ({min(rates):,.0f} to {max(rates):,.0f})")
    for kind in ("bytes", "decoded"):
        print(f"{kind}: {medians[f'ours, {kind}'] / medians[f'webdataset, {kind}']:.2f} x webdataset's")


def _source(run: Path, category: str) -> Source:
    from pipeline.train.shards import Catalogue, Share

    share = (Share(name=category),)
    side = Catalogue([str(run)], shares=share).read(0).about["winner"]
    size = Resolution(width=side["width"], height=side["height"])
    return source(Data(runs=(str(run),), sizes=(size,), categories=share), batch=BATCH, seed=0)


def _theirs(tars: list[str]) -> webdataset.WebDataset:
    return webdataset.WebDataset(tars, shardshuffle=len(tars), seed=0).shuffle(100).repeat()


def _ours(pairs: Source, threads: int, *, decode: bool) -> Iterator[object]:
    for batch in pairs.batches(0, threads=threads, decode=None if decode else undecoded):
        yield from batch.items


def _rate(samples: Iterator[object], count: int) -> float:
    next(samples)  # threads are up, files are open
    begun = time.perf_counter()
    read = sum(1 for _ in islice(samples, count))
    assert read == count
    return count / (time.perf_counter() - begun)


if __name__ == "__main__":
    main()
