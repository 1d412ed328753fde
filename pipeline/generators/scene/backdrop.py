"""Backgrounds in muted colours, so that the objects in front stand out."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.generators.scene.brush import (
    Canvas,
    Colour,
    ellipse,
    glow,
    gradient,
    lighter,
    mix,
    polygon,
    stroke,
)
from pipeline.generators.scene.scenery import HORIZON, Light, mentions, scenery

_LIGHTS = (
    Light(
        "moonlight starlight night northern",
        ((62, 72, 106), (90, 102, 138), (134, 144, 168)),
        (80, 92, 116),
        (244, 240, 222),
    ),
    Light(
        "neon television",
        ((84, 72, 116), (138, 104, 146), (186, 146, 172)),
        (104, 88, 122),
    ),
    Light(
        "dusk twilight",
        ((112, 128, 168), (160, 164, 192), (212, 196, 200)),
        (112, 120, 142),
        (248, 226, 206),
    ),
    Light(
        "sunset golden evening autumn amber crimson",
        ((150, 142, 176), (212, 172, 170), (247, 210, 172)),
        (150, 128, 122),
        (255, 234, 196),
    ),
    Light(
        "dawn morning sunrise pastel",
        ((178, 190, 216), (222, 210, 216), (248, 228, 210)),
        (154, 166, 154),
        (255, 244, 214),
    ),
    Light(
        "candle fire lamp lantern torch bulb window warm spotlight stained",
        ((200, 180, 156), (222, 204, 180), (240, 226, 204)),
        (168, 144, 122),
    ),
    Light(
        "overcast storm fog diffuse grey winter silver fluorescent low-key",
        ((168, 180, 192), (198, 207, 213), (225, 229, 230)),
        (144, 158, 156),
    ),
    Light(
        "sun day noon clear bright crisp dappled",
        ((154, 194, 220), (194, 218, 230), (234, 240, 234)),
        (152, 178, 142),
        (255, 250, 226),
    ),
)
_UNNAMED = (2, 3, 4, 6, 7)
"""Lights to choose from where a prompt names none."""


def background(
    rng: np.random.Generator,
    style: str,
    light: str,
    place: str,
    width: int,
    height: int,
    level: bool = False,
) -> Canvas:
    """Draw a landscape or room for the words given; unknown or empty words draw something plausible.

    ``level`` lays a flat ground in front, so that the picture has one clear, straight horizon.
    """
    lit = _light(rng, light)
    canvas = gradient(width, round(height * HORIZON), lit.sky)
    canvas = np.concatenate([canvas, gradient(width, height - len(canvas), _ground(lit))])
    _lamp(rng, canvas, lit)
    there = scenery(place)
    there.draw(rng, canvas, lit)
    if level:
        _level_ground(rng, canvas, mix(there.ground, lit.land, 0.45), there.indoors)
    return _textured(rng, _toned(canvas, style), style)


def wall(rng: np.random.Generator, width: int, height: int) -> Canvas:
    """Draw a pale brick wall."""
    brick = _BRICKS[int(rng.integers(len(_BRICKS)))]
    canvas = gradient(width, height, (lighter(brick, 0.12), lighter(brick, -0.06)))
    tall, joint = max(8, height // 18), lighter(brick, 0.30)
    for row, y in enumerate(range(0, height, tall)):
        for x in range(-tall * (row % 2), width, tall * 2):
            shade = lighter(brick, float(rng.uniform(-0.05, 0.07)))
            cv2.rectangle(canvas, (x, y), (x + tall * 2, y + tall), shade, -1)
            cv2.rectangle(canvas, (x, y), (x + tall * 2, y + tall), joint, max(1, tall // 16))
    return canvas


def desk(rng: np.random.Generator, width: int, height: int) -> Canvas:
    """Draw a wooden table top seen from above."""
    wood = _WOODS[int(rng.integers(len(_WOODS)))]
    canvas = gradient(width, height, (lighter(wood, 0.1), lighter(wood, -0.05)))
    edges = np.linspace(0, height, 6)
    for top, bottom in pairwise(edges):
        plank = lighter(wood, float(rng.uniform(-0.05, 0.06)))
        polygon(canvas, [(0, top + 1), (width, top + 1), (width, bottom - 1), (0, bottom - 1)], plank)
        for _ in range(5):
            y = float(rng.uniform(top, bottom))
            x = np.linspace(0, width, 40)
            wave = y + np.sin(x / width * 2 * np.pi + y) * (bottom - top) * 0.06
            stroke(canvas, np.stack([x, wave], axis=1), lighter(plank, -0.05), height / 400)
    return canvas


_BRICKS: tuple[Colour, ...] = ((196, 172, 160), (188, 184, 178), (204, 194, 178), (172, 182, 186))
_WOODS: tuple[Colour, ...] = ((196, 168, 134), (176, 150, 124), (206, 188, 162))


def _level_ground(rng: np.random.Generator, canvas: Canvas, ground: Colour, bare: bool) -> None:
    height, width = canvas.shape[:2]
    top = round(height * HORIZON)
    # Darker than a bright horizon or lighter than a dark one, so that the edge always shows.
    behind = float(canvas[top - max(1, height // 40) : top].mean())
    gap = behind - sum(ground) / 3
    if abs(gap) < 34:
        ground = lighter(ground, -0.2 if behind > 120 else 0.25)
    canvas[top:] = gradient(width, height - top, (ground, lighter(ground, 0.16)))
    for _ in range(0 if bare else 14):
        share = float(rng.uniform(0.1, 1))
        y, long = top + (height - top) * share, width * (0.02 + 0.06 * share)
        x = float(rng.uniform(0, width))
        ellipse(canvas, x, y, long, height * 0.0015 * (1 + 2 * share), lighter(ground, -0.035))


def plain(rng: np.random.Generator, width: int, height: int, tint: Colour = (232, 229, 222)) -> Canvas:
    """Draw a light neutral wall over a floor: any object colour separates from it."""
    wall = lighter(tint, float(rng.uniform(0, 0.25)))
    edge = round(height * float(rng.uniform(0.76, 0.86)))
    floor = mix(wall, (150, 146, 140), 0.16)
    return np.concatenate(
        [
            gradient(width, edge, (lighter(wall, -0.03), lighter(wall, 0.25))),
            gradient(width, height - edge, (floor, lighter(floor, 0.3))),
        ]
    )


def _light(rng: np.random.Generator, words: str) -> Light:
    other = _LIGHTS[_UNNAMED[int(rng.integers(len(_UNNAMED)))]]
    return next((light for light in _LIGHTS if mentions(words, light.words)), other)


def _ground(lit: Light) -> tuple[Colour, Colour]:
    return mix(lit.land, lit.sky[-1], 0.35), lighter(lit.land, -0.06)


def _lamp(rng: np.random.Generator, canvas: Canvas, lit: Light) -> None:
    if lit.lamp is None:
        return
    height, width = canvas.shape[:2]
    x, y = width * float(rng.uniform(0.14, 0.86)), height * float(rng.uniform(0.12, 0.34))
    radius = min(width, height) * float(rng.uniform(0.045, 0.075))
    glow(canvas, x, y, radius * 6, lit.lamp, 0.55)
    ellipse(canvas, x, y, radius, radius, lit.lamp)


_PAPER = "paper watercolo gouache pastel crayon pencil charcoal sketch chalk ink illustration"
_CANVAS = "oil acrylic impression fresco tempera baroque expression canvas paint"


def _toned(canvas: Canvas, style: str) -> Canvas:
    """Give every style its own faint tint, the same for equal words."""
    tint = np.random.Generator(np.random.PCG64(list(style.encode()))).uniform(-9, 9, 3)
    return np.clip(canvas + np.round(tint).astype(np.int16), 0, 255).astype(np.uint8)


def _textured(rng: np.random.Generator, canvas: Canvas, style: str) -> Canvas:
    """Add paper or canvas texture, faint enough not to pass for noise."""
    if mentions(style, _PAPER):
        return _add(canvas, _cloud(rng, canvas, 7, 7) * 4.5)
    if mentions(style, _CANVAS):
        return _add(canvas, _cloud(rng, canvas, 12, 150) * 3)
    return canvas


def _cloud(rng: np.random.Generator, canvas: Canvas, across: int, down: int) -> NDArray[np.float32]:
    """Return smooth variation [height, width] of unit size with ``across`` by ``down`` features."""
    height, width = canvas.shape[:2]
    small = rng.standard_normal((down, across), dtype=np.float32)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)


def _add(canvas: Canvas, change: NDArray[np.float32]) -> Canvas:
    changed = canvas + np.round(change).astype(np.int16)[..., None]
    return np.asarray(np.clip(changed, 0, 255), np.uint8)
