"""H.264 in MP4, yuv420p, through PyAV: no ffmpeg binary needed, and equal frames give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.errors import MediaError
from pipeline.media.frames import MAX_FRAMES, MAX_PIXELS, Frames, Probe

MIME = "video/mp4"

# One thread: x264's output depends on the number of threads, and workers already fill the cores.
ENCODER = {"preset": "veryfast", "crf": "17", "threads": "1"}

MACROBLOCK = 16
"""Sides that are not multiples of this are padded by x264, and its adaptive quantisation was seen to
look at what lay in that memory before: other bytes from call to call. It is switched off for them."""


def encode(frames: Frames, fps: int) -> bytes:
    """Encode [frames, height, width, 3] with even sides at ``fps`` frames a second. Raises MediaError."""
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("libx264", rate=fps, options=_options(*frames.shape[1:3]))
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(f"cannot encode {frames.shape} as H.264 ({error}): sides must be even") from error
    return buffer.getvalue()


def _options(height: int, width: int) -> dict[str, str]:
    padded = height % MACROBLOCK or width % MACROBLOCK
    return {**ENCODER, "aq-mode": "0"} if padded else ENCODER


def decode(data: bytes) -> Frames:
    """Decode every frame to [frames, height, width, 3]. Raises MediaError, also for a cut file."""
    with _open(data) as (container, stream):
        expected = _probe(stream)
        pixels = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        if len(pixels) != expected.frames:
            raise MediaError(f"video has {len(pixels)} frames, its header says {expected.frames}: damaged")
        return np.stack(pixels)


def probe(data: bytes) -> Probe:
    """Read size, length and rate from the header. Raises MediaError."""
    with _open(data) as (_, stream):
        return _probe(stream)


@contextmanager
def _open(data: bytes) -> Iterator[tuple[InputContainer, VideoStream]]:
    try:
        with av.open(io.BytesIO(data), format="mp4") as container:
            if not isinstance(container, InputContainer) or not container.streams.video:
                raise MediaError("file holds no video stream: generate it again")
            yield container, container.streams.video[0]
    except av.error.FFmpegError as error:
        raise MediaError(f"{len(data)} bytes are not a readable MP4 ({error}): generate it again") from error


def _probe(stream: VideoStream) -> Probe:
    found = Probe(
        width=stream.width,
        height=stream.height,
        frames=stream.frames,
        fps=round(stream.average_rate or 0),
    )
    if found.width * found.height > MAX_PIXELS or found.frames > MAX_FRAMES:
        raise MediaError(f"video promises {found}, over {MAX_PIXELS} pixels or {MAX_FRAMES} frames: refused")
    return found
