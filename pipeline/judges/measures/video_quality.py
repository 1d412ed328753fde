"""How good is the picture itself? Minus the faults: noise, softness, blocks, bad exposure, flicker.

Three judges that look at different things: pixels and their neighbours; frequencies; how small patches
vary. They share a currency: 1 is a blatant fault. Sizes in pixels are meant at 720 lines and more.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.frames import Frames
from pipeline.records import Checks

LOOKS = 3
"""Frames that are measured one by one; what counts is the median of their faults."""

SMALLEST = 64
"""Sides below this cannot be measured."""

Grey = NDArray[np.float32]
"""[height, width], 0-255."""

_BLOCK = 8
_WINDOW = 64


def pixels(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen between neighbouring pixels; None for tiny pictures."""
    del checks
    if min(frames.shape[1:3]) < SMALLEST:
        return None
    looks = [_grain(x) + _soft_edges(x) + _steps(x) for x in _greys(frames)]
    light = np.median([np.percentile(frame[::8, ::8].mean(axis=2), 95) for frame in frames]) / 255
    exposure = _over(0.60 - float(light), 0.0, 0.44) + _too_bright(frames)
    means = np.maximum(1.0, frames[:, ::8, ::8].mean(axis=(1, 2, 3)))
    return -(float(np.median(looks)) + exposure + _flicker(np.diff(means) / means.mean()))


def spectrum(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen in the frequencies of space and time; None as above."""
    del checks
    if min(frames.shape[1:3]) < 2 * _WINDOW:
        return None
    looks = [_bands(x) + _comb(x) for x in _greys(frames)]
    means = np.maximum(1.0, frames[:, ::8, ::8].mean(axis=(1, 2, 3)))
    dark = _over(0.5 - float(np.log2(np.median(means) / 85)), 0.0, 2.1)
    swing = (means[:-2] + means[2:] - 2 * means[1:-1]) / 2 / means.mean()
    return -(float(np.median(looks)) + dark + _too_bright(frames) + _flicker(swing))


def patches(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults seen in how small patches vary; None as above."""
    del checks
    if min(frames.shape[1:3]) < SMALLEST:
        return None
    looks = [_restless(x) + _reblurred(x) + _tiles(x) + _few_tones(x) for x in _greys(frames)]
    small = frames[:, 4::8, 4::8].mean(axis=3)
    swings = np.median(np.diff(small, axis=0) / (small.mean() + 1), axis=(1, 2))
    return -(float(np.median(looks)) + _flicker(swings))


def _greys(frames: Frames) -> list[Grey]:
    places = np.linspace(0.1, 0.9, LOOKS) * (len(frames) - 1)
    return [cv2.cvtColor(frames[round(p)], cv2.COLOR_RGB2GRAY).astype(np.float32) for p in places]


def _over(value: float, least: float, full: float) -> float:
    """Return how much of ``full`` the value reaches beyond the ``least`` that counts, 0 to 1.2."""
    return min(1.2, max(0.0, value - least) / full)


def _too_bright(frames: Frames) -> float:
    return _over(float(np.median(frames[:, ::8, ::8].mean(axis=(1, 2, 3)))) / 255, 0.76, 0.23)


def _flicker(swings: NDArray[np.float64]) -> float:
    """Return the fault of brightness that swings by this share of itself from frame to frame."""
    return _over(float(np.median(np.abs(swings))), 0.03, 0.38) if len(swings) else 0.0


# Between neighbouring pixels.


def _grain(x: Grey) -> float:
    """Noise: what is left of flat places and even slopes (Immerkaer), by its median."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    return _over(float(np.median(np.abs(cv2.filter2D(x, cv2.CV_32F, kernel)))) / 4.05, 1.0, 12.7)


def _soft_edges(x: Grey) -> float:
    """Softness: over how many pixels the strongest edges spread."""
    smooth = cv2.GaussianBlur(x, (0, 0), 0.8)
    near, wide = (cv2.morphologyEx(smooth, cv2.MORPH_GRADIENT, np.ones((n, n), np.uint8)) for n in (3, 17))
    crest = (wide > max(12.0, 0.4 * float(np.percentile(wide, 99.5)))) & (
        cv2.dilate(near, np.ones((17, 17))) == near
    )
    if crest.sum() < 20:
        return 0.0
    return _over(1 / max(0.05, float(np.median(near[crest] / wide[crest]))), 1.75, 3.8)


def _steps(x: Grey) -> float:
    """Blocks: how high the steps are that stand alone on the lines of the grid, but not between them."""
    faults = []
    for picture in (x, x.T):
        step = np.abs(np.diff(picture, axis=1))
        grid = np.arange(_BLOCK - 1, step.shape[1] - _BLOCK, _BLOCK)
        on, off = _alone(step, grid), _alone(step, grid + _BLOCK // 2)
        # Grain leaves too few places where a step could stand alone.
        if (
            min(len(on), len(off)) > 0.05 * len(grid) * len(step)
            and (on > 2).mean() > (off > 2).mean() + 0.02
        ):
            faults.append(_over(float(np.median(on[on > 2])), 0.0, 12.0))
    return float(np.mean(faults)) if faults else 0.0


def _alone(step: Grey, lines: NDArray[np.int64]) -> Grey:
    """Return the steps on ``lines`` that have next to none beside them."""
    return np.asarray(step[:, lines][np.maximum(step[:, lines - 1], step[:, lines + 1]) < 1.0], np.float32)


# Frequencies.


def _bands(x: Grey) -> float:
    """Noise lifts the highest band everywhere; softness takes the middle bands from the strongest edges."""
    height, width = (side // _WINDOW * _WINDOW for side in x.shape)
    cut = x[:height, :width].reshape(height // _WINDOW, _WINDOW, width // _WINDOW, _WINDOW)
    taper = np.hanning(_WINDOW).astype(np.float32)
    power = (
        np.abs(np.fft.rfft2(cut.transpose(0, 2, 1, 3).reshape(-1, _WINDOW, _WINDOW) * np.outer(taper, taper)))
        ** 2
    )
    radius = np.hypot(np.fft.fftfreq(_WINDOW)[:, None], np.fft.rfftfreq(_WINDOW)[None])
    low, middle, high, top = (
        power[:, (radius > a) & (radius <= b)].mean(axis=1)
        for a, b in ((0.03, 0.06), (0.06, 0.1), (0.1, 0.15), (0.4, 0.75))
    )
    grain = float(np.sqrt(np.median(top) / (taper**2).sum() ** 2))
    strong = [float(np.log10(np.percentile(band, 95) + 1)) for band in (low, middle, high)]
    mild, heavy = strong[0] - strong[2], strong[0] - strong[1]
    soft = max(min(0.65, _over(mild, 1.85, 3.2)), _over(heavy, 1.1, 1.4))
    return _over(grain, 1.0, 12.7) + soft


def _comb(x: Grey) -> float:
    """Blocks: steps that return every eighth line, as a peak of the profile's spectrum."""
    faults = []
    for picture in (x, x.T):
        profile = np.minimum(np.abs(np.diff(picture, axis=1)), 10).mean(axis=0)
        length = len(profile) // _BLOCK * _BLOCK
        found = np.abs(np.fft.rfft(profile[:length] - profile[:length].mean())) * _BLOCK / length
        peaks = [float(found[length // _BLOCK * k]) for k in (1, 2, 3)]
        faults.append(float(np.mean(peaks)) / (float(profile.mean()) + 0.1))
    return _over(float(np.mean(faults)), 0.35, 2.0)


# Small patches.


def _restless(x: Grey) -> float:
    """Noise: the spread inside the typical patch."""
    mean = cv2.GaussianBlur(x, (0, 0), 7 / 6)
    variance = cv2.GaussianBlur(x * x, (0, 0), 7 / 6) - mean * mean
    return _over(float(np.sqrt(max(0.0, float(np.median(variance))))), 1.1, 12.2)


def _reblurred(x: Grey) -> float:
    """Softness: how little the strongest edges lose when they are blurred by 4 pixels."""
    size = np.ones((9, 9), np.uint8)
    before, after = (
        np.hypot(cv2.Sobel(p, cv2.CV_32F, 1, 0), cv2.Sobel(p, cv2.CV_32F, 0, 1))
        for p in (x, cv2.GaussianBlur(x, (0, 0), 4))
    )
    strong = after > max(4.0, float(np.percentile(after, 99)))
    if strong.sum() < 50:
        return 0.0
    ratio = float(np.median(cv2.dilate(before, size)[strong] / after[strong]))
    return _over(4 / np.sqrt(max(1.05, ratio) ** 2 - 1), 1.2, 2.4)


def _tiles(x: Grey) -> float:
    """Blocks: patches on the grid vary less inside than patches across it."""
    on, across = (_inside(x[start:, start:]) for start in (0, _BLOCK // 2))
    return _over(float(np.log((across.mean() + 0.3) / (on.mean() + 0.3))), 0.13, 0.5)


def _inside(x: Grey) -> NDArray[np.float32]:
    height, width = (side // _BLOCK * _BLOCK for side in x.shape)
    cut = x[:height, :width].reshape(height // _BLOCK, _BLOCK, width // _BLOCK, _BLOCK)
    return np.asarray(cut.std(axis=(1, 3)), np.float32)


def _few_tones(x: Grey) -> float:
    """Bad exposure: tones crowd together (entropy of 64 levels)."""
    share = np.histogram(x, 64, (0, 256))[0] / x.size
    share = share[share > 0]
    return _over(3.9 + float((share * np.log2(share)).sum()), 0.0, 1.5)
