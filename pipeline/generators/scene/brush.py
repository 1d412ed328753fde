"""Antialiased shapes and colours on RGB arrays; coordinates in pixels, sub-pixel positions kept."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Canvas = NDArray[np.uint8]
"""Pixels as [height, width, 3], RGB."""

Colour = tuple[int, int, int]

_SHIFT = 4

# One thread: workers already fill the cores, and the picture must not depend on their number.
cv2.setNumThreads(1)


def polygon(canvas: Canvas, points: ArrayLike, colour: Colour) -> None:
    """Fill the polygon through ``points`` [n, 2]."""
    cv2.fillPoly(canvas, [_fixed(points)], colour, cv2.LINE_AA, _SHIFT)


def stroke(canvas: Canvas, points: ArrayLike, colour: Colour, width: float, closed: bool = False) -> None:
    """Draw a line of ``width`` pixels with round ends through ``points`` [n, 2]."""
    thickness = max(1, round(width))
    cv2.polylines(canvas, [_fixed(points)], closed, colour, thickness, cv2.LINE_AA, _SHIFT)


def ellipse(
    canvas: Canvas,
    x: float,
    y: float,
    rx: float,
    ry: float,
    colour: Colour,
    start: float = 0,
    end: float = 360,
) -> None:
    """Fill an ellipse, or the segment of it between two angles (degrees, clockwise from the right)."""
    polygon(canvas, arc(x, y, rx, ry, start, end), colour)


def arc(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> NDArray[np.float64]:
    """Return points [n, 2] along an ellipse, clockwise on the screen, angles in degrees."""
    angles = np.radians(np.linspace(start, end, 64))
    return np.stack([x + rx * np.cos(angles), y + ry * np.sin(angles)], axis=1)


def rounded(x: float, y: float, width: float, height: float, radius: float) -> NDArray[np.float64]:
    """Return the outline [n, 2] of a rectangle with round corners; (x, y) is its top left."""
    radius = min(radius, width / 2, height / 2)
    right, bottom = x + width - radius, y + height - radius
    centres = [
        (right, bottom, 0),
        (x + radius, bottom, 90),
        (x + radius, y + radius, 180),
        (right, y + radius, 270),
    ]
    return np.concatenate([arc(cx, cy, radius, radius, a, a + 90)[::4] for cx, cy, a in centres])


def gradient(width: int, height: int, stops: Sequence[Colour]) -> Canvas:
    """Return a canvas whose colour runs through ``stops`` from top to bottom."""
    places = np.linspace(0, len(stops) - 1, height)
    columns = [np.interp(places, range(len(stops)), [stop[i] for stop in stops]) for i in range(3)]
    column = np.stack(columns, axis=1).round().astype(np.uint8)[:, None]
    return np.ascontiguousarray(np.broadcast_to(column, (height, width, 3)))


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Return ``first`` with ``share`` of ``second`` blended in."""
    r, g, b = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return r, g, b


def lighter(colour: Colour, share: float) -> Colour:
    """Blend towards white, or with a negative share towards black."""
    return mix(colour, (255, 255, 255) if share > 0 else (0, 0, 0), abs(share))


def muted(colour: Colour, share: float) -> Colour:
    """Take ``share`` of the saturation away."""
    hue, light, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in colour))
    r, g, b = (round(255 * c) for c in colorsys.hls_to_rgb(hue, light, saturation * (1 - share)))
    return r, g, b


def glow(canvas: Canvas, x: float, y: float, radius: float, colour: Colour, strength: float) -> None:
    """Blend a soft disc of light, or of shade, into the canvas; ``strength`` at its centre."""
    height, width = canvas.shape[:2]
    left, right = max(0, int(x - radius)), min(width, int(x + radius) + 1)
    top, bottom = max(0, int(y - radius)), min(height, int(y + radius) + 1)
    if left >= right or top >= bottom:
        return
    dx = (np.arange(left, right, dtype=np.float32) - x) / radius
    dy = (np.arange(top, bottom, dtype=np.float32) - y) / radius
    alpha = np.clip(1 - np.hypot(dy[:, None], dx[None]), 0, 1) ** 2 * strength
    blend(canvas[top:bottom, left:right], np.array(colour, np.float32), alpha)


def blend(region: Canvas, colour: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
    """Lay ``colour`` over ``region`` in place; ``alpha`` [height, width] in 0..1."""
    base = region.astype(np.float32)
    base += (colour - base) * alpha[..., None]
    region[:] = np.rint(base).astype(np.uint8)


def _fixed(points: ArrayLike) -> NDArray[np.int32]:
    return np.rint(np.asarray(points, np.float64) * (1 << _SHIFT)).astype(np.int32)
