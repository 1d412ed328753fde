"""Judges that give each side a number by itself: reward models, CLIP, aesthetic predictors.

Of a pair the side with the higher number is better; both orders have one answer by construction. The row's
option ``scorer`` says which kind: clip and aesthetic (scorer_clip.py), http (scorer_http.py).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

from pipeline.config import nearest
from pipeline.errors import ConfigError, ItemError, MediaError
from pipeline.judges.base import Answer, JudgeSpec, Media, Question
from pipeline.judges.sites import Limits

KINDS = ("clip", "aesthetic", "http")

BATCH = 16
"""Questions taken before the first is answered: what they need is scored together."""

REMEMBERED = 256
"""Scores kept: a medium meets every rival of its prompt in both orders, but is scored once."""

Side: TypeAlias = "tuple[str, Media]"
"""A prompt and what was made from it."""

Score: TypeAlias = "float | MediaError | ItemError"
"""A finite number, higher is better; or why there is none."""


class Scorer(Protocol):
    """Gives numbers to sides."""

    def open(self) -> None:
        """Load the model, or find the server. Raises WorkerError, ConfigError."""

    def scores(self, sides: Sequence[Side]) -> list[Score]:
        """Return the score of each side. Raises WorkerError when it can score nothing any more."""

    def close(self) -> None:
        """Free the device, or the connections."""


class ScorerJudge:
    """Compares two scores: a tie within ``margin``, else a preference of logistic ``scale``."""

    def __init__(self, spec: JudgeSpec, limits: Limits | None = None) -> None:
        """Raise ConfigError for a row that no scorer can be made from."""
        self._name = spec.name
        self._margin, self._scale = float(spec.options["margin"]), float(spec.options["scale"])
        self._scorer = _scorer(spec, limits or Limits())
        self._known: OrderedDict[tuple[str, str], Score] = OrderedDict()

    def open(self) -> None:
        """Load the model, or find the server. Raises WorkerError, ConfigError."""
        self._scorer.open()

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answer each question; a side that has no score makes the answer invalid."""
        rest = iter(questions)
        while batch := list(islice(rest, BATCH)):
            sides = [(question.prompt, side) for question in batch for side in (question.a, question.b)]
            scores = self.scores(sides)
            yield from map(self._answer, scores[::2], scores[1::2])

    def scores(self, sides: Sequence[Side]) -> list[Score]:
        """Return the score of each side; one that is known is not computed again."""
        keys = [(medium.sha256, prompt) for prompt, medium in sides]
        new = {key: side for key, side in zip(keys, sides, strict=True) if key not in self._known}
        self._known |= zip(new, self._scorer.scores([*new.values()]) if new else (), strict=True)
        for key in keys:
            self._known.move_to_end(key)
        found = [self._known[key] for key in keys]
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found

    def close(self) -> None:
        """Free what was opened, and forget the scores."""
        self._known.clear()
        self._scorer.close()

    def _answer(self, a: Score, b: Score) -> Answer:
        if not isinstance(a, float):
            return Answer(choice="invalid", p_a=None, raw=str(a))
        if not isinstance(b, float):
            return Answer(choice="invalid", p_a=None, raw=str(b))
        raw = f"{self._name} a={a:.6g} b={b:.6g}"
        p_a = 1 / (1 + math.exp(max(-60.0, min(60.0, (b - a) / self._scale))))
        if abs(a - b) <= self._margin:
            return Answer(choice="tie", p_a=p_a, raw=raw)
        return Answer(choice="a" if a > b else "b", p_a=p_a, raw=raw)


def _scorer(spec: JudgeSpec, limits: Limits) -> Scorer:
    match str(spec.options.get("scorer")):
        case "clip":
            from pipeline.judges.scorer_clip import ClipScorer

            return ClipScorer(spec)
        case "aesthetic":
            from pipeline.judges.scorer_clip import AestheticScorer

            return AestheticScorer(spec)
        case "http":
            from pipeline.judges.scorer_http import HttpScorer

            return HttpScorer(spec, limits)
        case other:
            raise ConfigError(f"judge {spec.name}: option scorer = {other!r}: {nearest(other, KINDS)}")
