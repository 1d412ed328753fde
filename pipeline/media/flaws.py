"""Media that no judge need see: what a model gives when it has failed without an error.

A NaN in half precision decodes to black, a collapsed model to one colour, an image-to-video model that
ignores its prompt to a still. Only what is useless for certain is named: dark, pale, plain and slow media
are left to the judges.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.media.frames import Frames

FLAT = 6
"""Levels of 255 between the lowest and the highest pixel of each channel of a picture of one colour."""

BLOCK = 16
STILL = 4
"""Levels by which a block's mean may change where nothing moves: H.264 of a noisy still changes it by 3."""

STRIDE = 16


def flaw(frames: Frames) -> str | None:
    """Return in one line why [frames, height, width, 3] is of no use, None if it is of some.

    Reads a fraction of the pixels of good media: 1 ms for an image of 1024 px, 20 ms for 81 frames of 720p.
    """
    if not frames.size:
        return f"empty: {frames.shape[0]} frames of {frames.shape[2]}x{frames.shape[1]}"
    flat = sum(_is_flat(frame) for frame in frames)
    if flat * 2 > len(frames):
        what = "black" if not frames.max() else "one colour"
        return f"{what}: every pixel" if len(frames) == 1 else f"{what}: {flat} of {len(frames)} frames"
    if len(frames) > 1 and not _moves(frames):
        return f"frozen: {len(frames)} frames show the same"
    return None


def _is_flat(frame: NDArray[np.uint8]) -> bool:
    """A few pixels acquit nearly every picture; all of them convict."""
    return _range(frame[::STRIDE, ::STRIDE]) <= FLAT and _range(frame) <= FLAT


def _range(pixels: NDArray[np.uint8]) -> int:
    return int(np.ptp(Image.fromarray(pixels).getextrema(), axis=1).max())


def _moves(frames: Frames) -> bool:
    first = _blocks(frames[0])
    return any(np.abs(_blocks(frames[index]) - first).max() > STILL for index in _from_afar(len(frames)))


def _blocks(frame: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Return the means of blocks: noise averages out, the smallest thing that moves does not."""
    return np.asarray(Image.fromarray(frame).reduce(BLOCK), np.int16)


def _from_afar(count: int) -> Iterator[int]:
    """Yield 1 to ``count`` - 1, those likely to differ from 0 first: the last, the middle, quarters ..."""
    step, seen = count - 1, {0}
    while step:
        for index in range(count - 1, 0, -step):
            if index not in seen:
                seen.add(index)
                yield index
        step //= 2
