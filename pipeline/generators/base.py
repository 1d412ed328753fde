"""What every generator is to the rest of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.config import Size
from pipeline.media.frames import Frames
from pipeline.records import Defect, LicenceProfile, Modality, Prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec:
    """A row of the table of generators; every field that changes pixels is part of its id."""

    name: str
    family: str
    modality: Modality
    licence: str
    licence_profile: LicenceProfile
    gpus: float = 0.0
    batch: int = 1
    seconds: float = 0.5  # rated seconds an item, for `plan` before anything is measured
    options: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One item to render; equal requests to equal specs give equal frames."""

    prompt: Prompt
    seed: int
    size: Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """The frames of one request. ``defects`` is None unless the generator made them on purpose."""

    frames: Frames
    defects: tuple[Defect, ...] | None = None


class Generator(Protocol):
    """Renders requests. Raises ItemError for a prompt it cannot render, WorkerError when it is unfit."""

    def open(self) -> None:
        """Load weights; called once in the worker, before the first request."""

    def generate(self, requests: Sequence[Request]) -> Iterator[Rendered]:
        """Yield one result per request, in order."""

    def close(self) -> None:
        """Free the device."""
