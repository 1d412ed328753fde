"""What the measures share: sizes, colours by name, figure and ground, connected pieces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media import symbols
from pipeline.media.frames import Frames

Pixels = NDArray[np.uint8]
"""[height, width, 3] RGB."""
Mask = NDArray[np.uint8]
"""[height, width]: 255 inside, 0 outside."""
Lab = NDArray[np.float32]
"""[..., 3] CIE L*a*b*, where distances are near to what the eye sees."""

COLOURS = tuple(symbols.COLOURS)

# Workers already fill the cores, and one thread gives one answer.
cv2.setNumThreads(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One connected piece of a mask, cut out; ``left``, ``top`` and the middle (x, y) in pixels."""

    left: int
    top: int
    x: float
    y: float
    area: int
    mask: Mask

    @property
    def height(self) -> int:
        """Return the height of the piece's box."""
        return len(self.mask)

    @property
    def width(self) -> int:
        """Return the width of the piece's box."""
        return int(self.mask.shape[1])

    def cut(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the pixels [n, ...] of ``picture`` under the piece."""
        region = picture[self.top : self.top + self.height, self.left : self.left + self.width]
        return region[self.mask > 0]


def shrink(frames: Frames, side: int, index: int = 0) -> Pixels:
    """Return frame ``index`` with its longer side reduced to ``side`` pixels (never enlarged)."""
    frame = frames[index]
    factor = side / max(frame.shape[:2])
    if factor >= 1:
        return np.ascontiguousarray(frame)
    size = (max(1, round(frame.shape[1] * factor)), max(1, round(frame.shape[0] * factor)))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), np.uint8)


def lab(pixels: Pixels) -> Lab:
    """Convert RGB [height, width, 3] to L*a*b*."""
    return np.asarray(cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


def as_mask(chosen: NDArray[np.bool_]) -> Mask:
    """Return 255 where ``chosen``."""
    return np.asarray(chosen, np.uint8) * np.uint8(255)


def pieces(mask: Mask, smallest: float) -> list[Piece]:
    """Return the connected pieces of at least ``smallest`` pixels, largest first."""
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    order = sorted(range(1, count), key=lambda i: (-int(areas[i]), i))
    named = np.asarray(labels, np.int32)
    return [_piece(named, i, stats[i], centres[i]) for i in order if areas[i] >= smallest]


def _piece(
    labels: NDArray[np.int32], label: int, stats: NDArray[np.int32], centre: NDArray[np.float64]
) -> Piece:
    left, top, width, height, area = (int(value) for value in stats)
    mask = as_mask(labels[top : top + height, left : left + width] == label)
    return Piece(left=left, top=top, x=float(centre[0]), y=float(centre[1]), area=area, mask=mask)


def nearest_colour(colours: Lab) -> str:
    """Return the named colour nearest to the median of L*a*b* values [n, 3]."""
    return COLOURS[int(colour_distances(np.median(colours, axis=0)).argmin())]


def colour_distances(colours: Lab) -> NDArray[np.float32]:
    """Return the distance of L*a*b* values [..., 3] to each named colour, [..., 10]."""
    return np.asarray(np.linalg.norm(colours[..., None, :] - named_colours(), axis=-1), np.float32)


@cache
def named_colours() -> Lab:
    """Return L*a*b* of the named colours, [10, 3]."""
    named: Lab = lab(np.array([list(symbols.COLOURS.values())], np.uint8))[0]
    return named


def colour_names(pixels: Pixels) -> NDArray[np.uint8]:
    """Return for each pixel [height, width] the index of its named colour, or 10 where it is near to none."""
    reduced = (pixels >> 3).astype(np.int32)
    codes = (reduced[..., 0] << 10) | (reduced[..., 1] << 5) | reduced[..., 2]
    return np.asarray(_names_by_rgb()[codes], np.uint8)


@cache
def _names_by_rgb() -> NDArray[np.uint8]:
    """Name every colour of five bits a channel, [32768].

    Within 25 of L*a*b* counts as near, but a colour that is much paler than its name does not.
    """
    levels = np.arange(32, dtype=np.uint8) * 8 + 4
    cube = lab(np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(1, -1, 3))[0]
    distances = colour_distances(cube)
    names: NDArray[np.uint8] = distances.argmin(axis=1).astype(np.uint8)
    strength, full = (np.hypot(colours[:, 1], colours[:, 2]) for colours in (cube, named_colours()))
    full[full < 10] = 0  # black has no strength to lose
    names[(distances.min(axis=1) > 25) | (strength < 0.5 * full[names])] = len(COLOURS)
    return names
