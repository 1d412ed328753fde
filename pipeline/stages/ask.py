"""Stage 4, and what stage 6 shares with it: judges say of pairs which side is better, in both orders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from itertools import product

import pyarrow as pa

from pipeline import media
from pipeline.config import Category
from pipeline.errors import WorkerError
from pipeline.ids import Part, content_id
from pipeline.judges.asking import version
from pipeline.judges.base import Answer, Hosting, Judge, JudgeSpec, Media, Question
from pipeline.judges.table import make_judge
from pipeline.records import ORDERS, Choice, Order, Pair, Prompt, Verdict, Vote
from pipeline.stages.base import Earlier, Resources, Stage, Unit, read_part
from pipeline.stages.pair import PairStage
from pipeline.stages.policies import vote
from pipeline.storage import Store

MEDIA_HELD = 64
"""Encoded media kept in memory: those of one prompt are asked about several times in a row."""


Load = Callable[[str], Media]
Asked = tuple[Pair, Order]


class AskStage(Stage):
    """Lane: category and judge; a judge more leaves the verdicts of the others as they are."""

    gold: bool

    def __init__(
        self, category: Category, spec: JudgeSpec, *, pair: PairStage, hosting: Hosting, **settings: Part
    ) -> None:
        self.judge_id, self.rubric_id = judge_id(spec), rubric_id(category)
        super().__init__(
            lane=self.lane_of(category.name, spec.name),
            pair=pair.fingerprint,
            judge=self.judge_id,
            rubric=self.rubric_id,
            **settings,
        )
        self.resources = Resources(gpus=0 if hosting.urls else spec.gpus)
        self.category, self.spec, self.pair, self.hosting = category, spec, pair, hosting
        self._judge: Judge | None = None
        self._earlier: Earlier | None = None

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per bucket."""
        return (self.unit(unit.bucket) for unit in self.pair.units(store))

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield the pairs of the bucket."""
        yield self.pair.unit(unit.bucket)

    def open(self, store: Store) -> None:
        """Load the judge, and find what it was asked under other settings."""
        self._earlier = Earlier(self, store)
        self._judge = make_judge(self.spec, self.hosting)
        self._judge.open()

    def close(self) -> None:
        """Free the judge."""
        if self._judge:
            self._judge.close()

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Ask about every pair that has two different media, unless the answer cannot matter."""
        every = [row for row in read_part(Pair, self.pair.unit(unit.bucket).key, store) if self._asks(row)]
        pairs = self.still_open(every, unit, store)
        # By prompt, then by the side shown as A: a server's caches meet what is alike in a row.
        shown = sorted(product(pairs, ORDERS), key=lambda item: (item[0].root_id, self._shown(*item)))
        asked = {self.id(pair, order): (pair, order) for pair, order in shown}
        rows = self._answered_before(asked, unit)
        asked = {name: item for name, item in asked.items() if name not in rows}
        rows |= {row.id: row for row in self._ask(asked, unit, store)}
        return Verdict.table(sorted(rows.values(), key=lambda row: (row.pair_id, row.order)))

    def still_open(self, pairs: list[Pair], unit: Unit, store: Store) -> list[Pair]:
        """Return the pairs to ask about."""
        del unit, store
        return pairs

    def id(self, pair: Pair, order: Order) -> str:
        """Return the id of a verdict: of the pair, the judge, what it is asked, and the order."""
        return content_id("verdict", pair=pair.id, judge=self.judge_id, rubric=self.rubric_id, order=order)

    def _asks(self, pair: Pair) -> bool:
        sides = pair.first_sha256, pair.second_sha256
        return pair.gold == self.gold and None not in sides and sides[0] != sides[1]

    def _answered_before(self, asked: Mapping[str, Asked], unit: Unit) -> dict[str, Verdict]:
        """Return the verdicts that older settings asked for too; an unusable one is asked for again."""
        if self._earlier is None:
            raise WorkerError(f"{self.lane}: not open: call open() before process()")
        rows = self._earlier.rows(Verdict, unit)
        return {row.id: row for row in rows if row.id in asked and row.choice != "invalid"}

    def _ask(self, asked: Mapping[str, Asked], unit: Unit, store: Store) -> Iterator[Verdict]:
        if self._judge is None:
            raise WorkerError(f"{self.lane}: not open: call open() before process()")
        prompts = {family.root.id: family.root for family in self.pair.prompts.families(unit.bucket, store)}
        mime = media.mime_of(self.category.modality)

        @lru_cache(maxsize=MEDIA_HELD)
        def load(sha256: str) -> Media:
            return Media(sha256=sha256, mime=mime, data=store.get(media.key(sha256, mime)))

        questions = (
            self._question(name, pair, order, prompts[pair.root_id], load)
            for name, (pair, order) in asked.items()
        )
        answers = self._judge.ask(questions)
        for (name, (pair, order)), answer in zip(asked.items(), answers, strict=True):
            yield self._row(name, pair, order, answer)

    def _question(self, name: str, pair: Pair, order: Order, prompt: Prompt, load: Load) -> Question:
        a, b = self._shown(pair, order)
        return Question(
            id=name,
            prompt=prompt.text,
            checks=prompt.checks,
            rubric=self.category.rubric,
            a=load(a),
            b=load(b),
        )

    @staticmethod
    def _shown(pair: Pair, order: Order) -> tuple[str, str]:
        """Return the SHA-256 of A and of B."""
        sides = str(pair.first_sha256), str(pair.second_sha256)
        return sides if order == "forward" else (sides[1], sides[0])

    def _row(self, name: str, pair: Pair, order: Order, answer: Answer) -> Verdict:
        return Verdict(
            id=name,
            pair_id=pair.id,
            category=self.category.name,
            judge=self.spec.name,
            judge_id=self.judge_id,
            rubric_id=self.rubric_id,
            order=order,
            choice=in_pair_coordinates(answer, order),
            p_first=answer.p_a if answer.p_a is None or order == "forward" else 1 - answer.p_a,
            raw=answer.raw,
        )


class GoldStage(AskStage):
    """Stage 4: every judge on the pairs whose winner is known."""

    name = "gold"
    gold = True


def votes_of(stages: Sequence[AskStage], bucket: int, store: Store) -> defaultdict[str, list[Vote]]:
    """Return what each judge says of the pairs of a bucket, in the order of ``stages``."""
    votes: defaultdict[str, list[Vote]] = defaultdict(list)
    for stage in stages:
        verdicts: defaultdict[str, list[Verdict]] = defaultdict(list)
        for row in read_part(Verdict, stage.unit(bucket).key, store):
            verdicts[row.pair_id].append(row)
        for pair_id, given in verdicts.items():
            votes[pair_id].append(vote(stage.spec.name, given))
    return votes


def in_pair_coordinates(answer: Answer, order: Order) -> Choice:
    """Say which side of the pair was chosen: A is the first side only in forward order."""
    if answer.choice in ("tie", "invalid"):
        return "tie" if answer.choice == "tie" else "invalid"
    return "first" if (answer.choice == "a") == (order == "forward") else "second"


def judge_id(spec: JudgeSpec) -> str:
    """Return the id of what determines a judge's answers; where and how it is served is no part of it."""
    parts: dict[str, Part] = {"name": spec.name, "family": spec.family, "options": dict(spec.options)}
    if spec.weights:
        parts |= {"repo": spec.weights.repo, "revision": spec.weights.revision}
    if spec.family == "vlm":
        parts["asking"] = version(spec)
    return content_id("judge", **parts)


def rubric_id(category: Category) -> str:
    """Return the id of what judges of a category are asked."""
    return content_id("rubric", **asdict(category.rubric))
