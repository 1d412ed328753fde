"""What is known of speed and size before anything is measured: infra/rates.toml, with its sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.config import Size, data_root, load_toml
from pipeline.errors import ConfigError
from pipeline.records import Modality

Origin = Literal["pilot", "cited", "table", "profile"]
"""Measured by a run, cited in infra/rates.toml, estimated in a table of models, or assumed in the profile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number and where it comes from; ``low`` and ``high`` are its 95 % interval, where one is known."""

    value: float
    origin: Origin
    source: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """GPU-seconds of one item of a model on a type of GPU."""

    model: str
    gpu: str
    each: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bytes:
    """What one medium of that size weighs."""

    modality: Modality
    width: int
    height: int
    frames: int
    each: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Bytes beside the media: of parts for a judged pair, of a sample and its index for a kept one."""

    judged: int
    kept: int
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The whole file."""

    seconds: tuple[Seconds, ...]
    bytes: tuple[Bytes, ...]
    records: Records

    def cited(self, model: str) -> Seconds | None:
        """Return the cited speed of a model, if any."""
        return next((found for found in self.seconds if found.model == model), None)

    def weight(self, modality: Modality, size: Size) -> Figure:
        """Return the bytes of one medium, in proportion to its pixels. Raises ConfigError if unknown."""
        known = next((found for found in self.bytes if found.modality == modality), None)
        if known is None:
            raise ConfigError(f"infra/rates.toml: no [[bytes]] of modality {modality!r}: add one")
        frames = size.frames if modality == "video" else 1
        pixels = size.width * size.height * frames / (known.width * known.height * known.frames)
        return Figure(value=known.each * pixels, origin="cited", source=known.source)


def read_rates() -> Rates:
    """Read infra/rates.toml. Raises ConfigError naming what is wrong in it."""
    return load_toml(Rates, data_root() / "infra/rates.toml")
