"""Losers with a known answer: a generation of another generator made worse in one stated way.

A row's options name the ``kind`` and the strengths between which the seed draws (``weakest`` to
``strongest``, in (0, 1]). What is drawn is kept as the defect of the copy. A copy on which the
degradation does not show, such as stutter where nothing moves, is no loser: it becomes an error.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pipeline.errors import ItemError
from pipeline.generators.base import GeneratorSpec, Rendered, Request, each
from pipeline.media.frames import Frames
from pipeline.records import Defect
from pipeline.storage import Store

SHOWS = 8.0
"""Least root mean square change of pixels, of 255 levels, in the tile that changes most."""

TILES = 8
"""Tiles to a side: a smudge or a small thing that moves changes few."""

Pixels: TypeAlias = NDArray[np.uint8]
Degradation: TypeAlias = Callable[[np.random.Generator, Frames, float], Frames]


class DegradeGenerator:
    """Makes a request's source worse; ``spec.options`` say how and how much."""

    def __init__(self, spec: GeneratorSpec) -> None:
        self._kind = str(spec.options["kind"])
        self._range = float(spec.options["weakest"]), float(spec.options["strongest"])

    def open(self, store: Store) -> None:
        """Nothing to load."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Rendered | ItemError]:
        """Yield a copy of each request's source, of its shape, with the one defect that was made."""
        return each(requests, self._degrade)

    def close(self) -> None:
        """Nothing to free."""

    def _degrade(self, request: Request) -> Rendered:
        if request.source is None:
            raise ItemError(f"{self._kind}: nothing to degrade: a degrading generator needs a source")
        weakest, strongest = self._range
        drawn = float(np.random.Generator(np.random.PCG64(request.seed)).uniform(weakest, strongest))
        for strength in (round(drawn, 3), strongest):
            rng = np.random.Generator(np.random.PCG64(request.seed))
            frames = KINDS[self._kind](rng, request.source, strength)
            if _change(request.source, frames) >= SHOWS:
                return Rendered(frames=frames, defects=(Defect(kind=self._kind, severity=strength),))
        raise ItemError(f"{self._kind} does not show on this source")


def _change(before: Frames, after: Frames) -> float:
    """Return how much the tile changes that changes most, over all frames; a part of the pixels tells."""
    step = max(1, min(before.shape[1:3]) // 256)
    change = np.subtract(before[:, ::step, ::step], after[:, ::step, ::step], dtype=np.float32)
    squares = np.square(change).mean(axis=(0, 3), dtype=np.float32)
    tiles = Image.fromarray(squares).resize((TILES, TILES), Image.Resampling.BOX)
    return float(np.sqrt(np.asarray(tiles).max()))


def _each_frame(frames: Frames, change: Callable[[Image.Image], Image.Image]) -> Frames:
    return np.stack([np.asarray(change(Image.fromarray(frame))) for frame in frames])


def _by_tone(frames: Frames, curves: NDArray[np.float64]) -> Frames:
    """Map each channel by its own curve, [3, 256] in levels."""
    table = np.clip(np.rint(curves), 0, 255).astype(np.uint8)
    return np.stack([table[channel][frames[..., channel]] for channel in range(3)], axis=-1)


def blur(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:  # noqa: ARG001
    """Out of focus: sigma 0.2 to 1 % of the short side."""
    sigma = (0.002 + 0.008 * strength) * min(frames.shape[1:3])
    return _each_frame(frames, lambda picture: picture.filter(ImageFilter.GaussianBlur(sigma)))


def noise(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:
    """Sensor grain of sigma 10 to 50, another in each frame."""
    _, height, width, _ = frames.shape
    room = 1 if len(frames) == 1 else 64  # frames take their grain from other places of one sheet
    sheet = rng.standard_normal((height + room, width + room, 3), dtype=np.float32) * (10 + 40 * strength)
    result = np.empty_like(frames)
    for index, frame in enumerate(frames):
        y, x = rng.integers(0, room, 2)
        grainy = frame + sheet[y : y + height, x : x + width]
        result[index] = np.clip(grainy, 0, 255)
    return result


def blocking(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:  # noqa: ARG001
    """Compressed far too much: JPEG of quality 16 to 6, colour at half resolution."""
    quality = round(16 - 10 * strength)

    def compress(picture: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        return Image.open(buffer, formats=["JPEG"]).convert("RGB")

    return _each_frame(frames, compress)


def pixelation(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:  # noqa: ARG001
    """Pixels of 0.3 to 1.2 % of the short side, as of a small picture enlarged."""
    _, height, width, _ = frames.shape
    side = max(2.0, (0.003 + 0.009 * strength) * min(height, width))
    small = max(1, round(width / side)), max(1, round(height / side))

    def coarsen(picture: Image.Image) -> Image.Image:
        return picture.resize(small, Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)

    return _each_frame(frames, coarsen)


def tint(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:
    """A wrong white balance: one of six colours takes 12 to 32 % of the other light."""
    casts = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1), (1, 0, 1))
    cast = np.array(casts[int(rng.integers(len(casts)))], np.float64)[:, None]
    share = 0.12 + 0.2 * strength
    tones = np.arange(256)[None]
    return _by_tone(frames, tones * (1 - share * (1 - cast)) + 40 * share * cast)


def banding(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:  # noqa: ARG001
    """Posterised to between 7 and 4 levels a channel."""
    steps = round(6 - 2.6 * strength)
    tones = np.rint(np.arange(256) / 255 * steps) / steps * 255
    return _by_tone(frames, np.broadcast_to(tones, (3, 256)))


def overexposure(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:  # noqa: ARG001
    """Burnt out: 10 to 50 % of the picture is white, all else at least 1.3 to 2.1 times as bright."""
    share = 0.1 + 0.4 * strength
    light = frames[:, ::8, ::8].max(axis=-1)
    gain = float(np.clip(255 / max(1.0, float(np.quantile(light, 1 - share))), 1.3 + 0.8 * strength, 12))
    return _by_tone(frames, np.broadcast_to(np.arange(256) * gain + 10 + 30 * strength, (3, 256)))


def smear(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:
    """A smudge, as of a failed repair, over 15 to 40 % of each side where most is to be seen."""
    _, height, width, _ = frames.shape
    reach = 0.15 + 0.25 * strength
    half_y, half_x = max(1, round(height * reach / 2)), max(1, round(width * reach / 2))
    y, x = _busiest(rng, frames[0], half_y, half_x)
    area = slice(y - half_y, y + half_y), slice(x - half_x, x + half_x)
    mask = _soft_ellipse(2 * half_y, 2 * half_x)
    angle, length = rng.uniform(0, np.pi), min(height, width) * reach * 0.3
    step = np.array([np.sin(angle), np.cos(angle)]) * length
    result = frames.copy()
    for index, frame in enumerate(frames):
        patch = frame[area].astype(np.float32)
        result[index][area] = patch + (_dragged(patch, step) - patch) * mask
    return result


def _busiest(rng: np.random.Generator, frame: Pixels, half_y: int, half_x: int) -> tuple[int, int]:
    """Return the middle of one of the eight most detailed places of 12 by 12 that hold the area."""
    height, width = frame.shape[:2]
    grey = np.asarray(Image.fromarray(frame).convert("L"), np.float32)
    detail = np.abs(np.diff(grey, axis=0))[:, 1:] + np.abs(np.diff(grey, axis=1))[1:]
    found = np.asarray(Image.fromarray(detail).resize((12, 12), Image.Resampling.BOX))
    place = int(np.argsort(found, axis=None, kind="stable")[-1 - int(rng.integers(8))])
    row, column = divmod(place, 12)
    y = int(np.clip((row + 0.5) / 12 * height, half_y, height - half_y))
    x = int(np.clip((column + 0.5) / 12 * width, half_x, width - half_x))
    return y, x


def _soft_ellipse(height: int, width: int) -> NDArray[np.float32]:
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    mask: NDArray[np.float32] = np.clip((1 - np.hypot(y, x)) / 0.25, 0, 1).astype(np.float32)[..., None]
    return mask


def _dragged(patch: NDArray[np.float32], step: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the mean of 24 copies of ``patch`` along ``step``, in pixels, its border repeated."""
    room = int(np.ceil(np.abs(step).max())) + 1
    wide = np.pad(patch, ((room, room), (room, room), (0, 0)), mode="edge")
    total = np.zeros(patch.shape, np.float32)
    for part in np.linspace(-0.5, 0.5, 24):
        y, x = (room + np.rint(step * part)).astype(int)
        total += wide[y : y + patch.shape[0], x : x + patch.shape[1]]
    return total / np.float32(24)


def stutter(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:
    """Frames dropped, the one before shown instead: 2 to 7 alike in a row, with moves between."""
    longest = 3 + round(4 * strength)
    shown: list[int] = []
    while len(shown) < len(frames):
        hold = int(rng.integers(max(2, longest - 2), longest + 1))
        shown += [len(shown)] * hold + [len(shown) + hold] * int(rng.integers(0, 2))
    return frames[shown[: len(frames)]]


def shuffle(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:
    """Frames out of order, 2 to 5 places away."""
    reach = 2 + round(3 * strength)
    return frames[np.argsort(np.arange(len(frames)) + rng.uniform(0, reach + 1, len(frames)), kind="stable")]


def flicker(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:
    """Light that changes from frame to frame by 8 to 32 %."""
    depth = 0.08 + 0.24 * strength
    turns = depth * rng.uniform(0.4, 1.0, len(frames)) * rng.choice([-1, 1], len(frames))
    curves = [np.broadcast_to(np.arange(256) * (1 + turn) + 60 * turn, (3, 256)) for turn in turns]
    return np.concatenate([_by_tone(frames[i : i + 1], curve) for i, curve in enumerate(curves)])


def ghosting(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:  # noqa: ARG001
    """What moves leaves ghosts: 60 to 84 % of each frame is what was shown before."""
    kept = np.float32(0.6 + 0.24 * strength)
    shown = frames[0].astype(np.float32)
    result = np.empty_like(frames)
    for index, frame in enumerate(frames):
        shown += (frame - shown) * (1 - kept)
        result[index] = np.rint(shown)
    return result


def freeze(rng: np.random.Generator, frames: Frames, strength: float) -> Frames:
    """The picture stands still for 35 to 80 % of the time."""
    count = len(frames)
    length = round(count * (0.35 + 0.45 * strength))
    start = int(rng.integers(0, max(1, count - length + 1)))
    shown = np.arange(count)
    shown[start : start + length] = start
    return frames[shown]


KINDS: Mapping[str, Degradation] = {
    "blur": blur,
    "noise": noise,
    "blocking": blocking,
    "pixelation": pixelation,
    "tint": tint,
    "banding": banding,
    "overexposure": overexposure,
    "smear": smear,
    "stutter": stutter,
    "shuffle": shuffle,
    "flicker": flicker,
    "ghosting": ghosting,
    "freeze": freeze,
}
"""Kind -> what it does to pixels; from stutter on, only to videos. Each takes a strength in (0, 1]."""
