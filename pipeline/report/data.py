"""What the report is made from: streams that can be read again, so that a million pairs need no memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.records import Agreement, Calibration, Generation, LicenceProfile, Pair, Prompt, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRow:
    """One line of the table of shards."""

    name: str
    category: str
    licence_profile: LicenceProfile
    pairs: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """A finished or half-finished build.

    Every stream is a function that starts it anew: prompts, generations and pairs are read twice,
    the others once. ``quotas`` gives the pairs wanted of each category, in the order of the page.
    ``fetch(sha256, mime)`` returns media bytes and raises StorageError or CorruptError; two threads call
    it. ``created`` is printed as given: the report itself never reads a clock.
    """

    title: str
    created: str | None
    settings: Mapping[str, str]
    prompts: Callable[[], Iterator[Prompt]]
    generations: Callable[[], Iterator[Generation]]
    pairs: Callable[[], Iterator[Pair]]
    agreements: Callable[[], Iterator[Agreement]]
    verdicts: Callable[[], Iterator[Verdict]]
    calibrations: Callable[[], Iterator[Calibration]]
    quotas: Mapping[str, int]
    shards: tuple[ShardRow, ...]
    fetch: Callable[[str, str], bytes]
