"""What happens in a build, for programs: one JSON object a line, with ``--log json``.

Every line has ``time`` (UTC, ISO 8601), ``event`` (the name of a class below in lower case) and
``driver`` (one a process that builds), then the fields of the class. A line that does not begin with a
brace is for people.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import IO, Literal, TypeAlias

LogKind = Literal["human", "json"]

SHORTEST_SECRET = 8
SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)(_ID|_\d+)?$", re.IGNORECASE)
SECRET_IN_URL = re.compile(
    r"(?i)(?<=://)[^/\s@]+(?=@)|(?<=[?&])((?:x-amz-[a-z-]+|sig|signature|token|key|password)=)[^&\s'\"]+"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildStarted:
    """A driver begins. ``settings`` is the SHA-256 of the run's settings.json."""

    run: str
    settings: str
    profile: str
    runner: str
    categories: tuple[str, ...]
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStarted:
    """A stage's first unit is about to be done; ``done`` of ``units`` were committed before."""

    stage: str
    units: int
    done: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageProgress:
    """Every few seconds while a stage is at work; ``seconds_left`` at the rate so far."""

    stage: str
    units: int
    done: int
    rows: int
    seconds: float
    seconds_left: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageEnded:
    """All units of a stage are done or given up; ``rows`` were committed in ``seconds`` by this driver."""

    stage: str
    units: int
    done: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitRetried:
    """A unit failed at its ``attempt`` (from 1) and waits for another."""

    unit: str
    attempt: int
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitFailed:
    """A unit failed for good: on every attempt, or its part cannot be read."""

    unit: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaReached:
    """A category has the pairs that it should have."""

    category: str
    kept: int
    quota: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryHeldBack:
    """A category is not in the shards, for units of it failed."""

    category: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardsWritten:
    """What of a category the manifest names."""

    category: str
    shards: int
    pairs: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildEnded:
    """A driver ends; ``error`` says why it could not do all."""

    seconds: float
    failures: int
    kept: dict[str, int] = field(default_factory=dict)
    short: dict[str, int] = field(default_factory=dict)
    error: str | None = None


Event: TypeAlias = (
    BuildStarted
    | StageStarted
    | StageProgress
    | StageEnded
    | UnitRetried
    | UnitFailed
    | QuotaReached
    | CategoryHeldBack
    | ShardsWritten
    | BuildEnded
)


def name_of(kind: type[Event]) -> str:
    """Return how an event of a class is called in a line: ``unit_failed`` for UnitFailed."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


class JsonLines:
    """Writes events to ``file``, a line each, at once."""

    def __init__(self, file: IO[str], driver: str) -> None:
        self._file, self._driver = file, driver

    def write(self, event: Event) -> None:
        """Write one line."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"time": now, "event": name_of(type(event)), "driver": self._driver, **asdict(event)}
        self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._file.flush()


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return ``text`` with logins and signatures of URLs, and values of variables named like keys, as ***.

    Causes of failures come from libraries that may repeat what they were given.
    """
    for name, value in environment.items():
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET:
            text = text.replace(value, "***")
    return SECRET_IN_URL.sub(lambda found: f"{found[1] or ''}***", text)
