"""Damage to the pixels of a finished image: each function takes a canvas and a severity in (0, 1]."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np

from pipeline.generators.scene.brush import Canvas

Damage = Callable[[np.random.Generator, Canvas, float], Canvas]


def noise(rng: np.random.Generator, canvas: Canvas, severity: float) -> Canvas:
    """Sensor grain: sigma 4 to 44 of 255."""
    height, width = canvas.shape[:2]
    # A quarter of the numbers, shifted and mirrored: enough for the eye, four times as fast to draw.
    grain = rng.standard_normal((height // 2 + 1, width // 2 + 1, 3), dtype=np.float32)
    grain = np.concatenate([grain, grain[::-1, ::-1]])[:height]
    grain = np.concatenate([grain, grain[::-1, :, ::-1]], axis=1)[:, :width]
    return np.clip(canvas + grain * np.float32(4 + 40 * severity), 0, 255).astype(np.uint8)


def blur(rng: np.random.Generator, canvas: Canvas, severity: float) -> Canvas:  # noqa: ARG001
    """Out of focus: sigma 1 to 9 pixels at 1024."""
    sigma = (1 + 8 * severity) * min(canvas.shape[:2]) / 1024
    return np.asarray(cv2.GaussianBlur(canvas, (0, 0), max(0.5, sigma)), np.uint8)


def bad_exposure(rng: np.random.Generator, canvas: Canvas, severity: float) -> Canvas:
    """Too dark by up to two stops, or too bright until the light tones burn out."""
    tones = np.arange(256) / 255.0
    if rng.random() < 0.5:
        curve = tones * 2.0 ** (-0.1 - 1.9 * severity)
    else:
        curve = tones ** (1 / (1 + 1.1 * severity)) * (1 + 0.12 * severity) + 0.05 * severity
    return cv2.LUT(canvas, np.clip(curve * 255, 0, 255).round().astype(np.uint8)).astype(np.uint8)


def banding(rng: np.random.Generator, canvas: Canvas, severity: float) -> Canvas:  # noqa: ARG001
    """Posterised to between 14 and 3 levels a channel."""
    levels = 14 - 11 * severity
    tones = np.round(np.arange(256) / 255 * levels) / levels
    return cv2.LUT(canvas, np.clip(tones * 255, 0, 255).round().astype(np.uint8)).astype(np.uint8)


def muddy_colours(rng: np.random.Generator, canvas: Canvas, severity: float) -> Canvas:
    """Colours drained towards one murky brown or green."""
    mud = np.array([(112, 100, 74), (96, 104, 80)][int(rng.integers(2))], np.float32)
    share = 0.2 + 0.6 * severity
    grey = cv2.cvtColor(canvas, cv2.COLOR_RGB2GRAY).astype(np.float32)[..., None] / 128 * mud
    return np.clip(canvas * np.float32(1 - share) + grey * np.float32(share), 0, 255).astype(np.uint8)


DAMAGES: Mapping[str, Damage] = {
    "blur": blur,
    "bad_exposure": bad_exposure,
    "muddy_colours": muddy_colours,
    "noise": noise,
    "banding": banding,
}
"""Kind of defect -> what it does to pixels, in the order of a camera: optics, then sensor, then file.
Noise before blur would be blurred away, and still be recorded."""
