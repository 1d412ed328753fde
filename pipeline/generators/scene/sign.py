"""Pictures with lettering: the literal text of a prompt on its carrier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ItemError
from pipeline.generators.base import Request
from pipeline.generators.scene import lettering
from pipeline.generators.scene.backdrop import background, desk, wall
from pipeline.generators.scene.brush import Canvas, Colour, glow, lighter, mix, polygon, rounded, stroke
from pipeline.generators.scene.layout import Box
from pipeline.generators.scene.scenery import mentions
from pipeline.media.symbols import COLOURS
from pipeline.records import Checks, Defect

_VOWELS, _CONSONANTS = "aeiou", "bcdfghjklmnprstvwz"
_LONGEST = 120


@dataclass(frozen=True, slots=True)
class Carrier:
    """What the text stands on: its box as shares of the frame, and how it is drawn."""

    words: str
    box: tuple[float, float, float, float]
    place: str
    frame: Callable[[Canvas, Box, Colour, float], None]


def _board(canvas: Canvas, box: Box, colour: Colour, unit: float) -> None:
    """A framed board on two chains."""
    for share in (0.2, 0.8):
        x = box.x0 + box.width * share
        stroke(canvas, [(x, -5), (x, box.y0)], (96, 92, 90), 7 * unit)
    edge = 18 * unit
    polygon(
        canvas,
        rounded(box.x0 - edge, box.y0 - edge, box.width + 2 * edge, box.height + 2 * edge, 30 * unit),
        (120, 92, 66),
    )
    polygon(canvas, rounded(box.x0, box.y0, box.width, box.height, 18 * unit), colour)


def _sheet(canvas: Canvas, box: Box, colour: Colour, unit: float) -> None:
    """A paper poster with a thin inner rule."""
    polygon(canvas, rounded(box.x0, box.y0, box.width, box.height, 4 * unit), colour)
    inset = 22 * unit
    rule = rounded(box.x0 + inset, box.y0 + inset, box.width - 2 * inset, box.height - 2 * inset, 4 * unit)
    stroke(canvas, rule, mix(colour, (128, 128, 128), 0.35), 3 * unit, closed=True)


def _cover(canvas: Canvas, box: Box, colour: Colour, unit: float) -> None:
    """A book: page edges, cover and a darker spine."""
    pages = rounded(box.x0 + 14 * unit, box.y0 + 14 * unit, box.width, box.height, 10 * unit)
    polygon(canvas, pages, (236, 230, 214))
    polygon(canvas, rounded(box.x0, box.y0, box.width, box.height, 10 * unit), colour)
    polygon(canvas, rounded(box.x0, box.y0, 34 * unit, box.height, 10 * unit), lighter(colour, -0.22))


def _plate(canvas: Canvas, box: Box, colour: Colour, unit: float) -> None:
    """A smooth plate with a light rim, on a post."""
    x = (box.x0 + box.x1) / 2
    stroke(canvas, [(x, box.y1), (x, canvas.shape[0] + 5)], (128, 130, 134), 26 * unit)
    polygon(
        canvas,
        rounded(
            box.x0 - 10 * unit, box.y0 - 10 * unit, box.width + 20 * unit, box.height + 20 * unit, 46 * unit
        ),
        (238, 238, 236),
    )
    polygon(canvas, rounded(box.x0, box.y0, box.width, box.height, 38 * unit), colour)


_CARRIERS = (
    Carrier(
        "cover label ticket card stamp sleeve note tag envelope invitation matchbox tin box menu "
        "book journal album letter",
        (0.2, 0.14, 0.8, 0.86), "desk", _cover,
    ),
    Carrier(
        "poster flyer banner paper print canvas mural wall shirt placard plaque tile flag stone "
        "badge door advertisement bag",
        (0.14, 0.16, 0.86, 0.82), "wall", _sheet,
    ),
    Carrier(
        "road street billboard traffic trail park bus railway airport signpost scoreboard garden "
        "boat lifebuoy surfboard finish",
        (0.11, 0.2, 0.89, 0.66), "hills", _plate,
    ),
)  # fmt: skip
_HANGING = Carrier("", (0.12, 0.24, 0.88, 0.72), "street", _board)
"""A board in the street, for all other carriers."""


def kinds(checks: Checks) -> frozenset[str]:
    """Return what can go wrong with this text."""
    letters = sum(character.isalnum() for character in checks.text or "")
    always = ("faint_text", "cropped_text", "stray_text")
    return frozenset(always + ("misspelt",) * (letters > 0) + ("missing_letters",) * (letters > 1))


def draw(
    request: Request, defects: tuple[Defect, ...], looks: np.random.Generator, errors: np.random.Generator
) -> tuple[Canvas, tuple[Defect, ...]]:
    """Draw the text of a prompt on its carrier. Raises ItemError for no text or letters no font has."""
    checks = request.prompt.checks
    text = " ".join((checks.text or "").split())
    if not text or len(text) > _LONGEST:
        raise ItemError(f"a text of {len(text)} letters cannot be drawn: give 1 to {_LONGEST} in checks.text")
    font = lettering.pick(looks, text)
    severity = {defect.kind: defect.severity for defect in defects}
    canvas, box, panel = _carrier(request, looks)
    block = lettering.fit(text, font, box.width * 0.84, box.height * 0.80, 250 / 1024 * min(canvas.shape[:2]))
    wrong, done = _misspelt(errors, text, severity)
    if wrong != text:
        block = lettering.fit(wrong, font, box.width * 0.84, box.height * 0.80, block.size)
    ink = _ink(checks, panel)
    if "faint_text" in severity:
        ink = mix(ink, panel, 0.40 + 0.50 * severity["faint_text"])
    _write(errors, canvas, block, box, ink, severity)
    done |= {
        kind: severity[kind] for kind in ("faint_text", "cropped_text", "stray_text") if kind in severity
    }
    return canvas, tuple(Defect(kind=kind, severity=value) for kind, value in done.items())


def _carrier(request: Request, rng: np.random.Generator) -> tuple[Canvas, Box, Colour]:
    """Draw the setting and the empty carrier; return where the text goes and the colour behind it."""
    checks, width, height = request.prompt.checks, request.size.width, request.size.height
    named = checks.attribute("carrier") or request.prompt.subject
    carrier = next((c for c in _CARRIERS if mentions(named, c.words)), _HANGING)
    unit = min(width, height) / 1024
    x0, y0, x1, y1 = carrier.box
    dx, dy = float(rng.uniform(-0.03, 0.03)) * width, float(rng.uniform(-0.03, 0.03)) * height
    box = Box(x0 * width + dx, y0 * height + dy, x1 * width + dx, y1 * height + dy)
    canvas = _setting(request, rng, carrier)
    panel = _panel(rng, checks)
    glow(
        canvas, (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2 + 30 * unit, box.width * 0.72, (20, 20, 26), 0.4
    )
    carrier.frame(canvas, box, panel, unit)
    return canvas, box, panel


def _setting(request: Request, rng: np.random.Generator, carrier: Carrier) -> Canvas:
    checks, width, height = request.prompt.checks, request.size.width, request.size.height
    if carrier.place == "desk":
        return desk(rng, width, height)
    if carrier.place == "wall":
        return wall(rng, width, height)
    style = checks.attribute("style") or request.prompt.style
    light, place = checks.attribute("light") or "", checks.attribute("place") or carrier.place
    return background(rng, style, light, place, width, height)


_PANELS: tuple[Colour, ...] = (
    (246, 242, 230), (250, 250, 248), (236, 240, 244), (248, 236, 214),
    (34, 44, 62), (38, 50, 46), (50, 40, 48), (40, 40, 44),
)  # fmt: skip


def _panel(rng: np.random.Generator, checks: Checks) -> Colour:
    """Return a light panel for dark lettering and a dark one for light lettering."""
    wanted = COLOURS.get(checks.attribute("lettering") or "")
    light = rng.random() < 0.6 if wanted is None else _luminance(wanted) < 110
    return _PANELS[int(rng.integers(4)) + (0 if light else 4)]


def _ink(checks: Checks, panel: Colour) -> Colour:
    light = _luminance(panel) > 128
    return COLOURS.get(checks.attribute("lettering") or "", (30, 32, 40) if light else (246, 240, 222))


def _luminance(colour: Colour) -> float:
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]


def _misspelt(
    rng: np.random.Generator, text: str, severity: dict[str, float]
) -> tuple[str, dict[str, float]]:
    """Change and drop letters; the real severities follow the share of letters hit."""
    done = {}
    for kind, change in (("misspelt", _other), ("missing_letters", _nothing)):
        if kind in severity:
            places = [index for index, character in enumerate(text) if character.isalnum()]
            wanted = round((severity[kind] - 0.25) / 2 * len(places) + 0.49)
            hit = min(max(1, wanted), max(1, len(places) - 1))
            chosen = set(rng.choice(places, size=hit, replace=False).tolist())
            text = "".join(change(rng, c) if i in chosen else c for i, c in enumerate(text))
            done[kind] = round(min(1.0, 0.25 + 2 * hit / len(places)), 3)
    return " ".join(text.split()), done


def _other(rng: np.random.Generator, character: str) -> str:
    """Return another letter or digit of the same kind and case."""
    low = character.lower()
    pool = "0123456789" if low.isdigit() else _VOWELS if low in _VOWELS else _CONSONANTS
    other = [c for c in pool if c != low][int(rng.integers(len(pool) - (low in pool)))]
    return other.upper() if character.isupper() else other


def _nothing(rng: np.random.Generator, character: str) -> str:
    del rng, character
    return ""


def _write(
    rng: np.random.Generator,
    canvas: Canvas,
    block: lettering.Block,
    box: Box,
    ink: Colour,
    severity: dict[str, float],
) -> None:
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    if "cropped_text" in severity:
        lost = (0.08 + 0.42 * severity["cropped_text"]) * block.width
        x = box.x0 + block.width / 2 - lost if rng.random() < 0.5 else box.x1 - block.width / 2 + lost
    x0, y0, x1, y1 = (round(side) for side in (box.x0, box.y0, box.x1, box.y1))
    lettering.write(canvas[y0:y1, x0:x1], block, x - x0, y - y0, ink)
    if "stray_text" in severity:
        _stray(rng, canvas, block.font, box, severity["stray_text"])


def _stray(rng: np.random.Generator, canvas: Canvas, font: str, box: Box, severity: float) -> None:
    """Write gibberish words above and below the carrier."""
    height, width = canvas.shape[:2]
    tallest = (40 + 40 * severity) * min(width, height) / 1024
    slots = rng.permutation(6)[: 1 + round(4 * severity)].tolist()
    for slot in slots:
        letters = rng.integers(5, size=int(rng.integers(4, 8))).tolist()
        word = "".join((_CONSONANTS if i % 2 else _VOWELS)[n] for i, n in enumerate(letters)).upper()
        middle, room = (box.y0 / 2, box.y0) if slot < 3 else ((box.y1 + height) / 2, height - box.y1)
        block = lettering.fit(word, font, width * 0.27, room * 0.7, tallest)
        x = width * (0.19 + 0.31 * (slot % 3))
        behind = canvas[round(middle) - 8 : round(middle) + 8, round(x) - 8 : round(x) + 8]
        lettering.write(canvas, block, x, middle, (28, 28, 32) if behind.mean() > 110 else (250, 248, 240))
