"""The loader: from a step to its pairs, read and decoded ahead by threads.

Threads, since decoders release the interpreter's lock, and processes would have to copy every decoded pixel.
The state is the step alone: ``batches(step)`` goes on exactly there, whatever number of threads, and whatever
number of ranks, read the steps before it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline import media
from pipeline.errors import ConfigError
from pipeline.ids import content_id, unit_interval
from pipeline.media.frames import Frames
from pipeline.train.order import Cell, Drawn, Ints, Order
from pipeline.train.settings import Data, Resolution
from pipeline.train.shards import Catalogue, Sample

AHEAD = 2
"""Batches read ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A pair as it is trained on; ``draw`` counts its visits, ``pixels`` is [2, frames, height, width, 3],
    winner first (None: not decoded).
    """

    sample: Sample
    draw: int
    pixels: Frames | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one rank gets of one update, all of one resolution."""

    step: int
    size: Resolution
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """Pairs and the order in which they are trained on; ``held_out`` are rows kept for measuring."""

    catalogue: Catalogue
    sizes: tuple[Resolution, ...]
    order: Order
    held_out: Ints

    def batches(
        self,
        step: int,
        *,
        threads: int,
        rank: int = 0,
        ranks: int = 1,
        decode: Callable[[Sample, Resolution], Frames | None] | None = None,
    ) -> Iterator[Batch]:
        """Yield the batches from ``step`` on, without end; of each, what falls to ``rank`` of ``ranks``.

        ``decode`` makes pixels of a sample (None: ``pixels``). Raises CorruptError, MediaError, StorageError.
        """
        made = decode or pixels
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[tuple[int, Resolution, list[Future[list[Item]]]]] = deque()
            try:
                while True:
                    while len(waiting) <= AHEAD:
                        number = step + len(waiting)
                        drawn = self.order[number]
                        size = self.sizes[drawn.bucket]
                        # In blocks: a forward pass then has the same pairs whatever the number of ranks.
                        places = np.array_split(np.arange(len(drawn.rows)), ranks)[rank]
                        chunks = np.array_split(places, min(threads, len(places)))
                        futures = [pool.submit(self._read, drawn, chunk, size, made) for chunk in chunks]
                        waiting.append((number, size, futures))
                    number, size, futures = waiting.popleft()
                    items = tuple(item for future in futures for item in future.result())
                    yield Batch(step=number, size=size, items=items)
                    step += 1
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _read(
        self,
        drawn: Drawn,
        places: Ints,
        size: Resolution,
        decode: Callable[[Sample, Resolution], Frames | None],
    ) -> list[Item]:
        samples = [self.catalogue.read(int(drawn.rows[place])) for place in places]
        return [
            Item(sample=sample, draw=int(drawn.draws[place]), pixels=decode(sample, size))
            for place, sample in zip(places, samples, strict=True)
        ]


def source(data: Data, *, batch: int, seed: int) -> Source:
    """Return what ``data`` trains on, in batches of ``batch`` pairs over all ranks.

    Raises ConfigError, CorruptError, StorageError.
    """
    catalogue = Catalogue(data.runs, shares=data.categories, licence=data.licence, exact=data.verify)
    rows = np.arange(len(catalogue))
    buckets, kept = np.zeros_like(rows), np.zeros(len(rows), bool)
    if len(data.sizes) > 1 or data.held_out:
        with ThreadPoolExecutor(data.threads) as pool:
            about = list(pool.map(lambda row: _traits(catalogue, row, data), rows.tolist()))
        buckets, kept = np.array([one for one, _ in about]), np.array([two for _, two in about])
    weights = {share.name: share.weight for share in data.categories}
    names, codes = np.unique(catalogue.categories, return_inverse=True)
    cells = [
        Cell(bucket=bucket, rows=found, weight=weights.get(str(name), 1.0))
        for bucket in range(len(data.sizes))
        for code, name in enumerate(names)
        if len(found := rows[(buckets == bucket) & (codes == code) & ~kept])
    ]
    order = Order(cells, batch=batch, seed=seed)
    return Source(catalogue, data.sizes, order, rows[kept])


def pixels(sample: Sample, size: Resolution) -> Frames:
    """Return both sides as ``Item`` has them. Raises MediaError; ConfigError for a short video."""
    return np.stack([_side(data, sample, size) for data in (sample.winner, sample.loser)])


def undecoded(sample: Sample, size: Resolution) -> None:
    """Leave a sample as it is: its latents are known, or its bytes are all that is wanted."""


def _traits(catalogue: Catalogue, row: int, data: Data) -> tuple[int, bool]:
    """Return the resolution of a pair and whether its prompt is held out, from the sample's JSON."""
    about = catalogue.about(row)
    coin = unit_interval(content_id("held out", prompt=about["prompt_id"]))
    return nearest_size(about["winner"], data.sizes), coin < data.held_out


def nearest_size(side: Any, sizes: Sequence[Resolution]) -> int:
    """Return which of ``sizes`` needs the least of a medium cropped, and among those the nearest in area."""

    def distance(size: Resolution) -> tuple[float, float]:
        shape = abs(math.log(side["width"] / side["height"]) - math.log(size.width / size.height))
        area = abs(math.log(side["width"] * side["height"]) - math.log(size.width * size.height))
        return round(shape, 6), area

    return min(range(len(sizes)), key=lambda number: distance(sizes[number]))


def _side(data: bytes, sample: Sample, size: Resolution) -> NDArray[np.uint8]:
    frames = media.decode(data, sample.mime)
    if len(frames) < size.frames:
        raise ConfigError(
            f"pair {sample.pair_id} has {len(frames)} frames, data.sizes asks for {size.frames}: ask for "
            "fewer, or leave its category out"
        )
    return np.stack([_fitted(frame, size) for frame in frames[: size.frames]])


def _fitted(frame: NDArray[np.uint8], size: Resolution) -> NDArray[np.uint8]:
    """Scale a frame until it covers ``size`` and crop it to the middle."""
    height, width = frame.shape[:2]
    if (width, height) == (size.width, size.height):
        return frame
    scale = min(width / size.width, height / size.height)
    wide, high = size.width * scale, size.height * scale
    left, top = (width - wide) / 2, (height - high) / 2
    box = (left, top, left + wide, top + high)
    picture = Image.fromarray(frame).resize((size.width, size.height), Image.Resampling.LANCZOS, box=box)
    return np.asarray(picture)
