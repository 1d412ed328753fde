"""How far scorers contradict each other on the pairs of a dataset: ours, or one in Pick-a-Pic's columns.

If every scorer of a panel ranks a pair the same way, the pair teaches what they all measure; where they
differ, so will what is learnt from it. ViPO (arXiv 2604.24953) reports that PickScore, ImageReward, HPSv2, an
aesthetic predictor and CLIP rank 20.79 % of Pick-a-Pic v2 alike; five coins would 6.25 %. The judges that
labelled a dataset agree on what they let pass: ask others.

A scorer gives each side a number without regard to the other, so that the swapped order has the same answer
and is not asked. A judge that sees both sides together has its place to prefer: it is asked in both orders,
and ranks a pair only if it says the same twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations, islice
from typing import TypeAlias

from pipeline import media
from pipeline.config import Rubric
from pipeline.dataset.labelled import Labelled, Skip
from pipeline.errors import ConfigError, MediaError
from pipeline.judges.base import Answer, Hosting, Judge, JudgeSpec, Question
from pipeline.judges.table import make_judge
from pipeline.records import ORDERS, Modality, Order, Side
from pipeline.report.statistics import Share

CHUNK = 32
"""Pairs held in memory at a time: all scorers are asked about the same ones."""

RUBRIC = Rubric(question="Which one is better, given the prompt?", criteria=())
"""What judges are asked that want to be asked something, where no category says it."""

SIDES: Mapping[Order, Mapping[str, Side]] = {
    "forward": {"a": "first", "b": "second"},
    "swapped": {"a": "second", "b": "first"},
}


Said: TypeAlias = "Side | Answer | None"
"""Which side a scorer ranks higher; None for a tie, an answer that is invalid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """A judge that is open, and the orders in which it has to be asked."""

    name: str
    judge: Judge
    orders: tuple[Order, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """What scorers say of the same pairs.

    ``alike``: pairs that all rank, and the same way, of all pairs; a tie is no ranking. ``alike_of_ranked``:
    of the pairs that all rank. ``two``: of the pairs that both rank. ``label``: agreement with the label, of
    the labelled pairs that the scorer ranks. ``ties``: pairs that it does not rank. ``skipped``: reason to
    pairs that have not an answer of every scorer, which count nowhere else. Intervals take pairs as
    independent, which those of one prompt are not quite.
    """

    scorers: tuple[str, ...]
    pairs: int
    alike: Share
    alike_of_ranked: Share
    two: Mapping[tuple[str, str], Share]
    label: Mapping[str, Share]
    ties: Mapping[str, int]
    skipped: Mapping[str, int]

    @property
    def chance(self) -> float:
        """The share that coins would rank alike: all others fall as the first does."""
        return 2.0 ** (1 - len(self.scorers))


def conflict(
    pairs: Iterable[Labelled | Skip],
    scorers: Sequence[Scorer],
    *,
    rubric: Rubric = RUBRIC,
    seen: Callable[[int], object] = id,
) -> Conflict:
    """Ask every scorer about every pair; ``seen`` is called now and then with how many are done.

    Raises what scorers raise when they are unfit.
    """
    tally = _Tally(tuple(scorer.name for scorer in scorers))
    rest = iter(pairs)
    while some := list(islice(rest, CHUNK)):
        usable = [pair for pair in some if isinstance(pair, Labelled)]
        tally.skipped.update(str(pair) for pair in some if isinstance(pair, Skip))
        rankings = [_rankings(scorer, usable, rubric) for scorer in scorers]
        for pair, *said in zip(usable, *rankings, strict=True):
            tally.add(pair, said)
        seen(tally.total)
    return tally.result()


@contextmanager
def opened(each: Iterable[tuple[JudgeSpec, Hosting]], modality: Modality) -> Iterator[tuple[Scorer, ...]]:
    """Open judges of the table as scorers of one kind of media; they are closed at the end.

    Raises ConfigError for fewer than two, for one that is named twice, or that cannot see such media, and
    what opening raises.
    """
    made = list(each)
    _check([spec for spec, _ in made], modality)
    with ExitStack() as stack:
        scorers = []
        for spec, hosting in made:
            judge = make_judge(spec, hosting)
            judge.open()
            stack.callback(judge.close)
            orders = ORDERS[:1] if scores_alone(spec) else ORDERS
            scorers.append(Scorer(name=spec.name, judge=judge, orders=orders))
        yield tuple(scorers)


def scores_alone(spec: JudgeSpec) -> bool:
    """Say whether a judge gives each side a number by itself: then the swapped order has the same answer."""
    return spec.family in ("measured", "scorer") or spec.options.get("ask") == "checklist"


def _check(specs: Sequence[JudgeSpec], modality: Modality) -> None:
    if len({spec.name for spec in specs}) < max(2, len(specs)):
        named = ", ".join(spec.name for spec in specs) or "none"
        raise ConfigError(f"a conflict is between two scorers or more, each named once; given: {named}")
    for spec in specs:
        if modality not in spec.modalities:
            raise ConfigError(
                f"judge {spec.name} sees no {modality}s, only {' and '.join(spec.modalities)}s: name another"
            )


def _rankings(scorer: Scorer, pairs: Sequence[Labelled], rubric: Rubric) -> list[Said]:
    """Return what a scorer says of each pair."""
    asked = [_question(pair, order, rubric) for pair in pairs for order in scorer.orders]
    answers = iter(scorer.judge.ask(asked))
    return [_ranking({order: next(answers) for order in scorer.orders}) for _ in pairs]


def _question(pair: Labelled, order: Order, rubric: Rubric) -> Question:
    a, b = (pair.first, pair.second) if order == "forward" else (pair.second, pair.first)
    return Question(id=f"{pair.id} {order}", prompt=pair.prompt, checks=pair.checks, rubric=rubric, a=a, b=b)


def _ranking(answers: Mapping[Order, Answer]) -> Said:
    for answer in answers.values():
        if answer.choice == "invalid":
            return answer
    sides = {SIDES[order].get(answer.choice) for order, answer in answers.items()}
    return sides.pop() if len(sides) == 1 else None


def _why(pair: Labelled, scorer: str) -> str:
    """Return why a scorer had no answer."""
    try:
        for side in (pair.first, pair.second):
            media.decode(side.data, side.mime)
    except MediaError:
        return str(Skip.UNREADABLE)
    return f"no answer of {scorer}"


class _Tally:
    """Counts pairs one by one."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._pairs = self._ranked = self._alike = 0
        self._hits: Counter[tuple[str, ...]] = Counter()
        self._asked: Counter[tuple[str, ...]] = Counter()
        self._ties: Counter[str] = Counter()
        self.skipped: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self._pairs + self.skipped.total()

    def add(self, pair: Labelled, said: Sequence[Said]) -> None:
        """Count a pair and what each scorer said of it."""
        for name, side in zip(self._names, said, strict=True):
            if isinstance(side, Answer):
                self.skipped[_why(pair, name)] += 1
                return
        self._pairs += 1
        ranked = {name: side for name, side in zip(self._names, said, strict=True) if side is not None}
        self._ties.update(name for name in self._names if name not in ranked)
        if len(ranked) == len(self._names):
            self._ranked += 1
            self._alike += len(set(ranked.values())) == 1
        for one, other in combinations(ranked, 2):
            self._count((one, other), hit=ranked[one] == ranked[other])
        if pair.label is not None:
            for name, side in ranked.items():
                self._count((name,), hit=side == pair.label)

    def result(self) -> Conflict:
        return Conflict(
            scorers=self._names,
            pairs=self._pairs,
            alike=Share(self._alike, self._pairs),
            alike_of_ranked=Share(self._alike, self._ranked),
            two={both: self._share(both) for both in combinations(self._names, 2)},
            label={name: self._share((name,)) for name in self._names},
            ties={name: self._ties[name] for name in self._names},
            skipped=dict(sorted(self.skipped.items())),
        )

    def _count(self, of: tuple[str, ...], *, hit: bool) -> None:
        self._asked[of] += 1
        self._hits[of] += hit

    def _share(self, of: tuple[str, ...]) -> Share:
        return Share(self._hits[of], self._asked[of])
