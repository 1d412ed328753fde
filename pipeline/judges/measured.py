"""Embedded judges: each measures one thing in the decoded media and compares the two sides.

They see what any judge sees (prompt, checks, media) and nothing else. A measure that cannot be taken
abstains: an unmeasurable side makes the pair a tie rather than a guess.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module

from pipeline import media
from pipeline.errors import MediaError, WorkerError
from pipeline.judges.base import Answer, JudgeSpec, Media, Question
from pipeline.media.frames import Frames
from pipeline.records import Checks

Measure = Callable[[Frames, Checks], float | None]
"""Frames and the prompt's checks to a score, higher is better; None where it cannot be taken."""

REMEMBERED = 256
"""Scores kept: a medium meets every rival of its prompt in both orders, but is measured once."""


class MeasuredJudge:
    """Compares two scores: a tie within ``margin``, else a preference of logistic ``scale``."""

    def __init__(self, spec: JudgeSpec) -> None:
        self._measure_name = str(spec.options["measure"])
        self._margin = float(spec.options["margin"])
        self._scale = float(spec.options["scale"])
        self._scores: OrderedDict[tuple[str, Checks], float | None] = OrderedDict()
        self._measure: Measure = _unopened

    def open(self) -> None:
        """Import the measure, and with it the vision libraries."""
        module, _, function = self._measure_name.partition(":")
        self._measure = getattr(import_module(f"pipeline.judges.measures.{module}"), function)

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answer each question; a medium that does not decode makes the answer invalid."""
        for question in questions:
            try:
                yield self._answer(self._score(question.a, question), self._score(question.b, question))
            except MediaError as error:
                yield Answer(choice="invalid", p_a=None, raw=str(error))

    def close(self) -> None:
        """Forget the scores."""
        self._scores.clear()

    def _score(self, side: Media, question: Question) -> float | None:
        key = (side.sha256, question.checks)
        if key not in self._scores:
            self._scores[key] = self._measure(media.decode(side.data, side.mime), question.checks)
        self._scores.move_to_end(key)
        while len(self._scores) > REMEMBERED:
            self._scores.popitem(last=False)
        return self._scores[key]

    def _answer(self, a: float | None, b: float | None) -> Answer:
        raw = f"{self._measure_name} a={_show(a)} b={_show(b)}"
        if a is None or b is None:
            return Answer(choice="tie", p_a=None, raw=raw)
        p_a = 1 / (1 + math.exp(max(-60.0, min(60.0, (b - a) / self._scale))))
        if abs(a - b) < self._margin:
            return Answer(choice="tie", p_a=p_a, raw=raw)
        return Answer(choice="a" if a > b else "b", p_a=p_a, raw=raw)


def _unopened(frames: Frames, checks: Checks) -> float | None:
    del frames, checks
    raise WorkerError("judge was asked before open(): call open() once in the worker")


def _show(score: float | None) -> str:
    return "unmeasured" if score is None else f"{score:.6g}"
