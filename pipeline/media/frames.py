"""The shape that all media share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]
"""Pixels as [frames, height, width, 3], RGB, 0-255; an image is one frame."""

MAX_PIXELS = 64_000_000
"""Largest frame that is decoded: 8K. A header that promises more is a decompression bomb."""

MAX_FRAMES = 2_000
"""Longest video that is decoded."""

MAX_VIDEO_PIXELS = 2_000_000_000
"""Most pixels of all frames together, 6 GB decoded: MAX_FRAMES of 720p fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Size in pixels, number of frames, frames a second (0 for an image)."""

    width: int
    height: int
    frames: int
    fps: int
