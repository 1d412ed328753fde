"""Damage to the frames of a finished video, in place; ``severity`` in (0, 1].

Cheap on purpose: 33 frames of 1280x720 in some tenths of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.frames import Frames

Damage = Callable[[np.random.Generator, Frames, float], None]

_SPARE = 48
"""Pixels by which the sheet of grain is larger than a frame: every frame takes another cut of it."""


def noise(rng: np.random.Generator, frames: Frames, severity: float) -> None:
    """Sensor grain, new in every frame: sigma 7 to 22 of 255."""
    height, width = frames.shape[1:3]
    sheet = rng.standard_normal((height + _SPARE, width + _SPARE, 3), dtype=np.float32)
    grain = np.rint(sheet * np.float32(2 + 20 * severity)).astype(np.int16)
    for frame in frames:
        y, x = (int(place) for place in rng.integers(0, _SPARE, 2))
        cut = np.ascontiguousarray(grain[y : y + height, x : x + width])
        cv2.add(frame, cut, dst=frame, dtype=cv2.CV_8U)


def blur(rng: np.random.Generator, frames: Frames, severity: float) -> None:  # noqa: ARG001
    """Out of focus: sigma 1 to 6 pixels at 720 lines."""
    sigma = max(0.5, (0.5 + 5.5 * severity) * frames.shape[1] / 720)
    for frame in frames:
        cv2.GaussianBlur(frame, (0, 0), sigma, dst=frame)


def blocking(rng: np.random.Generator, frames: Frames, severity: float) -> None:  # noqa: ARG001
    """Blocks of 8x8, as of a starved encoder: JPEG at quality 27 down to 6."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, round(27 - 21 * severity)]
    for frame in frames:
        _, data = cv2.imencode(".jpg", frame, quality)
        frame[:] = cv2.imdecode(data, cv2.IMREAD_COLOR)


def bad_exposure(rng: np.random.Generator, frames: Frames, severity: float) -> None:
    """Too dark or too bright, by up to two stops, with crushed or blown tones."""
    tones = np.arange(256) / 255
    dark = rng.random() < 0.5
    curve = (
        tones * 2.0 ** (-0.15 - 1.9 * severity) if dark else tones * (1 + 0.6 * severity) + 0.25 * severity
    )
    _map(frames, curve)


def flicker(rng: np.random.Generator, frames: Frames, severity: float) -> None:
    """The light pulses: every frame is darker or brighter than the one before, by up to a third."""
    sign = 1.0
    for index in range(len(frames)):
        sign = -sign if rng.random() < 0.75 else sign
        swing = sign * (0.03 + 0.22 * severity) * float(rng.uniform(0.6, 1.0))
        _map(frames[index : index + 1], np.arange(256) / 255 * (1 + swing))


DAMAGES: Mapping[str, Damage] = {
    "bad_exposure": bad_exposure,
    "blur": blur,
    "blocking": blocking,
    "noise": noise,
    "flicker": flicker,
}
"""Kind of defect -> what it does to frames, in the order in which none wipes out another."""


def _map(frames: Frames, curve: NDArray[np.float64]) -> None:
    table = np.clip(np.rint(curve * 255), 0, 255).astype(np.uint8)
    for frame in frames:
        cv2.LUT(frame, table, dst=frame)
