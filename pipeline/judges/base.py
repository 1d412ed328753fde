"""What every judge is to the rest of the pipeline.

A judge sees what a person would see: the prompt, the rubric and two media called A and B. It never sees
which generator made them, what the generator did wrong, or which side stands first in the pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from pipeline.config import Rubric
from pipeline.records import Checks, Modality
from pipeline.weights import Weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """An encoded image or video, byte for byte what ships."""

    sha256: str
    mime: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One order of one pair; ``id`` is that of the verdict."""

    id: str
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
    """A row of the table of judges; every field that changes answers is part of its id.

    ``licence`` is that of the weights. ``server`` are arguments of vLLM that change speed, not answers.
    """

    name: str
    family: str
    modalities: tuple[Modality, ...]
    weights: Weights | None = None
    licence: str = "Apache-2.0"
    gpus: float = 0.0
    seconds: float = 0.1  # rated seconds an answer, for `plan` before anything is measured
    server: tuple[str, ...] = ()
    options: Mapping[str, float | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosting:
    """Where a model judge answers: at ``urls`` that serve it already, or from a server of its worker's own.

    ``vllm`` is a Python that has vllm, None the worker's own.
    """

    urls: tuple[str, ...] = ()
    vllm: str | None = None


class Model(Protocol):
    """A row of a table whose model vLLM serves, that of a judge or another."""

    @property
    def name(self) -> str:
        """Its name in the table."""

    @property
    def weights(self) -> Weights | None:
        """What it loads."""

    @property
    def gpus(self) -> float:
        """How many GPUs it takes."""

    @property
    def server(self) -> tuple[str, ...]:
        """Arguments of vLLM."""


class Judge(Protocol):
    """Answers questions. Raises WorkerError when it is unfit (its server is gone)."""

    def open(self) -> None:
        """Load models; called once in the worker, before the first question."""

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Yield one answer per question, in order; an unusable answer is ``invalid``, not an error.

        May take several questions before it yields the first answer; a server is kept busy that way.
        """

    def close(self) -> None:
        """Free the device."""
