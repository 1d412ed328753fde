"""No-reference picture quality: noise, blur, exposure, banding and muddy colours, each estimated three ways.

Every measure adds up faults on one scale, 0.25 just noticeable to 1 blatant, and returns their negative sum.
``pixels`` looks at neighbourhoods and percentiles, ``spectrum`` at frequencies and ratios of scales,
``information`` at what is left to see: residuals, detail, tones. Constants were set on pictures of known
quality; a style that is dark, soft or grey by intent is the same on both sides of a pair and cancels.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.frames import Frames
from pipeline.records import Checks

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]

cv2.setNumThreads(1)

_SIZE = 512


def pixels(frames: Frames, checks: Checks) -> float | None:
    """Score by Laplacian noise, width of edges, percentiles of light, lone tones, colourfulness."""
    del checks
    small = _small(frames)
    light = _light(small)
    noise = _fault((_laplacian_noise(_light(frames[0])) - 3) / 24)
    blur = _fault((_edge_width(light) - 1.0) / 3.5)
    high, middle = float(np.percentile(light, 99)), float(light.mean())
    dark = _fault((_stops(203, high) - 0.2) / 1.7)
    bright = _fault((float((light >= 250).mean()) - 0.01) * 1.2, 0.5) + _fault((middle - 203) / 50, 0.6)
    alone, apart = _isolated(frames[0])
    banding = _fault((alone - 0.4) / 0.3, 1.0) * _fault((14 - 255 / apart) / 11, 1.0)
    # Exposure scales colourfulness too, and mud leaves no clean lights: undo the one, ask for the other.
    vivid = _colourfulness(small) * 215 / max(high, 1.0) / _saturation(small)[0]
    mud = _fault(0.8 * _stops(210, vivid), 1.2) * _fault((222 - high) / 12, 1.0)
    return -(noise + blur + dark + bright + banding + mud)


def spectrum(frames: Frames, checks: Checks) -> float | None:
    """Score by the finest wavelet band, edges at two scales, mean light, periods in the tones, saturation."""
    del checks
    small = _small(frames)
    light = _light(small)
    noise = _fault((_finest_band(_light(frames[0])) - 4) / 25)
    blur = _fault((_blur_radius(light) - 0.9) / 3.6)
    middle = float(light.mean())
    exposure = _fault(_stops(148, middle) / 1.7) + _fault((middle - 198) / 45, 1.0)
    regularity, levels = _tone_period(frames[0])
    banding = _fault((14 - levels) / 11) * _fault((regularity - 0.65) / 0.2, 1.0)
    mean, peak = _saturation(small)
    mud = _fault(0.8 * _stops(2.9, peak / mean), 1.2)
    return -(noise + blur + exposure + banding + mud)


def information(frames: Frames, checks: Checks) -> float | None:
    """Score by what a median filter removes, fine detail left, contrast, entropy of tones, spread of hues."""
    del checks
    small = _small(frames)
    light = _light(small)
    median = cv2.medianBlur(small, 5)
    removed = np.abs(small.astype(np.float32) - median).mean(2)
    noise = _fault((float(np.median(_averaged(removed))) - 1.8) / 14.5)
    blur = _fault((0.42 - _fine_detail(light)) / 0.33)
    contrast = _fault((_stops(24, float(light.std())) - 0.1) * 0.7, 0.8)
    tones = _fault((4.9 - _entropy(_light(np.asarray(median, np.uint8)).astype(np.uint8))) / 2.6)
    vivid = _hue_spread(small) * (170 / max(float(light.mean()), 1.0)) ** 0.7 / _saturation(small)[0]
    mud = _fault(0.9 * _stops(48, vivid), 1.2)
    return -(noise + blur + contrast + tones + mud)


def _fault(value: float, most: float = 1.5) -> float:
    return min(most, max(0.0, value))


def _stops(wanted: float, found: float) -> float:
    """How many times ``found`` must be doubled to reach ``wanted``."""
    return math.log2(wanted / max(found, wanted / 64))


def _small(frames: Frames) -> Bytes:
    """Return the picture at 512 x 512."""
    return np.asarray(cv2.resize(frames[0], (_SIZE, _SIZE), interpolation=cv2.INTER_AREA), np.uint8)


def _light(rgb: Bytes) -> Floats:
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)


def _averaged(values: Floats) -> Floats:
    """Average over tiles, 64 x 64 of them."""
    return np.asarray(cv2.resize(values, (64, 64), interpolation=cv2.INTER_AREA), np.float32)


def _gradient(light: Floats, blur: float) -> Floats:
    """Gradient magnitude in levels a pixel, at one scale."""
    soft = cv2.GaussianBlur(light, (0, 0), blur)
    return np.asarray(
        cv2.magnitude(cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)) / 8, np.float32
    )


def _laplacian_noise(light: Floats) -> float:
    """Standard deviation of noise after Immerkaer (1996), in the calmest fifth of the picture."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    response = _averaged(np.abs(cv2.filter2D(light, -1, kernel)))
    return float(np.percentile(response, 20)) * math.sqrt(math.pi / 2) / 6


def _finest_band(light: Floats) -> float:
    """Standard deviation of noise after Donoho: the median of the finest diagonal Haar band."""
    height, width = light.shape[0] // 2 * 2, light.shape[1] // 2 * 2
    even, odd = light[0:height:2], light[1:height:2]
    band = (even[:, 0:width:2] - odd[:, 0:width:2] - even[:, 1:width:2] + odd[:, 1:width:2]) / 2
    return float(np.median(np.abs(band))) / 0.6745


def _edge_width(light: Floats, blur: float = 1.5) -> float:
    """Standard deviation, in pixels, of the blur that would make a step as wide as the crispest edges."""
    gradient = _gradient(light, blur)
    soft = cv2.GaussianBlur(light, (0, 0), blur)
    window = np.ones((29, 29), np.uint8)
    step = cv2.dilate(soft, window) - cv2.erode(soft, window)
    ridge = gradient >= cv2.dilate(gradient, np.ones((3, 3), np.uint8)) - 1e-6
    ridge &= gradient > max(0.5 * float(np.percentile(gradient, 99.5)), 0.3)
    if int(ridge.sum()) < 20:
        return 0.0
    crispness = max(0.01, float(np.percentile(gradient[ridge] / step[ridge], 80)))
    return math.sqrt(max(0.0, 1 / (crispness**2 * 2 * math.pi) - blur**2))


def _blur_radius(light: Floats, fine: float = 1.5, coarse: float = 4.0) -> float:
    """Standard deviation of blur from edges at two scales, after Zhuo and Sim (2011), in pixels."""
    sharp, soft = _gradient(light, fine), _gradient(light, coarse)
    ridge = (sharp >= cv2.dilate(sharp, np.ones((1, 5), np.uint8))) | (
        sharp >= cv2.dilate(sharp, np.ones((5, 1), np.uint8))
    )
    ridge &= soft > max(0.6 * float(np.percentile(soft, 99)), 0.1)
    if int(ridge.sum()) < 30:
        return 0.0
    ratio = max(1.001, float(np.percentile(sharp[ridge] / soft[ridge], 75)))
    return math.sqrt(max(0.0, (coarse**2 - ratio**2 * fine**2) / (ratio**2 - 1)))


def _fine_detail(light: Floats) -> float:
    """Strength of the finest detail next to that of detail four times as coarse."""
    scales = {blur: cv2.GaussianBlur(light, (0, 0), blur) for blur in (1.0, 2.0, 4.0, 8.0)}
    fine = float(np.percentile(np.abs(scales[1.0] - scales[2.0]), 99.3))
    coarse = float(np.percentile(np.abs(scales[4.0] - scales[8.0]), 99.3))
    return fine / (coarse + 0.5)


def _histograms(rgb: Bytes) -> list[NDArray[np.float64]]:
    """Share of every level in each channel, from every other pixel: averaging would fill gaps in."""
    sampled = rgb[::2, ::2]
    counts = [np.bincount(sampled[..., i].ravel(), minlength=256) for i in range(3)]
    return [count / max(1, count.sum()) for count in counts]


def _isolated(rgb: Bytes) -> tuple[float, float]:
    """Return the share of pixels of tones without near neighbours, and how far such tones lie apart."""
    shares, spacings = [], []
    for histogram in _histograms(rgb):
        padded = np.pad(np.convolve(histogram, np.ones(3), "same"), 8)
        around = np.max([padded[8 + step : 264 + step] for step in (-8, -7, -6, 6, 7, 8)], axis=0)
        alone = (around < 0.08 * padded[8:264]) & (histogram > 0.003)
        shares.append(float(histogram[alone].sum()))
        apart = np.diff(np.flatnonzero(alone))
        apart = apart[apart > 5]
        spacings.append(float(np.percentile(apart, 25)) if len(apart) else 255.0)
    return float(np.mean(shares)), float(np.median(spacings))


_LEVELS = np.arange(2.9, 13.01, 0.1)
_WAVES = np.cos(2 * np.pi * np.outer(_LEVELS, np.arange(256)) / 255)


def _tone_period(rgb: Bytes) -> tuple[float, float]:
    """Return how regularly tones are spaced (1: evenly spaced levels only), and the number of steps."""
    found = np.zeros(len(_LEVELS))
    for histogram in _histograms(rgb):
        middle = histogram.copy()
        middle[:6] = middle[250:] = 0  # black and white fit every spacing
        found += _WAVES @ middle / max(0.02, float(middle.sum())) / 3
    best = int(found.argmax())
    return float(found[best]), float(_LEVELS[best])


def _entropy(levels: Bytes) -> float:
    """Bits a pixel."""
    counts = np.bincount(levels.ravel(), minlength=256)
    share = counts[counts > 0] / levels.size
    return float(-(share * np.log2(share)).sum())


def _colourfulness(rgb: Bytes) -> float:
    """Hasler and Suesstrunk (2003)."""
    red, green, blue = (rgb[..., i].astype(np.float32) for i in range(3))
    across, down = red - green, (red + green) / 2 - blue
    return math.hypot(across.std(), down.std()) + 0.3 * math.hypot(across.mean(), down.mean())


def _saturation(rgb: Bytes) -> tuple[float, float]:
    """Mean and peak saturation: mud tints everything and leaves nothing vivid. The mean is at least 0.02."""
    high, low = rgb.max(2).astype(np.float32), rgb.min(2).astype(np.float32)
    saturation = (high - low) / (high + 8)
    return max(0.02, float(saturation.mean())), float(np.percentile(saturation, 99))


def _hue_spread(rgb: Bytes) -> float:
    """Spread of Lab colour that lightness does not explain: a tint grows with light, colours do not."""
    lab = cv2.cvtColor(rgb[::2, ::2].astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, 3)
    centred = lab - lab.mean(0)
    light, colour = centred[:, 0], centred[:, 1:]
    slope = (light @ colour) / max(1e-3, float(light @ light))
    return float(np.sqrt(((colour - light[:, None] * slope) ** 2).sum(1).mean()))
