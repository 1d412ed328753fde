"""What .github/SECURITY.md says is refused, is."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline import media
from pipeline.errors import ConfigError, MediaError, StorageError
from pipeline.storage import open_store, read_uri


@pytest.mark.parametrize(
    "uri",
    [
        "s3://KEY:hunter2@bucket/run",
        "s3://bucket/run?X-Amz-Signature=hunter2",
        "https://user:hunter2@host/pool.jsonl",
        "https://host/pool.jsonl?sig=hunter2/x",
        "ftp://user:hunter2@host/pool",
    ],
)
def test_an_address_with_a_secret_is_refused_and_not_repeated(uri: str) -> None:
    for take in (open_store, read_uri):
        with pytest.raises(ConfigError) as caught:
            take(uri)
        assert "hunter2" not in str(caught.value)
        assert "credentials" in str(caught.value)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "a@b?c"))
    assert store.put("key", b"data")
    assert read_uri(f"{tmp_path}/a@b?c/key") == b"data"


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../outside"])
def test_a_key_does_not_leave_the_store(key: str, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"))
    for take in (store.get, store.delete, store.size, lambda key: store.put(key, b"")):
        with pytest.raises(StorageError, match="leaves the store"):
            take(key)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP", "WEBP"])
def test_other_image_formats_are_refused(kind: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, kind)
    with pytest.raises(MediaError, match="not a JPEG"):
        media.decode(buffer.getvalue(), "image/jpeg")


def video(frames: int, container: str = "mp4", **options: str) -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=options) as file:
        stream = file.add_stream("libx264", rate=8, options={"preset": "ultrafast", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for _ in range(frames):
            pixels = np.zeros((180, 320, 3), np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())
    return buffer.getvalue()


def test_a_video_longer_than_its_header_says_is_not_decoded_to_the_end() -> None:
    """The header of a fragmented MP4 promises no frame at all."""
    data = video(120, movflags="frag_keyframe+empty_moov")
    tracemalloc.start()
    with pytest.raises(MediaError, match="its header says"):
        media.decode(data, "video/mp4")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 320 * 180 * 3


def test_a_video_that_promises_too_many_pixels_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(12)
    assert media.decode(data, "video/mp4").shape == (12, 180, 320, 3)
    monkeypatch.setattr("pipeline.media.video.MAX_VIDEO_PIXELS", 11 * 180 * 320)
    with pytest.raises(MediaError, match="refused"):
        media.probe(data, "video/mp4")


def test_other_containers_are_refused() -> None:
    with pytest.raises(MediaError, match="not a readable MP4"):
        media.probe(video(2, "matroska"), "video/mp4")
