"""Real fonts, line breaking, and text as antialiased masks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.errors import ItemError
from pipeline.generators.scene.brush import Canvas, Colour, blend

FONTS = (
    "font_fredoka_one/FredokaOne-Regular.ttf",
    "font_roboto/Roboto-Black.ttf",
    "font_roboto/Roboto-Bold.ttf",
    "font_source_serif_pro/SourceSerifPro-Bold.otf",
    "font_source_sans_pro/SourceSansPro-Bold.ttf",
    "font_caladea/Caladea-Bold.ttf",
    "font_manrope/Manrope-ExtraBold.ttf",
)
"""Package and file of every font; all are OFL 1.1 or Apache-2.0.

Source Serif Pro as .otf: the kerning table of its .ttf pushes the percent sign into the next word.
"""

_MEASURED = 100
"""Size in pixels at which lines are measured before they are scaled to fit."""


@dataclass(frozen=True, slots=True)
class Block:
    """Lines of text in one font and size; width and height of the block in pixels."""

    lines: tuple[str, ...]
    font: str
    size: int
    width: int
    height: int


def pick(rng: np.random.Generator, text: str) -> str:
    """Return a font that has every letter of ``text``. Raises ItemError if none has."""
    fonts = [font for font in FONTS if _covers(font, "".join(sorted(set(text) - set(" \n\t"))))]
    if not fonts:
        raise ItemError(f"no packaged font has every letter of {text[:40]!r}: use Latin text")
    return fonts[int(rng.integers(len(fonts)))]


def fit(text: str, font: str, width: float, height: float, largest: float) -> Block:
    """Break ``text`` into the lines that can be set largest inside width x height pixels."""
    words = text.split()
    counts = range(1, min(6, len(words)) + 1)
    blocks = [_block(tuple(_wrapped(words, n)), font, width, height, largest) for n in counts]
    return max(blocks, key=lambda block: block.size)


def mask(block: Block) -> NDArray[np.uint8]:
    """Return the centred lines as coverage [height, width]."""
    face = _face(block.font, block.size)
    ascent = face.getmetrics()[0]
    drawn = Image.new("L", (block.width, block.height))
    pen = ImageDraw.Draw(drawn)
    for row, line in enumerate(block.lines):
        left, _, right, _ = face.getbbox(line, anchor="ls")
        baseline = row * block.height / len(block.lines) + ascent
        pen.text(((block.width - left - right) / 2, baseline), line, font=face, fill=255, anchor="ls")
    return np.asarray(drawn)


def write(canvas: Canvas, block: Block, x: float, y: float, colour: Colour) -> None:
    """Write a block with its middle at (x, y); what leaves the canvas is cut off."""
    left, top = round(x - block.width / 2), round(y - block.height / 2)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(canvas.shape[1], left + block.width), min(canvas.shape[0], top + block.height)
    if x0 < x1 and y0 < y1:
        cover = mask(block)[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.float32) / np.float32(255)
        blend(canvas[y0:y1, x0:x1], np.array(colour, np.float32), cover)


def _block(lines: tuple[str, ...], font: str, width: float, height: float, largest: float) -> Block:
    wide, tall = _extent(lines, _face(font, _MEASURED))
    size = max(6, int(min(width / wide * _MEASURED, height / tall * _MEASURED, largest)))
    wide, tall = _extent(lines, _face(font, size))
    return Block(lines, font, size, wide, tall)


def _extent(lines: tuple[str, ...], face: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """Return width and height in pixels that hold all ink of the lines."""
    inks = [face.getbbox(line, anchor="ls") for line in lines]
    wide = max(right - left for left, _, right, _ in inks)
    # Some letters hang a little below what the font says.
    return int(wide) + 4, math.ceil(sum(face.getmetrics()) * 1.08) * len(lines)


def _wrapped(words: list[str], count: int) -> list[str]:
    """Break words into about ``count`` lines of even length."""
    target = sum(len(word) + 1 for word in words) / count
    lines: list[str] = []
    line = ""
    for word in words:
        if line and len(lines) < count - 1 and len(line) + len(word) / 2 >= target:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line]


@lru_cache(maxsize=256)
def _face(font: str, size: int) -> ImageFont.FreeTypeFont:
    package, _, name = font.partition("/")
    # Basic layout: the same line whether or not libraqm is installed.
    return ImageFont.truetype(
        str(files(package) / "files" / name), size, layout_engine=ImageFont.Layout.BASIC
    )


@lru_cache(maxsize=4096)
def _covers(font: str, letters: str) -> bool:
    face = _face(font, 40)
    return all(bytes(face.getmask(letter)) != _missing(font) for letter in letters)


@cache
def _missing(font: str) -> bytes:
    """Return what the font draws for a letter that it lacks."""
    return bytes(_face(font, 40).getmask("\uffff"))
