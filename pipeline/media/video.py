"""H.264 in MP4, yuv420p, through PyAV: no ffmpeg binary needed, and equal frames give equal bytes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import islice

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from pipeline.errors import MediaError
from pipeline.media.frames import MAX_FRAMES, MAX_PIXELS, MAX_VIDEO_PIXELS, Frames, Probe

MIME = "video/mp4"

# threads=1: x264's output depends on the number of threads, and workers already fill the cores.
# mbtree=0: x264's macroblock tree reads memory that it never wrote, so that equal frames gave other bytes
# from call to call (seen at 192x112, 320x180, 200x120; tests/unit/test_media.py provokes it).
ENCODER = {"preset": "veryfast", "crf": "18", "x264-params": "mbtree=0", "threads": "1"}


def encode(frames: Frames, fps: int) -> bytes:
    """Encode [frames, height, width, 3] at ``fps`` frames a second; equal frames give equal bytes.

    Raises MediaError, for odd sides among other causes.
    """
    buffer = io.BytesIO()
    try:
        with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
            stream = container.add_stream("libx264", rate=fps, options=ENCODER)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.time_base = stream.codec_context.time_base = Fraction(1, fps)
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(f"cannot encode {frames.shape} as H.264 ({error}): sides must be even") from error
    return buffer.getvalue()


def decode(data: bytes) -> Frames:
    """Decode every frame to [frames, height, width, 3]. Raises MediaError, also for a cut file."""
    with _open(data) as (container, stream):
        expected = _probe(stream)
        # One more than expected tells a lying header; all of them might fill the memory.
        frames = islice(container.decode(stream), expected.frames + 1)
        pixels = [_pixels(frame, expected) for frame in frames]
        if len(pixels) != expected.frames:
            raise MediaError(f"video has {len(pixels)} frames, its header says {expected.frames}: damaged")
        return np.stack(pixels)


def _pixels(frame: av.VideoFrame, expected: Probe) -> Frames:
    """A later frame can bring a size of its own, past all limits."""
    if (frame.width, frame.height) != (expected.width, expected.height):
        raise MediaError(f"video has a frame of {frame.width}x{frame.height} within {expected}: damaged")
    return np.asarray(frame.to_ndarray(format="rgb24"))


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
            stream = container.streams.video[0]
            if stream.codec_context is None:  # a header so torn that not even the codec is known
                raise MediaError("file holds a video stream of no known codec: generate it again")
            yield container, stream
    except av.error.FFmpegError as error:
        raise MediaError(f"{len(data)} bytes are not a readable MP4 ({error}): generate it again") from error


def _probe(stream: VideoStream) -> Probe:
    found = Probe(
        width=stream.width,
        height=stream.height,
        frames=stream.frames,
        fps=round(stream.average_rate or 0),
    )
    pixels = found.width * found.height
    if pixels > MAX_PIXELS or found.frames > MAX_FRAMES or pixels * found.frames > MAX_VIDEO_PIXELS:
        raise MediaError(
            f"video promises {found}, over {MAX_PIXELS} pixels a frame, {MAX_FRAMES} frames, or "
            f"{MAX_VIDEO_PIXELS} pixels in all: refused"
        )
    return found
