"""A generator that generates nothing: it takes a GPU's time and gives back real frames.

For load tests, benchmarks and trials of a cluster: everything around it (reading, encoding, hashing,
putting, pairing, judging, sharding) does its real work. Its media mean nothing and no prompt changes them;
do not name it in a category that is to ship.

Options: ``seconds`` an item takes, asleep, as if a GPU computed; ``noise`` 1 gives media that weigh and
encode as photographs do (450 KB as JPEG at 1024 px), 0 a plain ramp of one colour (50 KB); ``pictures``, if
given, is how many different ones there are, so that a store holds few of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from functools import lru_cache

import numpy as np
from PIL import Image

from pipeline.config import Size
from pipeline.errors import ItemError
from pipeline.generators.base import GeneratorSpec, Rendered, Request, each
from pipeline.media.frames import Frames
from pipeline.storage import Store

_ROOM = 256


class NullGenerator:
    """Pretends; ``spec.options`` say how long it takes and what its frames weigh."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._seconds = float(spec.options["seconds"])
        self._draw = _noise if spec.options["noise"] else _ramp
        self._pictures = int(spec.options.get("pictures", 0))

    def open(self, store: Store) -> None:
        """Nothing to load."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Rendered | ItemError]:
        """Yield frames of the size asked for, different for every seed, at most one in ``seconds``."""
        return each(requests, self._render)

    def close(self) -> None:
        """Nothing to free."""

    def _render(self, request: Request) -> Rendered:
        done = time.perf_counter() + self._seconds
        seed = request.seed % self._pictures if self._pictures else request.seed
        frames = self._draw(request.size, seed)
        if self._seconds:
            time.sleep(max(0.0, done - time.perf_counter()))
        return Rendered(frames=frames)


def _ramp(size: Size, seed: int) -> Frames:
    """A ramp of 64 levels above a colour that the seed draws; in a video it moves."""
    rng = np.random.Generator(np.random.PCG64(seed))
    colour = rng.integers(0, 192, 3, np.uint8)
    place = np.linspace(0, 1, size.width)[None] + np.linspace(0, 1, size.frames, endpoint=False)[:, None]
    levels = (place % 1 * 63).astype(np.uint8)[:, None, :, None] + colour
    return np.repeat(levels, size.height, axis=1)


def _noise(size: Size, seed: int) -> Frames:
    """A window of one sheet for each frame, at a place and in a light that the seed draws."""
    rng = np.random.Generator(np.random.PCG64(seed))
    sheet, light = _sheet(size.width + _ROOM, size.height + _ROOM), rng.integers(0, 32, 3, np.uint8)
    frames = np.empty((size.frames, size.height, size.width, 3), np.uint8)
    for frame, (y, x) in zip(frames, rng.integers(0, _ROOM, (size.frames, 2)), strict=True):
        np.add(sheet[y : y + size.height, x : x + size.width], light, out=frame)
    return frames


@lru_cache(maxsize=2)
def _sheet(width: int, height: int) -> Frames:
    """[height, width, 3] with tones from 16 to 223: smooth shapes under the grain of a photograph."""
    rng = np.random.Generator(np.random.PCG64(0))
    shapes = Image.fromarray(rng.integers(48, 192, (12, 12, 3), np.uint8))
    smooth = np.asarray(shapes.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    grain = rng.standard_normal((height, width, 3), np.float32) * 3.3
    sheet: Frames = np.clip(smooth + grain, 16, 223).astype(np.uint8)
    return sheet
