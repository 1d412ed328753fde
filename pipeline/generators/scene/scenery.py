"""Places drawn in layers of flat colour, paler with distance."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.generators.scene.brush import Canvas, Colour, ellipse, gradient, lighter, mix, muted, polygon

HORIZON = 0.64
"""Where the horizon lies, as a share of the height."""


def mentions(text: str, words: str) -> bool:
    """Tell whether a word of ``text`` begins with one of ``words``, which are parted by spaces."""
    starts = tuple(words.split())
    return any(word.startswith(starts) for word in re.findall("[a-z0-9]+", text.lower()))


@dataclass(frozen=True, slots=True)
class Light:
    """Sky from top to horizon, what the land is tinted with, and the sun or moon if one shows."""

    words: str
    sky: tuple[Colour, ...]
    land: Colour
    lamp: Colour | None = None


Draw = Callable[[np.random.Generator, Canvas, Light], None]


@dataclass(frozen=True, slots=True)
class Scenery:
    """How a kind of place is drawn, and the colour of its ground in plain light."""

    words: str
    draw: Draw
    ground: Colour
    indoors: bool = False


def scenery(place: str) -> Scenery:
    """Return the first kind of place with a word that ``place`` contains; hills for all others."""
    return next((kind for kind in _PLACES if mentions(place, kind.words)), _ANYWHERE)


def _ridge(
    rng: np.random.Generator, width: int, base: float, swing: float, waves: float
) -> NDArray[np.float64]:
    """Return the outline [n, 2] of rolling land, in pixels."""
    x = np.linspace(0, width, 96)
    y = np.zeros_like(x)
    for octave in range(3):
        phase = float(rng.uniform(0, 2 * np.pi))
        y += np.sin(x / width * 2 * np.pi * waves * 1.9**octave + phase) / 2.2**octave
    return np.stack([x, base - swing * (y / 1.6 + 0.5)], axis=1)


def _land(canvas: Canvas, outline: NDArray[np.float64], colour: Colour) -> None:
    height, width = canvas.shape[:2]
    polygon(canvas, np.concatenate([outline, [(width + 1, height + 1), (-1, height + 1)]]), colour)


def _hills(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    height, width = canvas.shape[:2]
    for depth, base in zip((0.72, 0.48, 0.24, 0.0), (0.62, 0.66, 0.74, 0.86), strict=True):
        colour = mix(lit.land, lit.sky[-1], depth)
        _land(canvas, _ridge(rng, width, height * base, height * 0.07, 0.8 + depth), colour)


def _mountains(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    height, width = canvas.shape[:2]
    for depth, top in ((0.66, 0.30), (0.42, 0.42)):
        colour = mix(mix(lit.land, (112, 120, 140), 0.4), lit.sky[-1], depth)
        x = np.linspace(-0.1, 1.1, 9) * width + rng.uniform(-0.04, 0.04, 9) * width
        high = np.where(np.arange(9) % 2 == 0, 0.60, top) + rng.uniform(-0.05, 0.05, 9)
        _land(canvas, np.stack([x, high * height], axis=1), colour)
    _land(canvas, _ridge(rng, width, height * 0.68, height * 0.05, 0.9), mix(lit.land, lit.sky[-1], 0.2))
    _land(canvas, _ridge(rng, width, height * 0.82, height * 0.06, 0.7), lit.land)


def _sea(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    height, width = canvas.shape[:2]
    top = round(height * HORIZON)
    water = mix(mix(lit.sky[0], (96, 138, 150), 0.45), lit.sky[-1], 0.15)
    canvas[top:] = gradient(width, height - top, (mix(water, lit.sky[-1], 0.4), lighter(water, -0.08)))
    for row in np.linspace(0.68, 0.84, 6):
        y = height * row
        for _ in range(3):
            x, long = float(rng.uniform(0, width)), width * float(rng.uniform(0.04, 0.12))
            ellipse(canvas, x, y, long, height * 0.0022, lighter(water, 0.22))
    _land(canvas, _ridge(rng, width, height * 0.92, height * 0.04, 0.5), mix((214, 202, 178), lit.land, 0.3))


def _city(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    height, width = canvas.shape[:2]
    for depth, low, high in ((0.62, 0.20, 0.36), (0.38, 0.10, 0.26)):
        colour = mix(mix(lit.land, (120, 122, 134), 0.5), lit.sky[-1], depth)
        x = 0.0
        while x < width:
            wide = width * float(rng.uniform(0.05, 0.11))
            top = height * (HORIZON - float(rng.uniform(low, high)))
            polygon(canvas, [(x, top), (x + wide, top), (x + wide, height), (x, height)], colour)
            _windows(rng, canvas, x, top, wide, lighter(colour, 0.16))
            x += wide + width * float(rng.uniform(0, 0.012))
    ground = mix((150, 150, 152), lit.land, 0.4)
    polygon(canvas, [(0, height * 0.70), (width, height * 0.70), (width, height), (0, height)], ground)


def _windows(
    rng: np.random.Generator, canvas: Canvas, x: float, top: float, wide: float, colour: Colour
) -> None:
    step = max(6.0, wide / 4)
    for row in np.arange(top + step, canvas.shape[0] * 0.68, step * 1.4):
        for column in np.arange(x + step * 0.6, x + wide - step * 0.6, step):
            if rng.random() < 0.7:
                cv2.rectangle(
                    canvas,
                    (int(column), int(row)),
                    (int(column + step * 0.45), int(row + step * 0.6)),
                    colour,
                    -1,
                )


def _forest(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    height, width = canvas.shape[:2]
    for depth, base, tall in ((0.6, 0.66, 0.26), (0.36, 0.72, 0.30)):
        colour = mix(mix(lit.land, (96, 122, 104), 0.5), lit.sky[-1], depth)
        _land(canvas, _ridge(rng, width, height * base, height * 0.03, 1.0), colour)
        for x in np.arange(0, width, width * 0.055):
            _fir(canvas, float(x + rng.uniform(0, width * 0.03)), height * base, height * tall, rng, colour)
    _land(canvas, _ridge(rng, width, height * 0.84, height * 0.05, 0.7), lit.land)


def _fir(
    canvas: Canvas, x: float, foot: float, tall: float, rng: np.random.Generator, colour: Colour
) -> None:
    tall *= float(rng.uniform(0.6, 1.0))
    for low, high, wide in ((0.0, 0.55, 0.20), (0.28, 0.80, 0.15), (0.55, 1.0, 0.10)):
        base, top = foot - tall * low, foot - tall * high
        polygon(canvas, [(x - tall * wide, base), (x, top), (x + tall * wide, base)], colour)


def _dunes(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    height, width = canvas.shape[:2]
    sand = mix((206, 180, 146), lit.land, 0.3)
    for depth, base in ((0.5, 0.66), (0.25, 0.74), (0.0, 0.86)):
        colour = mix(sand, lit.sky[-1], depth)
        _land(canvas, _ridge(rng, width, height * base, height * 0.08, 0.6 + depth), colour)


def _snow(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    white = Light("", lit.sky, mix((226, 232, 238), lit.land, 0.22), lit.lamp)
    _mountains(rng, canvas, white)


def _room(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    height, width = canvas.shape[:2]
    wall = muted(mix(lit.land, (226, 218, 206), 0.6), 0.3)
    edge = round(height * 0.72)
    canvas[:edge] = gradient(width, edge, (lighter(wall, -0.08), lighter(wall, 0.15)))
    canvas[edge:] = gradient(width, height - edge, (lighter(wall, -0.30), lighter(wall, -0.18)))
    polygon(canvas, [(0, edge), (width, edge), (width, edge * 1.015), (0, edge * 1.015)], lighter(wall, 0.4))
    x, y = width * float(rng.uniform(0.08, 0.62)), height * 0.12
    w, h = width * 0.28, height * 0.34
    polygon(canvas, [(x, y), (x + w, y), (x + w, y + h), (x, y + h)], lighter(wall, 0.55))
    pane = gradient(round(w * 0.9), round(h * 0.9), lit.sky)
    px, py = round(x + w * 0.05), round(y + h * 0.05)
    canvas[py : py + pane.shape[0], px : px + pane.shape[1]] = pane
    bar = lighter(wall, 0.55)
    canvas[py : py + pane.shape[0], round(x + w * 0.485) : round(x + w * 0.515)] = bar


def _field(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    """Rows of a crop that run to one point on the horizon."""
    _hills(rng, canvas, lit)
    height, width = canvas.shape[:2]
    top = height * 0.70
    crop = mix(_CROPS[int(rng.integers(len(_CROPS)))], lit.land, 0.4)
    polygon(canvas, [(0, top), (width, top), (width, height), (0, height)], lighter(crop, -0.12))
    middle = width * float(rng.uniform(0.3, 0.7))
    for row in np.linspace(-3.2, 3.2, 19):
        x, wide = middle + row * width, width * 0.09
        far = middle + row * width * 0.07
        polygon(canvas, [(far - 2, top), (far + 2, top), (x + wide, height), (x - wide, height)], crop)


_CROPS: tuple[Colour, ...] = ((186, 178, 120), (168, 156, 188), (160, 180, 132), (206, 190, 132))

_PLACES = (
    Scenery("snow snowy ice frozen arctic glacier tundra salt", _snow, (226, 232, 238)),
    Scenery(
        "sea beach shore lake river harbour pier canal sandbank mangrove ocean coast island waterfall",
        _sea,
        (150, 184, 190),
    ),
    Scenery("desert dune canyon volcanic savanna", _dunes, (214, 190, 156)),
    Scenery("mountain ridge cliff valley ravine peak", _mountains, (158, 172, 150)),
    Scenery(
        "city street square alley boulevard rooftop bridge town fairground market car canal",
        _city,
        (178, 178, 180),
    ),
    Scenery(
        "table counter cushion windowsill sheet rug floor shelf piano room ballroom classroom attic "
        "library study kitchen workshop studio greenhouse theatre hall gallery warehouse cellar cave "
        "stairwell cafe shop lobby laboratory cabin corridor shed barn observatory wall backdrop",
        _room,
        (188, 164, 138),
        indoors=True,
    ),
    Scenery("field meadow rice vineyard pitch road terraced lavender cornfield", _field, (176, 182, 138)),
    Scenery("forest wood grove orchard garden park jungle", _forest, (150, 172, 140)),
)
_ANYWHERE = Scenery("", _hills, (164, 182, 146))
