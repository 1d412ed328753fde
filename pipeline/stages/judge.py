"""Stage 4: every judge says of every pair which side is better, in both orders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import lru_cache

import pyarrow as pa

from pipeline import media
from pipeline.config import Category
from pipeline.errors import WorkerError
from pipeline.ids import content_id
from pipeline.judges.base import Answer, Judge, JudgeSpec, Media, Question
from pipeline.judges.table import JUDGES, make_judge
from pipeline.records import ORDERS, Choice, Order, Pair, Prompt, Verdict
from pipeline.stages.base import Resources, Stage, Unit, read_part
from pipeline.stages.pair import PairStage
from pipeline.storage import Store

CHUNK = 16
"""Pairs asked at a time: enough to keep a server busy, few enough to hold their media in memory."""

MEDIA_HELD = 16
"""Encoded media kept in memory: those of one prompt are asked about several times in a row."""


Load = Callable[[str | None], Media]


class JudgeStage(Stage):
    """Lane: category and judge; a judge more leaves the verdicts of the others as they are."""

    name = "judge"

    def __init__(self, category: Category, judge: str, *, pair: PairStage) -> None:
        spec = JUDGES[judge]
        super().__init__(
            lane=self.lane_of(category.name, judge),
            pair=pair.fingerprint,
            judge=judge_id(spec),
            rubric=rubric_id(category),
        )
        self.resources = Resources(gpus=spec.gpus)
        self.category, self.spec, self.pair = category, spec, pair
        self._judge: Judge | None = None

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per bucket."""
        return (self.unit(unit.bucket) for unit in self.pair.units(store))

    def open(self) -> None:
        """Load the judge."""
        self._judge = make_judge(self.spec)
        self._judge.open()

    def close(self) -> None:
        """Free the judge."""
        if self._judge:
            self._judge.close()

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Ask about every pair that has two different media."""
        prompts = {family.root.id: family.root for family in self.pair.prompts.families(unit.bucket, store)}
        pairs = [row for row in read_part(Pair, self.pair.unit(unit.bucket).key, store) if _askable(row)]
        mime = media.mime_of(self.category.modality)

        @lru_cache(maxsize=MEDIA_HELD)
        def load(sha256: str | None) -> Media:
            known = str(sha256)
            return Media(sha256=known, mime=mime, data=store.get(media.key(known, mime)))

        rows: list[Verdict] = []
        for start in range(0, len(pairs), CHUNK):
            asked = [(pair, order) for pair in pairs[start : start + CHUNK] for order in ORDERS]
            questions = [self._question(pair, order, prompts[pair.root_id], load) for pair, order in asked]
            for (pair, order), answer in zip(asked, self._ask(questions), strict=True):
                rows.append(self._row(pair, order, answer))
        return Verdict.table(rows)

    def _ask(self, questions: list[Question]) -> Iterator[Answer]:
        if self._judge is None:
            raise WorkerError(f"{self.lane}: not open: call open() before process()")
        return self._judge.ask(questions)

    def _question(self, pair: Pair, order: Order, prompt: Prompt, load: Load) -> Question:
        shown = (pair.first_sha256, pair.second_sha256)
        a, b = shown if order == "forward" else reversed(shown)
        return Question(
            prompt=prompt.text, checks=prompt.checks, rubric=self.category.rubric, a=load(a), b=load(b)
        )

    def _row(self, pair: Pair, order: Order, answer: Answer) -> Verdict:
        return Verdict(
            id=content_id(
                "verdict",
                pair=pair.id,
                judge=judge_id(self.spec),
                rubric=rubric_id(self.category),
                order=order,
            ),
            pair_id=pair.id,
            category=self.category.name,
            judge=self.spec.name,
            judge_id=judge_id(self.spec),
            rubric_id=rubric_id(self.category),
            order=order,
            choice=in_pair_coordinates(answer, order),
            p_first=answer.p_a if answer.p_a is None or order == "forward" else 1 - answer.p_a,
            raw=answer.raw,
        )


def in_pair_coordinates(answer: Answer, order: Order) -> Choice:
    """Say which side of the pair was chosen: A is the first side only in forward order."""
    if answer.choice in ("tie", "invalid"):
        return "tie" if answer.choice == "tie" else "invalid"
    return "first" if (answer.choice == "a") == (order == "forward") else "second"


def judge_id(spec: JudgeSpec) -> str:
    """Return the id of what determines a judge's answers."""
    return content_id("judge", name=spec.name, family=spec.family, options=dict(spec.options))


def rubric_id(category: Category) -> str:
    """Return the id of what judges of a category are asked."""
    return content_id("rubric", **asdict(category.rubric))


def _askable(pair: Pair) -> bool:
    return None not in (pair.first_sha256, pair.second_sha256) and pair.first_sha256 != pair.second_sha256
