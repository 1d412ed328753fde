"""What every judge is to the rest of the pipeline.

A judge sees what a person would see: the prompt, the rubric and two media called A and B. It never sees
which generator made them, what the generator did wrong, or which side stands first in the pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pipeline.config import Rubric
from pipeline.records import Checks, Modality


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """An encoded image or video, byte for byte what ships."""

    sha256: str
    mime: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One order of one pair."""

    prompt: str
    checks: Checks
    rubric: Rubric
    a: Media
    b: Media


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """``p_a`` is the probability that A is better; ``raw`` what the judge said, word for word."""

    choice: Literal["a", "b", "tie", "invalid"]
    p_a: float | None
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeSpec:
    """A row of the table of judges; every field that changes answers is part of its id."""

    name: str
    family: str
    modality: Modality
    gpus: float = 0.0
    seconds: float = 0.1  # rated seconds an answer, for `plan` before anything is measured
    options: Mapping[str, float | str] = field(default_factory=dict)


class Judge(Protocol):
    """Answers questions. Raises WorkerError when it is unfit (its server is gone)."""

    def open(self) -> None:
        """Load models; called once in the worker, before the first question."""

    def ask(self, questions: Sequence[Question]) -> Iterator[Answer]:
        """Yield one answer per question, in order; an unusable answer is ``invalid``, not an error."""

    def close(self) -> None:
        """Free the device."""
