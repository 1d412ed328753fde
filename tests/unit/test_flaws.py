"""Useless media are named for what they are; plain, dark, pale and slow ones are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw, ImageFilter

from pipeline import media
from pipeline.media.flaws import flaw
from pipeline.media.frames import Frames

SIDE = 192
SEEDS = st.integers(0, 2**32 - 1)
COLOURS = st.tuples(*[st.integers(0, 255)] * 3)


def plain(colour: tuple[int, ...], frames: int = 1) -> Frames:
    return np.full((frames, SIDE, SIDE, 3), colour, np.uint8)


def scene(seed: int, low: float, high: float) -> Frames:
    """A smooth random picture with tones between ``low`` and ``high``, as [1, height, width, 3]."""
    noise = np.random.default_rng(seed).random((8, 8, 3))
    smooth = Image.fromarray((noise * 255).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    pixels = np.asarray(smooth, np.float32)
    pixels = (pixels - pixels.min()) / np.ptp(pixels)
    toned: Frames = (low + pixels * (high - low)).round().astype(np.uint8)[None]
    return toned


def with_dot(colour: tuple[int, ...], ink: tuple[int, ...], at: tuple[int, int], size: int) -> Frames:
    picture = Image.new("RGB", (SIDE, SIDE), colour)
    ImageDraw.Draw(picture).ellipse((*at, at[0] + size, at[1] + size), fill=ink)
    return np.asarray(picture)[None]


@given(COLOURS, SEEDS)
def test_an_image_of_one_colour_is_useless_and_so_it_is_with_a_trace_of_noise(
    colour: tuple[int, ...], seed: int
) -> None:
    noise = np.random.default_rng(seed).integers(-2, 3, (1, SIDE, SIDE, 3))
    noisy = np.clip(plain(colour) + noise, 0, 255).astype(np.uint8)
    assert flaw(plain(colour)) == ("one colour: every pixel" if any(colour) else "black: every pixel")
    assert flaw(noisy) is not None


def test_what_half_precision_makes_of_nan_is_black() -> None:
    decoded = np.full((1, 64, 64, 3), np.nan, np.float32)
    pixels = (np.nan_to_num(decoded, nan=0.0) * 255).astype(np.uint8)
    assert flaw(pixels) == "black: every pixel"


@given(SEEDS, st.floats(0, 12), st.floats(10, 30))
def test_dark_scenes_are_no_flaw(seed: int, darkest: float, contrast: float) -> None:
    assert flaw(scene(seed, darkest, darkest + contrast)) is None


@given(SEEDS, st.floats(10, 30))
def test_snow_and_fog_are_no_flaw(seed: int, contrast: float) -> None:
    assert flaw(scene(seed, 255 - contrast, 255)) is None


@given(SEEDS, st.integers(1, 6))
def test_a_black_sky_with_few_stars_is_no_flaw(seed: int, stars: int) -> None:
    sky = plain((0, 0, 0))
    for y, x in np.random.default_rng(seed).integers(0, SIDE, (stars, 2)):
        sky[0, y, x] = 200
    assert flaw(sky) is None


@given(COLOURS, st.integers(0, SIDE - 12), st.integers(0, SIDE - 12))
def test_a_dot_on_a_plain_ground_is_no_flaw(colour: tuple[int, ...], x: int, y: int) -> None:
    ink = tuple((value + 20) % 256 for value in colour)
    assert flaw(with_dot(colour, ink, (x, y), 8)) is None


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_any_picture_is_judged_without_error(grey: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    found = flaw(np.repeat(grey[None, :, :, None], 3, axis=3))
    assert (found is None) == (int(grey.max()) - int(grey.min()) > 6)


@pytest.mark.parametrize("shape", [(0, 64, 64, 3), (1, 0, 64, 3), (5, 64, 0, 3)])
def test_nothing_at_all_is_named(shape: tuple[int, ...]) -> None:
    assert str(flaw(np.zeros(shape, np.uint8))).startswith("empty: ")


@given(SEEDS, st.integers(2, 12))
def test_a_video_that_repeats_one_frame_is_frozen_and_so_it_is_with_a_decoders_flicker(
    seed: int, count: int
) -> None:
    still = np.repeat(scene(seed, 20, 220), count, axis=0)
    flicker = np.random.default_rng(seed).integers(-3, 4, still.shape)
    assert flaw(still) == f"frozen: {count} frames show the same"
    assert flaw((still + flicker).astype(np.uint8)) == f"frozen: {count} frames show the same"


def test_a_frozen_video_is_found_after_encoding_too() -> None:
    still = np.repeat(scene(1, 20, 220), 17, axis=0)
    noise = np.random.default_rng(1).normal(0, 2, still.shape)
    encoded = media.encode((still + noise).astype(np.uint8), fps=16)
    assert flaw(media.decode(encoded.data, encoded.mime)) == "frozen: 17 frames show the same"


@given(SEEDS)
@settings(max_examples=10)
def test_slow_motion_is_no_flaw(seed: int) -> None:
    """Two pixels in all seventeen frames."""
    large = np.asarray(Image.fromarray(scene(seed, 20, 220)[0]).resize((SIDE * 4, SIDE * 4)))
    frames = [
        np.asarray(Image.fromarray(large[:, i // 2 : i // 2 + 640]).resize((160, 192))) for i in range(17)
    ]
    assert flaw(np.stack(frames)) is None


@given(COLOURS, st.integers(16, 33))
@settings(max_examples=15)
def test_a_small_thing_that_moves_on_a_plain_ground_is_no_flaw(colour: tuple[int, ...], count: int) -> None:
    ink = tuple((value + 40) % 256 for value in colour)
    frames = [with_dot(colour, ink, (20 + index, 90), 8)[0] for index in range(count)]
    assert flaw(np.stack(frames)) is None


@given(st.integers(3, 20), st.data())
@settings(max_examples=15)
def test_one_frame_that_differs_is_motion(count: int, data: st.DataObject) -> None:
    frames = np.repeat(scene(3, 20, 220), count, axis=0)
    frames[data.draw(st.integers(0, count - 1))] = scene(4, 20, 220)[0]
    assert flaw(frames) is None


def test_a_slow_fade_is_motion() -> None:
    frames = [scene(2, 20, 100 + index)[0] for index in range(17)]
    assert flaw(np.stack(frames)) is None


def test_a_video_that_is_mostly_black_is_useless_and_a_fade_from_black_is_not() -> None:
    moving = np.stack([scene(seed, 20, 220)[0] for seed in range(10)])
    moving[:4] = 0
    assert flaw(moving) is None
    moving[4:6] = 0
    assert flaw(moving) == "one colour: 6 of 10 frames"
    assert flaw(plain((0, 0, 0), frames=10)) == "black: 10 of 10 frames"


def test_a_blurred_picture_is_left_to_the_judges() -> None:
    picture = Image.fromarray(scene(5, 0, 255)[0]).filter(ImageFilter.GaussianBlur(30))
    assert flaw(np.asarray(picture)[None]) is None
