"""Text measures see wrong, missing, faint, cut and stray lettering."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw, ImageFont

from pipeline.judges.measures import text
from pipeline.media.frames import Frames
from pipeline.records import Attribute, Checks

Measure = Callable[[Frames, Checks], float | None]
MEASURES: tuple[Measure, ...] = (text.spelling, text.legibility, text.layout)
WANTED = Checks(attributes=(Attribute(name="lettering", value="blue"),), text="Harbour Market")
BLUE = (38, 84, 200)
PANEL = (246, 242, 230)


def draw(
    lines: tuple[str, ...] = ("Harbour", "Market"),
    ink: tuple[int, int, int] = BLUE,
    shift: int = 0,
    stray: tuple[str, ...] = (),
) -> Frames:
    """Letter a panel in the middle of a grey wall."""
    path = files("font_roboto") / "files" / "Roboto-Bold.ttf"
    picture = Image.new("RGB", (1024, 1024), (168, 176, 182))
    panel = Image.new("RGB", (720, 440), PANEL)
    pen = ImageDraw.Draw(panel)
    for row, line in enumerate(lines):
        at = (360 + shift, 440 * (row + 0.5) / len(lines))
        pen.text(at, line, ink, ImageFont.truetype(str(path), 130), anchor="mm")
    picture.paste(panel, (152, 260))
    for row, word in enumerate(stray):
        at = (260 + 420 * (row % 2), 120 if row < 2 else 880)
        ImageDraw.Draw(picture).text(at, word, (28, 28, 32), ImageFont.truetype(str(path), 64), anchor="mm")
    return np.asarray(picture)[None]


def score(measure: Measure, frames: Frames) -> float:
    found = measure(frames, WANTED)
    assert found is not None
    return found


@pytest.mark.parametrize("measure", MEASURES)
def test_lettering_as_asked_has_no_fault(measure: Measure) -> None:
    assert score(measure, draw()) == 0


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    "flawed",
    [
        pytest.param(draw(("Horboor", "Warkot")), id="misspelt"),
        pytest.param(draw(("Hrbur", "Mrkt")), id="letters missing"),
        pytest.param(draw(ink=(204, 210, 224)), id="faint"),
        pytest.param(draw(shift=250), id="cut off"),
        pytest.param(draw(stray=("IGEFU", "ACUBI", "ODABE")), id="stray words"),
        pytest.param(draw(()), id="empty panel"),
    ],
)
def test_every_flaw_is_a_fault(measure: Measure, flawed: Frames) -> None:
    assert score(measure, flawed) <= -0.3


@pytest.mark.parametrize("measure", [text.spelling, text.legibility])
def test_one_wrong_letter_is_a_fault_and_two_are_worse(measure: Measure) -> None:
    right, one, two = (score(measure, draw((word, "Market"))) for word in ("Harbour", "Harbeur", "Hirbeur"))
    assert right > one + 0.2 > two + 0.2


@pytest.mark.parametrize("measure", MEASURES)
def test_fainter_is_worse(measure: Measure) -> None:
    shares = (0.5, 0.7, 0.9)
    inks = [tuple(round(b + (p - b) * s) for b, p in zip(BLUE, PANEL, strict=True)) for s in shares]
    scores = [score(measure, draw(ink=(ink[0], ink[1], ink[2]))) for ink in inks]
    assert scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize("measure", MEASURES)
def test_without_wanted_text_nothing_is_measured(measure: Measure) -> None:
    assert measure(draw(), Checks()) is None


def test_without_an_even_panel_lettering_is_not_taken_apart() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 512, 512, 3), np.uint8)
    assert text.legibility(noise, WANTED) is None
    assert text.layout(noise, WANTED) is None


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_edits_are_a_distance(first: str, second: str) -> None:
    found = text.edits(first, second)
    assert found == text.edits(second, first)
    assert (found == 0) == (first == second)
    assert abs(len(first) - len(second)) <= found <= max(len(first), len(second))


@pytest.mark.parametrize("measure", [text.legibility, text.layout])
@settings(max_examples=8, deadline=None)
@given(height=st.integers(2, 600), width=st.integers(2, 600), shade=st.integers(0, 255))
def test_any_picture_can_be_measured(measure: Measure, height: int, width: int, shade: int) -> None:
    flat = np.full((1, height, width, 3), shade, np.uint8)
    flat[:, height // 3 :, width // 2 :] = 255 - shade
    found = measure(flat, WANTED)
    assert found is None or np.isfinite(found)
