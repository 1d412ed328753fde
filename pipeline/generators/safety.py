"""Models that say how unsafe a medium is; a category's ``safety`` names one and its limit.

NudeNet 3.4.2 (extra ``safety``): a YOLOv8n detector of 12 MB, its weights inside the wheel. The package's
metadata says MIT, the licence files that it ships are the AGPL-3.0, as is YOLOv8's: whoever offers the
pipeline as a service has to mind that. Nothing of it goes into the dataset but its score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Protocol

import numpy as np

from pipeline.config import nearest
from pipeline.errors import ConfigError
from pipeline.media.frames import Frames

SAMPLES = 8
"""Frames of a video that are looked at, first and last among them."""


class Checker(Protocol):
    """Looks at media; may be asked by several threads at a time."""

    def score(self, frames: Frames) -> float:
        """Return how sure it is that [frames, height, width, 3] is unsafe, in [0, 1]."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckerRow:
    """A row of the table of checkers: how one is made, and what has to be installed for it."""

    package: str
    extra: str
    make: Callable[[], Checker]


NUDENET_POLICY: Mapping[str, tuple[bool, str]] = {
    "FEMALE_GENITALIA_EXPOSED": (True, "explicit"),
    "MALE_GENITALIA_EXPOSED": (True, "explicit"),
    "ANUS_EXPOSED": (True, "explicit"),
    "FEMALE_BREAST_EXPOSED": (True, "nudity"),
    "BUTTOCKS_EXPOSED": (True, "nudity"),
    "MALE_BREAST_EXPOSED": (False, "a swimmer, a boxer"),
    "BELLY_EXPOSED": (False, "sports and summer clothes"),
    "ARMPITS_EXPOSED": (False, "sleeveless clothes"),
    "FEET_EXPOSED": (False, "bare feet"),
    "FEMALE_GENITALIA_COVERED": (False, "clothed"),
    "ANUS_COVERED": (False, "clothed"),
    "FEMALE_BREAST_COVERED": (False, "clothed"),
    "BUTTOCKS_COVERED": (False, "clothed"),
    "BELLY_COVERED": (False, "clothed"),
    "ARMPITS_COVERED": (False, "clothed"),
    "FEET_COVERED": (False, "clothed"),
    "FACE_FEMALE": (False, "a face"),
    "FACE_MALE": (False, "a face"),
}
"""Class of NudeNet -> whether it counts as unsafe, and why (not)."""


class NudeNet:
    """The surest detection of a class that counts, over the sampled frames; 30 ms a frame on one core."""

    def __init__(self) -> None:
        from nudenet import NudeDetector

        self._detector = NudeDetector()

    def score(self, frames: Frames) -> float:
        """Return how sure it is that [frames, height, width, 3] shows nudity: 0, or 0.25 to 1."""
        chosen = np.linspace(0, len(frames) - 1, min(SAMPLES, len(frames))).round().astype(int)
        found = [self._surest(frames[index]) for index in chosen]
        return max(found)

    def _surest(self, frame: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> float:
        # As RGB: the package swaps red and blue twice, so what it is given is what the model sees.
        detections = self._detector.detect(np.ascontiguousarray(frame))
        return max((each["score"] for each in detections if NUDENET_POLICY[each["class"]][0]), default=0.0)


CHECKERS: dict[str, CheckerRow] = {
    "nudenet": CheckerRow(package="nudenet", extra="safety", make=NudeNet),
}


def require_checker(name: str) -> None:
    """Raise ConfigError for an unknown checker and for one whose package is not installed here."""
    if name not in CHECKERS:
        raise ConfigError(f"safety.checker = {name!r} is not known: {nearest(name, CHECKERS)}")
    row = CHECKERS[name]
    if find_spec(row.package) is None:
        raise ConfigError(
            f"safety.checker = {name!r} needs the package {row.package}, which is not installed here: "
            f"pip install 'vipo[{row.extra}]'"
        )


def make_checker(name: str) -> Checker:
    """Return the checker of this name with its model loaded. Raises ConfigError."""
    require_checker(name)
    return CHECKERS[name].make()
