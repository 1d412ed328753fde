"""JPEG: quality 95 without chroma subsampling, because 4:2:0 smears text edges and skin."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import MediaError
from pipeline.media.frames import MAX_PIXELS, Frames, Probe

MIME = "image/jpeg"
QUALITY = 95


def encode(frames: Frames) -> bytes:
    """Encode [1, height, width, 3] as JPEG; equal frames give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(frames[0]).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()


def decode(data: bytes) -> Frames:
    """Decode JPEG to [1, height, width, 3]. Raises MediaError."""
    with _open(data) as picture:
        try:
            return np.asarray(picture.convert("RGB"))[None]
        except (OSError, SyntaxError, ValueError) as error:
            raise MediaError(f"image of {len(data)} bytes is damaged ({error}): generate it again") from error


def probe(data: bytes) -> Probe:
    """Read the size from the header. Raises MediaError."""
    with _open(data) as picture:
        return Probe(width=picture.width, height=picture.height, frames=1, fps=0)


def _open(data: bytes) -> Image.Image:
    try:
        with warnings.catch_warnings():  # Pillow warns of sizes that are refused below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=["JPEG"])
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise MediaError(f"{len(data)} bytes are not a JPEG ({error}): generate it again") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise MediaError(f"image of {picture.width}x{picture.height} is over {MAX_PIXELS} pixels: refused")
    return picture
