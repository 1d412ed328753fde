"""Does the picture hold the text that the prompt asks for: right, whole, legible and nothing else?

Three ways. ``spelling`` lets OCR find and read all text, and compares strings. ``legibility`` finds the
panel and its ink by colour, and asks a recogniser how well the wanted text explains it. ``layout`` reads
nothing: it sets the wanted text in known fonts and compares ink with ink, column by column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import rapidocr
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.judges.measures import sign, vision
from pipeline.media import symbols
from pipeline.media.frames import Frames
from pipeline.records import Checks

SIDE = 1024
OCR_SIDE = 512


def spelling(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults in what OCR reads; None where no text is wanted."""
    wanted = _plain(checks.text)
    if not wanted:
        return None
    pixels = vision.shrink(frames, OCR_SIDE)
    read = _reader()(pixels[..., ::-1].copy())
    if not read.txts:
        return -2.0
    lines = _lines(read)
    first, last, wrong = _best_run(lines, wanted)
    run = [box for row in lines[first:last] for box, _ in row]
    corners = np.concatenate(run)
    off_centre = abs(float(corners[:, 0].min() + corners[:, 0].max()) / 2 / pixels.shape[1] - 0.5) > 0.07
    letters = _letter_faults(wrong / len(wanted), off_centre)
    strays = sum(len(text.split()) for row in lines[:first] + lines[last:] for _, text in row)
    paper, ink = _colours(pixels, max(run, key=lambda box: float(np.ptp(box[:, 0]))))
    return -letters - _other_faults(_faintness(paper, ink, checks), strays)


def legibility(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults in how the wanted text explains the ink; None without text or panel."""
    wanted = _plain(checks.text)
    pixels = vision.shrink(frames, SIDE)
    found = sign.find(pixels) if wanted else None
    if found is None:
        return None
    if not found.lines:
        return -2.0
    chances = np.concatenate([_chances(line) for line in found.lines])
    wrong = _surprise(chances, wanted) / -math.log(FLOOR)
    # Half a letter at each cut is seen, but cannot be read.
    share = (wrong - 0.5 * len(found.lines) * found.cut) / len(wanted)
    return -_sign_faults(pixels, found, share, checks)


def layout(frames: Frames, checks: Checks) -> float | None:
    """Return minus the faults in how the ink fits the wanted text once set; None as above, or too long."""
    words = (checks.text or "").split()
    pixels = vision.shrink(frames, SIDE)
    found = sign.find(pixels) if words else None
    if found is None or math.comb(len(words), len(found.lines)) > MOST_BREAKS:
        return None
    if not found.lines:
        return -2.0
    return -_sign_faults(pixels, found, _misfit(found.lines, words), checks)


def _sign_faults(pixels: vision.Pixels, found: sign.Sign, share: float, checks: Checks) -> float:
    faintness = _faintness(found.paper, found.ink, checks)
    return _letter_faults(share, found.cut) + _other_faults(faintness, sign.strays(pixels, found.panel))


def _letter_faults(share: float, cut: bool) -> float:
    """Judge the share of letters that are wrong or missing, or that a ``cut`` line has lost."""
    if cut:
        return min(1.5, max(0.3, (share - 0.08) / 0.42))
    return min(1.75, 0.25 + 2 * share) if share > 0.02 else 0.0


def _other_faults(faintness: float, strays: int) -> float:
    """Judge faint ink and stray words."""
    faint = min(1.0, (faintness - 0.4) / 0.5) if faintness > 0.5 else 0.0
    return faint + (min(1.0, max(0.3, (strays - 1) / 4)) if strays else 0.0)


def _faintness(paper: NDArray[np.float32], ink: NDArray[np.float32], checks: Checks) -> float:
    """Return the share of contrast that is missing between RGB ``paper`` and ``ink``."""
    dark = float(paper.mean()) < 128
    usual = (246, 240, 222) if dark else (30, 32, 40)
    full = np.array(symbols.COLOURS.get(checks.attribute("lettering") or "", usual), np.float32) - paper
    return 1 - float(np.clip((ink - paper) @ full / max(float(full @ full), 1.0), 0, 1))


def _plain(text: str | None) -> str:
    return "".join((text or "").casefold().split())


# Reading with OCR.

Row = list[tuple[NDArray[np.float32], str]]


def _lines(read: Any) -> list[Row]:
    """Return what was read as rows from top to bottom of (box, text) from left to right."""
    boxes = sorted(zip(read.boxes, read.txts, strict=True), key=lambda item: float(item[0][:, 1].mean()))
    rows: list[Row] = []
    for box, text in boxes:
        last = rows[-1][-1][0] if rows else None
        if last is not None and float(box[:, 1].mean()) < float(last[:, 1].mean()) + 0.4 * float(
            np.ptp(last[:, 1])
        ):
            rows[-1].append((box, text))
        else:
            rows.append([(box, text)])
    return [sorted(row, key=lambda item: float(item[0][:, 0].min())) for row in rows]


def _best_run(lines: Sequence[Row], wanted: str) -> tuple[int, int, int]:
    """Return the run of lines [first, last) nearest to the wanted text, and its edits."""
    texts = [_plain("".join(text for _, text in row)) for row in lines]
    runs = [(a, b) for a in range(len(lines)) for b in range(a + 1, len(lines) + 1)]
    scored = [(edits(wanted, "".join(texts[a:b])[: 2 * len(wanted) + 9]), a, b) for a, b in runs]
    fewest, first, last = min(scored)
    return first, last, fewest


def edits(wanted: str, found: str) -> int:
    """Return the Levenshtein distance."""
    row = list(range(len(found) + 1))
    for i, want in enumerate(wanted, start=1):
        above, row[0] = row[0], i
        for j, have in enumerate(found, start=1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (want != have))
    return row[-1]


def _colours(
    pixels: vision.Pixels, box: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the RGB of paper and ink in a box: the commonest colour, and what differs most."""
    x0, y0 = np.maximum(box.min(axis=0), 0).astype(int)
    x1, y1 = np.ceil(box.max(axis=0)).astype(int)
    inside = pixels[y0:y1, x0:x1].reshape(-1, 3).astype(np.float32)
    rim = np.concatenate(
        [pixels[y0 : y0 + 2, x0:x1].reshape(-1, 3), pixels[y1 - 2 : y1, x0:x1].reshape(-1, 3)]
    )
    paper = np.asarray(np.median(rim, axis=0), np.float32)
    contrast = np.abs(inside - paper).max(axis=1)
    return paper, np.asarray(np.median(inside[contrast >= np.quantile(contrast, 0.9)], axis=0), np.float32)


@cache
def _reader() -> Any:
    return rapidocr.RapidOCR(
        params={
            "Global.use_cls": False,
            "Global.log_level": "error",
            "Det.limit_side_len": 480,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


# How well a text explains what the recogniser sees.

FLOOR = 1e-6
"""Least chance of a class; so a wrong letter costs a text at most -log(FLOOR), and hardly less."""


@cache
def _recogniser() -> tuple[onnxruntime.InferenceSession, dict[str, int]]:
    """Return the recogniser and its alphabet; class 0 is the CTC blank, the last one a space."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = Path(rapidocr.__file__).parent / "models/PP-OCRv6_rec_small.onnx"
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    characters = session.get_modelmeta().custom_metadata_map["character"].split("\n")
    return session, {character: index for index, character in enumerate(characters, start=1)}


def _chances(line: sign.Line) -> NDArray[np.float32]:
    """Return the chance of every class at every step along a line of ink, [steps, classes]."""
    pad = max(4, line.mask.shape[0] // 6)
    ink = cv2.GaussianBlur(np.pad(255 - line.mask, pad, constant_values=255), (3, 3), 0)
    width = max(48, round(ink.shape[1] * 48 / ink.shape[0]))
    small = cv2.resize(ink, (width, 48), interpolation=cv2.INTER_AREA).astype(np.float32)
    batch = np.repeat((small / 127.5 - 1)[None, None], 3, axis=1)
    session, _ = _recogniser()
    return np.asarray(session.run(None, {session.get_inputs()[0].name: batch})[0][0], np.float32)


def _surprise(chances: NDArray[np.float32], wanted: str) -> float:
    """Return by how many nats the wanted text is less likely than the likeliest."""
    _, alphabet = _recogniser()
    letters = [letter for letter in wanted if letter in alphabet or letter.upper() in alphabet]
    blank = np.maximum(chances[:, 0], chances[:, -1])
    columns = [blank]
    for letter in letters:
        forms = sorted({alphabet[form] for form in (letter, letter.upper()) if form in alphabet})
        columns += [chances[:, forms].max(axis=1), blank]
    steps = np.log(np.maximum(np.stack(columns, axis=1), FLOOR))
    best = np.log(np.maximum(chances.max(axis=1), FLOOR)).sum()
    return float(best - _likeliest_path(steps, letters))


def _likeliest_path(steps: NDArray[np.float32], letters: Sequence[str]) -> float:
    """Return the log chance of the best CTC path through [steps, blank letter blank letter ... blank]."""
    skips = np.full(steps.shape[1], -np.inf)
    skips[[2 * i + 1 for i in range(1, len(letters)) if letters[i] != letters[i - 1]]] = 0.0
    score = np.full(steps.shape[1], -np.inf)
    score[:2] = steps[0, :2]
    for step in steps[1:]:
        one = np.concatenate([[-np.inf], score[:-1]])
        two = np.concatenate([[-np.inf, -np.inf], score[:-2]]) + skips
        score = np.maximum(np.maximum(score, one), two) + step
    return float(score[-2:].max())


# How well the wanted text, once set, covers the ink.

FONTS = (
    "font_fredoka_one/FredokaOne-Regular.ttf",
    "font_roboto/Roboto-Black.ttf",
    "font_roboto/Roboto-Bold.ttf",
    "font_source_serif_pro/SourceSerifPro-Bold.ttf",
    "font_source_sans_pro/SourceSansPro-Bold.ttf",
    "font_caladea/Caladea-Bold.ttf",
    "font_manrope/Manrope-ExtraBold.ttf",
)
"""Package and file of fonts of several kinds; lettering in another font fits less, on both sides alike."""

TALL = 20
"""Height in pixels at which lines of ink are compared."""

MOST_BREAKS = 1000
"""Ways to break a text into lines beyond which it is not set."""

FIT, UNFIT = 0.078, 0.27
"""Difference of ink, as a share, of a text that is right and of one wholly wrong."""


def _misfit(lines: Sequence[sign.Line], words: Sequence[str]) -> float:
    """Return the share of the text that does not fit the ink, in the font and breaks that fit best."""
    seen = [_levelled(line.mask) for line in lines]
    widths = np.array([line.shape[1] for line in seen], float)
    if len(words) < len(lines):
        return 1.0
    best = min(_difference(seen, font, _fitting(font, words, widths)) for font in FONTS)
    return float(np.clip((best - FIT) / (UNFIT - FIT), 0, 1))


def _fitting(font: str, words: Sequence[str], widths: NDArray[np.float64]) -> tuple[str, ...]:
    """Return the words in as many lines as seen, broken so that the widths of the lines fit best."""
    broken = []
    for cuts in combinations(range(1, len(words)), len(widths) - 1):
        ends = (0, *cuts, len(words))
        texts = tuple(" ".join(words[a:b]) for a, b in pairwise(ends))
        wide = np.array([_ink_width(font, text) for text in texts])
        broken.append((float(np.abs(np.log(wide / wide.sum() * widths.sum() / widths)).sum()), texts))
    return min(broken)[1]


def _difference(seen: Sequence[NDArray[np.float32]], font: str, broken: Sequence[str]) -> float:
    """Return the mean difference of ink along the lines, from 0 to 1."""
    wanted = [_levelled(_set(font, text)) for text in broken]
    columns = sum(int(line.shape[1]) for line in wanted)
    return sum(_warped(want, have) for want, have in zip(wanted, seen, strict=True)) / columns


def _levelled(mask: vision.Mask) -> NDArray[np.float32]:
    """Scale a line of ink to the common height: [TALL, width], 0 to 1."""
    width = max(4, round(mask.shape[1] * TALL / mask.shape[0]))
    small = cv2.resize(mask, (width, TALL), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(small, (3, 3), 0), np.float32) / np.float32(255)


def _warped(wanted: NDArray[np.float32], seen: NDArray[np.float32]) -> float:
    """Return the summed difference of columns along the best dynamic time warping."""
    costs = np.abs(wanted.T[:, None] - seen.T[None]).mean(axis=-1)
    total = np.cumsum(costs[0])
    for cost in costs[1:]:
        reached = np.minimum(total, np.concatenate([[np.inf], total[:-1]]))
        run = np.cumsum(cost)
        # Staying in this row adds the run of costs: the cheapest way in is a running minimum.
        total = run + np.minimum.accumulate(reached - run + cost)
    return float(total[-1])


@cache
def _font(name: str) -> ImageFont.FreeTypeFont:
    package, _, file = name.partition("/")
    return ImageFont.truetype(str(files(package) / "files" / file), 40, layout_engine=ImageFont.Layout.BASIC)


def _ink_width(font: str, text: str) -> float:
    """Return width over height of the ink of a line of text."""
    left, top, right, bottom = _font(font).getbbox(text)
    return max(1.0, right - left) / max(1.0, bottom - top)


def _set(font: str, text: str) -> vision.Mask:
    """Draw a line of text, cut to its ink."""
    left, top, right, bottom = _font(font).getbbox(text)
    drawn = Image.new("L", (max(1, int(right - left)), max(1, int(bottom - top))))
    ImageDraw.Draw(drawn).text((-left, -top), text, font=_font(font), fill=255)
    return np.asarray(drawn)
