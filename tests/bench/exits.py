"""What early exit saves, and whether the audited share tells what the full panel would have told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

from pipeline.config import Policy, Rate
from pipeline.records import Agreement, Calibration, Pair, Reason, Vote
from pipeline.report.statistics import CategoryCounts, Share, Tally
from pipeline.stages.judge import audited
from pipeline.stages.policies import AgreementPolicy, make_policy
from pipeline.stages.trust import asked_shares
from tests.bench.simulated import Case, Draw, World

Key = tuple[str, str]
"""Kind of statistic, and of whom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """What early exit costs, in shares of the full panel's questions and seconds.

    ``foretold`` are the questions expected from the judges' rates on gold pairs; ``same_kept`` whether
    exactly the pairs are kept that the full panel keeps.
    """

    order: tuple[str, ...]
    kept: float
    same_kept: bool
    questions: float
    foretold: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A statistic with its 95 % interval."""

    value: float
    interval: tuple[float, float]

    def holds(self, truth: float) -> bool:
        """Whether the interval holds the true value."""
        return self.interval[0] <= truth <= self.interval[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One statistic of one draw: of the full panel, of the audited pairs, and of all that was asked."""

    kind: str
    full: float
    audited: Estimate
    asked: Estimate


def early_exit(world: World, draws: Sequence[Draw], settings: Policy) -> Exit:
    """Ask judges one after the other, in the order that should cost least."""
    order = cheapest_order(world, draws[0].calibrations, settings)
    asked: Counter[str] = Counter()
    kept, same, foretold = 0, True, 0.0
    for drawn in draws:
        policy = make_policy(settings, order, drawn.calibrations)
        shares = asked_shares(policy, order, rates(drawn.calibrations))
        foretold += settings.audit + (1 - settings.audit) * sum(shares.values()) / len(order)
        for case in drawn.cases:
            votes = ask(case, policy, settings, order)
            asked.update(vote.judge for vote in votes)
            full, found = policy.decide(list(case.votes.values())), policy.decide(votes)
            kept += not isinstance(found, Reason)
            same &= found == full or (isinstance(found, Reason) and isinstance(full, Reason))
    pairs = sum(len(drawn.cases) for drawn in draws)
    seconds = {judge.name: judge.seconds for judge in world.judges}
    return Exit(
        order=order,
        kept=kept / pairs,
        same_kept=same,
        questions=asked.total() / (pairs * len(order)),
        foretold=foretold / len(draws),
        seconds=sum(seconds[name] * count for name, count in asked.items()) / (pairs * sum(seconds.values())),
    )


def cheapest_order(world: World, known: Mapping[str, Calibration], settings: Policy) -> tuple[str, ...]:
    """Return the order of judges with the least seconds expected for a pair."""
    policy, seconds = make_policy(settings, world.panel, known), {j.name: j.seconds for j in world.judges}

    def cost(order: tuple[str, ...]) -> float:
        return sum(seconds[name] * share for name, share in asked_shares(policy, order, rates(known)).items())

    return min(permutations(world.panel), key=cost)


def rates(known: Mapping[str, Calibration]) -> dict[str, Rate]:
    """Return what gold pairs say of each judge as rates, which settings could hold."""
    return {name: _rate(found) for name, found in known.items()}


def _rate(found: Calibration) -> Rate:
    votes = found.right + found.wrong
    answers = votes + found.ties + found.inconsistent
    return Rate(judge=found.judge, accuracy=found.right / max(1, votes), vote=votes / max(1, answers))


def ask(case: Case, policy: AgreementPolicy, settings: Policy, order: Sequence[str]) -> list[Vote]:
    """Ask as the judge stage does: all judges about an audited pair, else until the pair is settled."""
    votes: list[Vote] = []
    for place, judge in enumerate(order):
        if not audited(_pair(case), settings):
            if policy.settled(votes, order[place:]):
                break
            if judge in policy.abstaining:
                continue
        votes.append(case.votes[judge])
    return votes


def audit(world: World, drawn: Draw, settings: Policy) -> Iterator[Told]:
    """Compare the statistics of the report under early exit with those of the full panel."""
    order = cheapest_order(world, drawn.calibrations, settings)
    policy = make_policy(settings, order, drawn.calibrations)
    votes = [(case, ask(case, policy, settings, order)) for case in drawn.cases]
    full = _estimates([(case, list(case.votes.values()), True) for case in drawn.cases], world)
    told = _estimates([(case, given, audited(_pair(case), settings)) for case, given in votes], world)
    naive = _estimates([(case, given, True) for case, given in votes], world)
    for key, estimate in full.items():
        if key in told and key in naive:
            yield Told(kind=key[0], full=estimate.value, audited=told[key], asked=naive[key])


def _count(rows: Sequence[tuple[Case, list[Vote], bool]]) -> CategoryCounts:
    tally = Tally()
    for case, votes, all_asked in rows:
        tally.add_agreement(_agreement(case, votes, all_asked))
    for case, votes, _ in rows:
        for vote in votes:
            for verdict in case.verdicts[vote.judge]:
                tally.add_verdict(verdict)
    return tally.categories["simulated"]


def _estimates(rows: Sequence[tuple[Case, list[Vote], bool]], world: World) -> dict[Key, Estimate]:
    counts = _count(rows)
    shares: dict[Key, Share] = {}
    for name in world.panel:
        shares["same in both orders", name] = counts.judges[name].consistency
        shares["chose the side shown first", name] = counts.judges[name].first_shown
    for one, other in combinations(world.panel, 2):
        shares["two judges chose the same side", f"{one} {other}"] = counts.agreement(one, other)
    found = {
        key: Estimate(value=share.value, interval=share.interval)
        for key, share in shares.items()
        if share.value is not None
    }
    alpha, interval = counts.alpha.value, counts.alpha.interval
    if alpha is not None and interval is not None:
        found["Krippendorff's alpha", "all"] = Estimate(value=alpha, interval=interval)
    return found


def _pair(case: Case) -> Pair:
    return Pair(
        id=case.id,
        root_id=case.id,
        category="simulated",
        recipe="simulated",
        first_id=f"{case.id} first",
        second_id=f"{case.id} second",
        first_sha256=None,
        second_sha256=None,
        expected=None,
        gold=False,
    )


def _agreement(case: Case, votes: list[Vote], all_asked: bool) -> Agreement:
    return Agreement(
        id=case.id,
        pair_id=case.id,
        root_id=case.id,
        category="simulated",
        policy="unanimous",
        kept=False,
        winner_id=None,
        loser_id=None,
        confidence=None,
        reason=Reason.CONFLICT,
        votes=tuple(votes),
        bytes=0,
        licence_profile=None,
        audited=all_asked,
    )
