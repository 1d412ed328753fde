"""Encoded media: what is written is byte for byte what judges see and what ships."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pipeline.errors import MediaError
from pipeline.media import image, video
from pipeline.media.frames import Frames, Probe

SUFFIX = {image.MIME: "jpg", video.MIME: "mp4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """An encoded image or video with what a record says of it."""

    data: bytes
    mime: str
    sha256: str
    probe: Probe


def encode(frames: Frames, fps: int) -> Encoded:
    """Encode [frames, height, width, 3] as JPEG (one frame, 0 fps) or MP4, and check that it decodes.

    Raises MediaError if the encoded file does not hold the frames that were given.
    """
    mime, data = (video.MIME, video.encode(frames, fps)) if fps else (image.MIME, image.encode(frames))
    found = probe(data, mime)
    expected = Probe(width=frames.shape[2], height=frames.shape[1], frames=frames.shape[0], fps=fps)
    if found != expected:
        raise MediaError(f"encoded {mime} holds {found}; {expected} was given")
    return Encoded(data=data, mime=mime, sha256=hashlib.sha256(data).hexdigest(), probe=found)


def decode(data: bytes, mime: str) -> Frames:
    """Decode to [frames, height, width, 3] RGB. Raises MediaError for anything unreadable."""
    return video.decode(data) if _is_video(mime) else image.decode(data)


def probe(data: bytes, mime: str) -> Probe:
    """Return size and length from the headers. Raises MediaError for anything unreadable."""
    return video.probe(data) if _is_video(mime) else image.probe(data)


def mime_of(modality: str) -> str:
    """Return the media type in which images or videos are kept."""
    return {"image": image.MIME, "video": video.MIME}[modality]


def key(sha256: str, mime: str) -> str:
    """Return where a store keeps this medium: two hex digits spread a million files over 256 folders."""
    _is_video(mime)
    return f"media/{sha256[:2]}/{sha256}.{SUFFIX[mime]}"


def _is_video(mime: str) -> bool:
    if mime not in SUFFIX:
        raise MediaError(f"{mime} is not a known media type: one of {', '.join(SUFFIX)}")
    return mime == video.MIME
