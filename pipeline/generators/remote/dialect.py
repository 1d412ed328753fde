"""What differs from service to service: addresses, the shapes of questions and answers, what is paid for."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline import media
from pipeline.config import Size
from pipeline.errors import ItemError
from pipeline.generators.base import GeneratorSpec, Request
from pipeline.media.frames import Frames

SEEDS = 1 << 32
"""Both services take seeds of 32 bits."""

ENOUGH = 0.9
"""Share of the pixels and of the frames asked for that a video must have to be worth comparing."""

ASPECT = 0.05
"""Most that width / height may differ from what was asked for, as a share of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service answered; ``wait`` is how many seconds it asks to be left alone."""

    status: int
    body: bytes = b""
    wait: float | None = None
    json: Any = None  # the body, where it is JSON


class Dialect(Protocol):
    """One service. Keys, addresses and quotas are the account's: variables named after ``variable``."""

    name: str
    variable: str  # X: X_API_KEY, and where wanted X_BASE_URL and X_PER_MINUTE
    address: str  # what paths are below, unless X_BASE_URL says otherwise
    domain: str  # hosts that end so get the key too (empty: none but that of the address)
    per_minute: float  # submissions a minute and worker, unless X_PER_MINUTE says otherwise

    def header(self, key: str) -> tuple[str, str]:
        """Return name and value of the header that carries the key."""

    def order(self, spec: GeneratorSpec, request: Request) -> tuple[str, Mapping[str, Any]]:
        """Return path and body of a submission. Raises ItemError for what the service does not make."""

    def operation(self, answer: Any) -> str | None:
        """Return the name of the operation that an answer to a submission speaks of."""

    def path(self, operation: str) -> str:
        """Return where an operation is looked up."""

    def result(self, answer: Any) -> str | None:
        """Return the address of the finished video, None while there is none. Raises ItemError."""

    def find(
        self, get: Callable[[str], Any], spec: GeneratorSpec, request: Request, since: float
    ) -> str | None:
        """Return the operation of a submission made at ``since`` whose answer was lost, if it can be told."""

    def unfit(self, answer: Answer) -> bool:
        """Say whether a refusal (4xx) is about the account, not about the one item."""


def seconds(size: Size, lengths: range, fps: int) -> int:
    """Return the length to ask for in whole seconds. Raises ItemError if it is none of ``lengths``."""
    length = size.frames // fps
    if size.fps != fps or length not in lengths:
        raise ItemError(
            f"{size.frames} frames at {size.fps} a second cannot be ordered, only {fps} a second for "
            f"{', '.join(map(str, lengths))} s: set frames and fps in the generator's row"
        )
    return length


def fitting(size: Size, made: tuple[int, int]) -> None:
    """Raise ItemError before anything is paid if videos of ``made`` pixels are no answer to ``size``."""
    width, height = made
    skewed = abs(width * size.height / (height * size.width) - 1) > ASPECT
    if skewed or width * height < ENOUGH * size.width * size.height:
        raise ItemError(
            f"the service makes {width}x{height}, {size.width}x{size.height} was asked for: take a row of "
            "another resolution, or another generator"
        )


def checked(data: bytes, size: Size) -> Frames:
    """Decode a video that answers ``size``; where it differs it is kept as it is, never resampled.

    Another size or length is told by what the stage records. Another rate would play at a wrong speed,
    and far fewer frames or pixels would be compared for that alone: those raise ItemError. Raises
    MediaError for what is no MP4.
    """
    found = media.probe(data, media.mime_of("video"))
    if found.fps != size.fps:
        raise ItemError(f"the video has {found.fps} frames a second, {size.fps} were ordered")
    small = found.width * found.height < ENOUGH * size.width * size.height
    if small or found.frames < ENOUGH * size.frames:
        raise ItemError(
            f"the video has {found.frames} frames of {found.width}x{found.height}, ordered were "
            f"{size.frames} of about {size.width}x{size.height}"
        )
    return media.decode(data, media.mime_of("video"))


def picture(source: Frames) -> str:
    """Return a first frame as JPEG in base64."""
    return base64.b64encode(media.encode(source[:1], 0).data).decode()


def dig(answer: Any, *path: str | int) -> Any:
    """Return what stands at ``path`` in an answer, None if it has no such place."""
    for step in path:
        try:
            answer = answer[step]
        except (KeyError, IndexError, TypeError):
            return None
    return answer


def listed(answer: Any, *path: str | int) -> list[Any]:
    """Return the list that stands at ``path`` in an answer, an empty one if there is none."""
    found = dig(answer, *path)
    return found if isinstance(found, list) else []
