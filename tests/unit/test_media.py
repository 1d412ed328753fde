"""Media: what is encoded decodes to what was given, the same bytes each time, and junk is refused."""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import media
from pipeline.errors import MediaError
from pipeline.media import Encoded, image, video
from pipeline.media.frames import Frames, Probe


def frames(count: int, height: int, width: int, seed: int = 0) -> Frames:
    """Smooth pictures that move a little from frame to frame."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 216, (height // 16, width // 16, 3)).astype(np.uint8)
    still = coarse.repeat(16, 0).repeat(16, 1)
    return np.stack([np.roll(still, 2 * number, axis=1) for number in range(count)])


@cache
def _picture() -> Encoded:
    return media.encode(frames(1, 128, 96), 0)


@cache
def _clip() -> Encoded:
    return media.encode(frames(9, 112, 192), 8)


@pytest.fixture
def picture() -> Encoded:
    return _picture()


@pytest.fixture
def clip() -> Encoded:
    return _clip()


def test_an_image_comes_back_close_to_what_it_was(picture: Encoded) -> None:
    assert picture.probe == Probe(width=96, height=128, frames=1, fps=0)
    decoded = media.decode(picture.data, picture.mime)
    assert np.abs(decoded.astype(int) - frames(1, 128, 96)).mean() < 2


def test_colour_is_not_subsampled() -> None:
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, ::2] = (220, 30, 30)
    stripes[:, :, 1::2] = (30, 30, 220)
    decoded = media.decode(image.encode(stripes), image.MIME)
    assert np.abs(decoded.astype(int) - stripes).mean() < 12  # 4:2:0 blends them to over 60


def test_a_video_comes_back_close_to_what_it_was(clip: Encoded) -> None:
    assert clip.probe == Probe(width=192, height=112, frames=9, fps=8)
    decoded = media.decode(clip.data, clip.mime)
    assert decoded.shape == (9, 112, 192, 3)
    assert np.abs(decoded.astype(int) - frames(9, 112, 192)).mean() < 8


ENCODE = """
from tests.unit.test_media import frames, media
sizes = (112, 192), (176, 320), (128, 208)
for size in sizes:
    print(media.encode(frames(9, *size, seed=3), 8).sha256)
print(media.encode(frames(1, 128, 96), 0).sha256)
"""


def test_equal_frames_give_equal_bytes_whatever_lies_in_memory() -> None:
    seen = set()
    for fill in ("0", "1", "170"):  # what malloc hands out is filled with this byte
        environment = {**os.environ, "MALLOC_PERTURB_": fill}
        command = [sys.executable, "-c", ENCODE]
        seen.add(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert len(seen) == 1


def test_sides_that_h264_cannot_have_are_refused() -> None:
    with pytest.raises(MediaError, match="sides must be even"):
        media.encode(np.zeros((3, 179, 320, 3), np.uint8), 8)


@settings(max_examples=40)
@given(cut=st.floats(0, 0.999), video_cut=st.booleans())
def test_a_cut_file_is_refused_unless_every_frame_is_there(cut: float, video_cut: bool) -> None:
    whole = _clip() if video_cut else _picture()
    try:
        decoded = media.decode(whole.data[: int(len(whole.data) * cut)], whole.mime)
    except MediaError:
        return
    assert np.array_equal(decoded, media.decode(whole.data, whole.mime))


@given(st.binary(max_size=200))
def test_junk_is_refused_in_one_line(junk: bytes) -> None:
    for mime in media.SUFFIX:
        with pytest.raises(MediaError) as caught:
            media.decode(junk, mime)
        assert "\n" not in str(caught.value)


def test_a_header_that_promises_too_much_is_refused_before_decoding(picture: Encoded) -> None:
    at = picture.data.index(b"\xff\xc0") + 5  # start of frame: marker, length, precision, height, width
    bomb = picture.data[:at] + b"\xff\xff\xff\xff" + picture.data[at + 4 :]
    with pytest.raises(MediaError, match="decompression bomb"):
        media.decode(bomb, image.MIME)
    large = picture.data[:at] + (9000).to_bytes(2, "big") * 2 + picture.data[at + 4 :]
    with pytest.raises(MediaError, match="over 64000000 pixels"):
        media.decode(large, image.MIME)


def test_only_known_media_types_have_a_place() -> None:
    assert media.key("ab" * 32, image.MIME) == f"media/ab/{'ab' * 32}.jpg"
    assert media.key("cd" * 32, video.MIME).endswith(".mp4")
    with pytest.raises(MediaError, match="not a known media type"):
        media.key("ab" * 32, "image/png")
