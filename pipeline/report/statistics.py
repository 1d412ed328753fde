"""Counts over the streams of a build; memory grows with judges, generators and gold pairs, not with pairs.

Where judges are not asked about pairs that are lost already, the answers of the later judges are of
chosen pairs. What is said of judges and their agreement is therefore counted on the audited pairs, which
all judges saw; without early exit these are all pairs. Gold pairs, which are easier, count for accuracy only.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pipeline.records import (
    Agreement,
    Calibration,
    Generation,
    Modality,
    Pair,
    Prompt,
    Reason,
    Side,
    Verdict,
    Vote,
)
from pipeline.report.alpha import VALUES, Alpha

Z95 = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

ENOUGH = 20
"""Gold votes from which it can be said whether a judge is better than chance."""

MOST_REASONS = 40
"""Distinct failure reasons counted by name in a category; a build that fails in prose stays readable."""

OTHER_REASONS = "other reasons"


@dataclass(frozen=True, slots=True)
class Share:
    """``hits`` out of ``total``, with its Wilson 95 % interval."""

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """The share in [0, 1]; None where there is nothing to take a share of."""
        return self.hits / self.total if self.total else None

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper bound in [0, 1]; the whole range where nothing is known."""
        return wilson(self.hits, self.total)

    @property
    def excludes_half(self) -> bool:
        """Whether a fair coin is ruled out."""
        low, high = self.interval
        return low > 0.5 or high < 0.5


def wilson(hits: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of ``hits`` out of ``total``, within [0, 1]."""
    if total == 0:
        return 0.0, 1.0
    share = hits / total
    shrink = 1 + z * z / total
    centre = (share + z * z / (2 * total)) / shrink
    half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / shrink
    # Rounding may put the bound of 0 or of all hits a hair on the wrong side of the share.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


@dataclass(slots=True)
class JudgeCounts:
    """What one judge did in one category; all but ``answers`` and the gold counts on audited pairs."""

    answers: int = 0
    verdicts: int = 0
    ties: int = 0
    invalid: int = 0
    shown_first: int = 0
    votes: int = 0
    usable: int = 0
    consistent: int = 0
    decided: int = 0
    gold_decided: int = 0
    gold_right: int = 0

    def add_verdict(self, verdict: Verdict, audited: bool) -> None:
        """Count one answer to one order."""
        self.answers += 1
        if not audited:
            return
        self.verdicts += 1
        self.ties += verdict.choice == "tie"
        self.invalid += verdict.choice == "invalid"
        self.shown_first += verdict.choice == ("first" if verdict.order == "forward" else "second")

    def add_vote(self, vote: Vote) -> None:
        """Count one vote."""
        self.votes += 1
        self.usable += vote.choice != "invalid"
        self.consistent += vote.consistent and vote.choice != "invalid"
        self.decided += decides(vote)

    def add_gold_vote(self, vote: Vote, expected: Side) -> None:
        """Count one vote on a gold pair, whose winner is known."""
        self.gold_decided += decides(vote)
        self.gold_right += vote.choice == expected

    @property
    def tie_rate(self) -> Share:
        """Share of answers that are ties."""
        return Share(self.ties, self.verdicts)

    @property
    def consistency(self) -> Share:
        """Share of usable votes in which both orders got the same answer."""
        return Share(self.consistent, self.usable)

    @property
    def first_shown(self) -> Share:
        """Share of decided answers for the side shown first: half, for a judge without position bias."""
        return Share(self.shown_first, self.verdicts - self.ties - self.invalid)

    @property
    def decision_rate(self) -> Share:
        """Share of votes that name a side."""
        return Share(self.decided, self.votes)

    @property
    def accuracy(self) -> Share:
        """Share of decided gold pairs in which the known winner was chosen."""
        return Share(self.gold_right, self.gold_decided)


@dataclass(slots=True)
class CategoryCounts:
    """Everything counted in one category."""

    modality: Modality = "image"
    prompts: int = 0
    prompt_failures: Counter[str] = field(default_factory=Counter)
    rewritten: int = 0
    unrewritten: Counter[str] = field(default_factory=Counter)
    generations: int = 0
    generation_failures: Counter[str] = field(default_factory=Counter)
    pairs: int = 0
    kept: int = 0
    dropped: Counter[Reason] = field(default_factory=Counter)
    policy: str = ""
    judged: int = 0
    audited: int = 0
    asked: int = 0
    judges: dict[str, JudgeCounts] = field(default_factory=lambda: defaultdict(JudgeCounts))
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    alpha: Alpha = field(default_factory=Alpha)
    both_decided: Counter[tuple[str, str]] = field(default_factory=Counter)
    same_side: Counter[tuple[str, str]] = field(default_factory=Counter)
    wins: Counter[str] = field(default_factory=Counter)
    losses: Counter[str] = field(default_factory=Counter)
    own_pairs: int = 0

    @property
    def pending(self) -> int:
        """Pairs that nothing has been decided about yet."""
        return max(0, self.pairs - self.kept - self.dropped.total())

    @property
    def yield_(self) -> Share:
        """Share kept of the decided pairs that were meant to ship: gold pairs are not."""
        shippable = self.kept + self.dropped.total() - self.dropped[Reason.GOLD]
        return Share(self.kept, shippable)

    @property
    def failures(self) -> int:
        """Prompts and generations that became rows with a reason."""
        return self.prompt_failures.total() + self.generation_failures.total()

    def agreement(self, one: str, other: str) -> Share:
        """Share of the pairs decided by both judges on which they chose the same side; symmetric."""
        key = (min(one, other), max(one, other))
        return Share(self.same_side[key], self.both_decided[key])

    @property
    def requests(self) -> Share:
        """Share asked of what the full panel would have been asked about the pairs that may ship."""
        return Share(self.asked, self.judged * len(self.judges))

    @property
    def audit(self) -> Share:
        """Share of the judged pairs that all judges were asked about, whatever the first ones said."""
        return Share(self.audited, self.judged)

    def win_rates(self) -> dict[str, Share]:
        """Return each generator's share of wins over other generators, best first."""
        names = sorted(self.wins.keys() | self.losses.keys())
        rates = {name: Share(self.wins[name], self.wins[name] + self.losses[name]) for name in names}
        return dict(sorted(rates.items(), key=lambda item: -(item[1].value or 0.0)))

    def add_votes(self, votes: Iterable[Vote], group: int = 0) -> None:
        """Count the votes of one pair that all judges were asked about; ``group`` as in Alpha."""
        named = sorted(votes, key=lambda vote: vote.judge)
        for vote in named:
            self.judges[vote.judge].add_vote(vote)
        for one, other in combinations([vote for vote in named if decides(vote)], 2):
            self.both_decided[one.judge, other.judge] += 1
            self.same_side[one.judge, other.judge] += one.choice == other.choice
        self.alpha.add((vote.choice for vote in named if vote.consistent and vote.choice in VALUES), group)

    def add_outcome(self, agreement: Agreement, generators: GeneratorIndex) -> None:
        """Count what became of one pair, and who won it."""
        self.policy = agreement.policy
        if agreement.reason is not None:
            self.dropped[agreement.reason] += 1
        if not agreement.kept:
            return
        self.kept += 1
        winner, loser = generators.name(agreement.winner_id), generators.name(agreement.loser_id)
        if winner == loser:
            self.own_pairs += 1
        else:
            self.wins[winner] += 1
            self.losses[loser] += 1


class GeneratorIndex:
    """Generation id -> generator in some forty bytes a generation, so that a million pairs fit.

    Ids are kept as 64-bit digests; two of ten million collide with a chance of 3 in a million.
    """

    def __init__(self) -> None:
        self._names: dict[str, int] = {}
        self._keys = array("Q")
        self._owners = array("H")
        self._sorted: tuple[NDArray[np.uint64], NDArray[np.uint16]] | None = None

    def add(self, generation: Generation) -> None:
        """Remember who made ``generation``."""
        self._keys.append(_digest(generation.id))
        self._owners.append(self._names.setdefault(generation.generator, len(self._names)))
        self._sorted = None

    def name(self, generation_id: str | None) -> str:
        """Return the generator of a generation, or "unknown"."""
        if generation_id is None or not self._keys:
            return "unknown"
        keys, owners = self._sorted or self._sort()
        key = np.uint64(_digest(generation_id))
        place = int(np.searchsorted(keys, key))
        if place == len(keys) or keys[place] != key:
            return "unknown"
        return list(self._names)[int(owners[place])]

    def _sort(self) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
        keys = np.array(self._keys, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        self._sorted = keys[order], np.array(self._owners, dtype=np.uint16)[order]
        return self._sorted


@dataclass(slots=True)
class Audited:
    """Which pairs of a category all judges were asked about: all pairs, until one is found that is not."""

    _exits: bool = False
    _pairs: array[int] = field(default_factory=lambda: array("Q"))
    _known: set[int] | None = None

    def add(self, agreement: Agreement) -> None:
        """Note one pair; one that is audited costs eight bytes."""
        if agreement.audited:
            self._pairs.append(_digest(agreement.pair_id))
        else:
            self._exits = True
        self._known = None

    def __contains__(self, pair_id: str) -> bool:
        if not self._exits:
            return True
        if self._known is None:
            self._known = set(self._pairs)
        return _digest(pair_id) in self._known


@dataclass(slots=True)
class Tally:
    """Counts of a whole build, by category; feed generations and pairs before agreements."""

    categories: dict[str, CategoryCounts] = field(default_factory=lambda: defaultdict(CategoryCounts))
    generators: GeneratorIndex = field(default_factory=GeneratorIndex)
    _expected: dict[str, Side] = field(default_factory=dict)
    _audited: dict[str, Audited] = field(default_factory=lambda: defaultdict(Audited))

    def add_prompt(self, prompt: Prompt) -> None:
        """Count a prompt, or why it cannot be used, or why it was not rewritten."""
        counts = self.categories[prompt.category]
        counts.prompts += 1
        counts.rewritten += prompt.original is not None
        if prompt.unrewritten:
            counts.unrewritten[prompt.unrewritten.partition(":")[0]] += 1
        if prompt.status == "failed":
            _count(counts.prompt_failures, prompt.reason)

    def add_generation(self, generation: Generation) -> None:
        """Count a generation, or why it was never made."""
        counts = self.categories[generation.category]
        counts.generations += 1
        counts.modality = "video" if generation.fps else counts.modality
        self.generators.add(generation)
        if generation.status == "failed":
            _count(counts.generation_failures, generation.reason)

    def add_pair(self, pair: Pair) -> None:
        """Count a pair and remember the answer of a gold pair."""
        self.categories[pair.category].pairs += 1
        if pair.gold and pair.expected:
            self._expected[pair.id] = pair.expected

    def add_agreement(self, agreement: Agreement) -> None:
        """Count the outcome and the votes of a pair."""
        counts = self.categories[agreement.category]
        counts.add_outcome(agreement, self.generators)
        expected = self._expected.get(agreement.pair_id)
        if expected is not None:
            for vote in agreement.votes:
                counts.judges[vote.judge].add_gold_vote(vote, expected)
        elif agreement.votes:
            self._add_judged(agreement, counts)

    def _add_judged(self, agreement: Agreement, counts: CategoryCounts) -> None:
        counts.judged += 1
        counts.asked += len(agreement.votes)
        counts.audited += agreement.audited
        self._audited[agreement.category].add(agreement)
        if agreement.audited:
            counts.add_votes(agreement.votes, _digest(agreement.pair_id))

    def add_verdict(self, verdict: Verdict) -> None:
        """Count one answer of one judge; after the agreements, which say what was audited."""
        audited = verdict.pair_id not in self._expected and verdict.pair_id in self._audited[verdict.category]
        self.categories[verdict.category].judges[verdict.judge].add_verdict(verdict, audited)

    def add_calibration(self, calibration: Calibration) -> None:
        """Note what gold pairs say of one judge."""
        self.categories[calibration.category].calibrations[calibration.judge] = calibration

    def ordered(self, quotas: Mapping[str, int]) -> dict[str, CategoryCounts]:
        """Return the counts in the order of ``quotas``, then whatever else was met, by name."""
        names = [*quotas, *sorted(self.categories.keys() - quotas.keys())]
        return {name: self.categories[name] for name in names}


def decides(vote: Vote) -> bool:
    """Whether a vote names a side."""
    return vote.choice in ("first", "second")


def _count(reasons: Counter[str], reason: str | None) -> None:
    named = reason or "no reason given"
    reasons[named if named in reasons or len(reasons) < MOST_REASONS else OTHER_REASONS] += 1


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
