"""Sprites of the known objects, and how they get onto a canvas."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.generators.scene.backdrop import background
from pipeline.generators.scene.brush import Canvas
from pipeline.media.symbols import COLOURS, silhouette

__all__ = ["MARGIN", "Sprite", "background", "paste", "sprite", "sprite_size"]

Sprite = NDArray[np.uint8]
"""RGBA pixels [height, width, 4]; the object stands in the middle of a margin that holds its shadow."""

MARGIN = 0.14
"""Width of the margin around a sprite's ink, as a share of the ink's height."""


def sprite_size(name: str, height: int) -> tuple[int, int]:
    """Return (width, height) in pixels of an object's ink when its ink is ``height`` tall."""
    mask = silhouette(name, max(8, height))
    return mask.shape[1], mask.shape[0]


def sprite(name: str, colour: str, height: int, rng: np.random.Generator | None = None) -> Sprite:
    """Draw an object whose ink is ``height`` pixels tall, softly lit, with outline and drop shadow.

    ``rng`` varies the light a little. Raises KeyError for an unknown object or colour.
    """
    tilt = 0 if rng is None else int(rng.integers(-2, 3))
    return _sprite(name, colour, max(8, height), tilt)


@lru_cache(maxsize=128)
def _sprite(name: str, colour: str, height: int, tilt: int) -> Sprite:
    margin = round(height * MARGIN) + 2
    ink = np.pad(silhouette(name, height), margin)
    rgb = _shaded(ink, np.array(COLOURS[colour], np.float32), margin, tilt)
    shade = _shadow(ink, height)
    cover = ink.astype(np.float32) / 255
    alpha = cover + shade * (1 - cover)
    rgb *= (cover / np.maximum(alpha, 1e-6))[..., None]
    drawn = np.dstack([rgb, alpha * 255]).round().clip(0, 255).astype(np.uint8)
    drawn.setflags(write=False)
    return drawn


def paste(canvas: Canvas, drawn: Sprite, x: float, y: float) -> None:
    """Lay a sprite over the canvas with its middle at (x, y); what falls outside is cut off."""
    height, width = drawn.shape[:2]
    left, top = round(x - width / 2), round(y - height / 2)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(canvas.shape[1], left + width), min(canvas.shape[0], top + height)
    if x0 >= x1 or y0 >= y1:
        return
    part = drawn[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.uint16)
    alpha = part[..., 3:]
    region = canvas[y0:y1, x0:x1]
    region[:] = ((region * (255 - alpha) + part[..., :3] * alpha + 127) // 255).astype(np.uint8)


def _shaded(
    ink: NDArray[np.uint8], colour: NDArray[np.float32], margin: int, tilt: int
) -> NDArray[np.float32]:
    """Light from above, and a darker rim inside the outline."""
    height, width = ink.shape
    down = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(-1, 1, width, dtype=np.float32)[None]
    light = 1 - 0.10 * down + 0.02 * tilt * across
    rim = max(1, margin // 6)
    inside = cv2.erode(ink, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * rim + 1, 2 * rim + 1)))
    inside = cv2.blur(inside, (rim + 1, rim + 1))
    light = light * (0.84 + 0.16 * inside.astype(np.float32) / 255)
    lifted = colour + np.float32(10)
    return np.asarray((lifted * light[..., None]).clip(0, 255), np.float32)


def _shadow(ink: NDArray[np.uint8], height: int) -> NDArray[np.float32]:
    dx, dy = round(height * 0.025), round(height * 0.045)
    moved = np.zeros_like(ink)
    moved[dy:, dx:] = ink[: ink.shape[0] - dy, : ink.shape[1] - dx]
    soft = cv2.GaussianBlur(moved, (0, 0), max(0.6, height * 0.022))
    return soft.astype(np.float32) * np.float32(0.30 / 255)
