"""A judge that looks at nothing: for load tests, benchmarks and trials of a cluster.

Of a pair it either votes for the side of more bytes, or names A in both orders, as a judge does that goes by
position. Its verdicts mean nothing; do not name it in a category that is to ship.

Options: ``agree`` is the share of pairs on which it votes, drawn anew for each judge; ``seconds`` an answer
takes, asleep, as if a GPU computed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator

from pipeline.judges.base import Answer, JudgeSpec, Question


class NullJudge:
    """Pretends; equal questions get equal answers."""

    def __init__(self, spec: JudgeSpec) -> None:
        self._name = spec.name
        self._agree = float(spec.options["agree"])
        self._seconds = float(spec.options["seconds"])

    def open(self) -> None:
        """Nothing to load."""

    def ask(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Answer each question, at most one in ``seconds``."""
        for question in questions:
            if self._seconds:
                time.sleep(self._seconds)
            yield self._answer(question)

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, question: Question) -> Answer:
        """Toss a coin that neither the order of the sides nor the machine changes."""
        low, high = sorted((question.a, question.b), key=lambda side: (len(side.data), side.sha256))
        votes = _coin(self._name, question.prompt, low.sha256, high.sha256) < self._agree
        if not votes or question.a is high:
            return Answer(choice="a", p_a=0.9, raw="A")
        return Answer(choice="b", p_a=0.1, raw="B")


def _coin(*parts: str) -> float:
    """Return a number in [0, 1) that hangs on ``parts`` alone."""
    drawn = hashlib.blake2b("\n".join(parts).encode(), digest_size=6).digest()
    return int.from_bytes(drawn) / 256**6
