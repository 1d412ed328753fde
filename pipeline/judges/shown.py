"""What a model is shown of a medium: an image byte for byte as it ships, a video as frames or as its file."""

from __future__ import annotations

import base64

import numpy as np
from PIL import Image

from pipeline import media
from pipeline.judges.asking import Asking, Shown, Side
from pipeline.judges.base import Media
from pipeline.media.frames import Frames
from pipeline.records import Modality


def show(medium: Media, asking: Asking) -> Side:
    """Return what is sent of ``medium``. Raises MediaError for a video that does not decode."""
    if medium.mime == media.mime_of("image"):
        return Side(modality="image", seconds=0.0, shown=(_whole(medium, "image"),))
    probe = media.probe(medium.data, medium.mime)
    seconds = probe.frames / max(1, probe.fps)
    if asking.video == "file":
        return Side(modality="video", seconds=seconds, shown=(_whole(medium, "video"),))
    frames = media.decode(medium.data, medium.mime)
    shown = tuple(
        _frame(frames[index], asking.edge, index / max(1, probe.fps))
        for index in sampled(len(frames), asking.frames)
    )
    return Side(modality="video", seconds=seconds, shown=shown)


def sampled(length: int, count: int) -> list[int]:
    """Return at most ``count`` of ``length`` indices, evenly spaced, the first and the last among them."""
    return sorted({int(index) for index in np.linspace(0, length - 1, max(2, count)).round()})


def _whole(medium: Media, kind: Modality) -> Shown:
    return Shown(kind=kind, mime=medium.mime, sha256=medium.sha256, base64=base64.b64encode(medium.data))


def _frame(pixels: Frames, edge: int, at: float) -> Shown:
    """Encode one frame, [height, width, 3], as JPEG; a larger one is scaled down to ``edge`` pixels."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    encoded = media.encode(np.asarray(picture)[None], fps=0)
    return Shown(
        kind="image",
        mime=encoded.mime,
        sha256=encoded.sha256,
        base64=base64.b64encode(encoded.data),
        at=at,
    )
