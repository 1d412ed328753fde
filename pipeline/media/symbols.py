"""The vocabulary shared by prompts, the embedded renderer and the embedded judges.

Prompts name these objects and colours, the ``scene`` renderer draws them, measured judges look for
them. Silhouettes come from the Font Awesome Free solid font (SIL OFL 1.1, which leaves what is drawn
with it free); only glyphs of one connected piece are used, so that a count of pieces is a count of
objects.
"""

from __future__ import annotations

from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (243, 132, 22),
    "yellow": (246, 205, 36),
    "green": (46, 150, 65),
    "teal": (20, 160, 165),
    "blue": (38, 84, 200),
    "purple": (122, 48, 160),
    "pink": (240, 110, 170),
    "brown": (121, 74, 38),
    "black": (28, 28, 30),
}
"""Colour name -> sRGB."""

_GLYPHS: dict[str, tuple[str, int]] = {
    "anchor": ("anchors", 0xF13D),
    "bicycle": ("bicycles", 0xF206),
    "bone": ("bones", 0xF5D7),
    "book": ("books", 0xF02D),
    "bowling ball": ("bowling balls", 0xF436),
    "bread slice": ("bread slices", 0xF7EC),
    "bridge": ("bridges", 0xE4C8),
    "bus": ("buses", 0xF207),
    "camera": ("cameras", 0xF083),
    "candy cane": ("candy canes", 0xF786),
    "car": ("cars", 0xF5E4),
    "clock": ("clocks", 0xF017),
    "cloud": ("clouds", 0xF0C2),
    "clover": ("clovers", 0xE139),
    "cookie": ("cookies", 0xF564),
    "cow": ("cows", 0xF6C8),
    "crow": ("crows", 0xF520),
    "crown": ("crowns", 0xF521),
    "egg": ("eggs", 0xF7FB),
    "fan": ("fans", 0xF863),
    "feather": ("feathers", 0xF52D),
    "fish": ("fish", 0xF578),
    "flag": ("flags", 0xF024),
    "flame": ("flames", 0xF06D),
    "flask": ("flasks", 0xF0C3),
    "frog": ("frogs", 0xF52E),
    "gear": ("gears", 0xF013),
    "gemstone": ("gemstones", 0xF3A5),
    "ghost": ("ghosts", 0xF6E2),
    "guitar": ("guitars", 0xF7A6),
    "headset": ("headsets", 0xF025),
    "heart": ("hearts", 0xF004),
    "hippo": ("hippos", 0xF6ED),
    "horse": ("horses", 0xF6F0),
    "hourglass": ("hourglasses", 0xF254),
    "house": ("houses", 0xF015),
    "key": ("keys", 0xF084),
    "kiwi bird": ("kiwi birds", 0xF535),
    "leaf": ("leaves", 0xF06C),
    "lemon": ("lemons", 0xF094),
    "lightning bolt": ("lightning bolts", 0xF0E7),
    "mask": ("masks", 0xF6FA),
    "moon": ("moons", 0xF186),
    "padlock": ("padlocks", 0xF023),
    "plane": ("planes", 0xF072),
    "puzzle piece": ("puzzle pieces", 0xF12E),
    "rocket": ("rockets", 0xF135),
    "satellite": ("satellites", 0xF7BF),
    "shield": ("shields", 0xF132),
    "shirt": ("shirts", 0xF553),
    "skull": ("skulls", 0xF54C),
    "snowflake": ("snowflakes", 0xF2DC),
    "snowman": ("snowmen", 0xF7D0),
    "spider": ("spiders", 0xF717),
    "spoon": ("spoons", 0xF2E5),
    "star": ("stars", 0xF005),
    "stethoscope": ("stethoscopes", 0xF0F1),
    "telephone": ("telephones", 0xF095),
    "tent": ("tents", 0xE57D),
    "tooth": ("teeth", 0xF5C9),
    "traffic light": ("traffic lights", 0xF637),
    "train": ("trains", 0xF239),
    "tree": ("trees", 0xF1BB),
    "trophy": ("trophies", 0xF091),
    "trowel": ("trowels", 0xE589),
    "truck": ("trucks", 0xF0D1),
    "van": ("vans", 0xF5B6),
    "wine bottle": ("wine bottles", 0xF72F),
    "wrench": ("wrenches", 0xF0AD),
}

OBJECTS: dict[str, str] = {name: plural for name, (plural, _) in _GLYPHS.items()}
"""Object name -> plural."""


@lru_cache(maxsize=512)
def silhouette(name: str, height: int) -> NDArray[np.uint8]:
    """Return the antialiased mask [height, width] of an object, cut to its ink; 255 is inside.

    Raises KeyError for a name that is not in OBJECTS. The array is shared: do not write to it.
    """
    font = ImageFont.truetype(_font(), height * 2)
    character = chr(_GLYPHS[name][1])
    left, top, right, bottom = font.getbbox(character)
    drawn = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(drawn).text((-left, -top), character, font=font, fill=255)
    width = max(1, round(drawn.width * height / drawn.height))
    mask = np.asarray(drawn.resize((width, height), Image.Resampling.LANCZOS))
    mask.setflags(write=False)
    return mask


@cache
def _font() -> str:
    return str(files("fontawesomefree") / "static/fontawesomefree/webfonts/fa-solid-900.ttf")
