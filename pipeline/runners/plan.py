"""What a build will count, cost and last, before it starts; a pilot's measurements replace what is cited."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pipeline import pools
from pipeline.config import Cast, Category, Settings
from pipeline.errors import ConfigError
from pipeline.generators.table import GENERATORS
from pipeline.judges.table import JUDGES
from pipeline.records import ORDERS
from pipeline.rewriters.table import REWRITERS
from pipeline.runners.pilot import Pilot
from pipeline.runners.rates import Figure, Rates, read_rates
from pipeline.stages import generator_specs
from pipeline.stages.policies import make_policy
from pipeline.stages.recipes import expected_of_each, expected_pairs, expected_saved
from pipeline.stages.trust import asked_shares

CLUSTERS = (8, 64, 512)
"""GPUs to say the wall time of, where nobody gives a number."""

KINDS: Mapping[str, Literal["generators", "judges", "rewriters"]] = {
    "rewrite": "rewriters",
    "generate": "generators",
    "judge": "judges",
}
"""Stage -> what its models are called in a profile."""

TOP = 3
"""Lines of what costs most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one model does for one category; ``each`` in seconds an item, ``hours`` of ``gpu``, or of a core.

    ``dollars`` is None without a price.
    """

    stage: str
    category: str
    model: str
    items: int
    each: Figure
    gpu: str | None
    hours: float
    dollars: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryPlan:
    """Expected figures of one category; ``pairs`` are all that are judged, gold pairs among them.

    ``capacity`` is how many prompts the pool has (None: a user's, read when the build begins), ``missing``
    how many pairs of the quota it cannot give.
    """

    name: str
    quota: int
    prompts: int
    capacity: int | None
    generations: int
    pairs: int
    kept_share: Figure
    kept: int
    missing: int
    answers: int
    saved_generations: int
    saved_answers: int
    bytes: int
    shard_bytes: int
    part_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """One thing that is paid for, over all categories: a model at one stage, or storage for a month."""

    name: str
    hours: float
    dollars: float | None
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A build as it should go, until every quota is met.

    ``least`` and ``most`` scale all work to the ends of the intervals of the shares kept. ``dollars`` sums up
    what has a price (None: nothing has), without storage; ``unpriced`` names the rest. ``walls`` are seconds
    by the number of GPUs, or of workers if no GPU is needed. ``top`` is what costs most: in dollars if every
    GPU has a price, else in hours.
    """

    categories: tuple[CategoryPlan, ...]
    work: tuple[Work, ...]
    gpu_hours: Mapping[str, float]
    core_hours: float
    least: float
    most: float
    storage_bytes: int
    storage_dollars: float | None
    dollars: float | None
    unpriced: tuple[str, ...]
    walls: Mapping[int, float]
    top: tuple[Bill, ...]
    measured: bool

    @property
    def saved_generations(self) -> int:
        """Generations more if no two pairs shared any."""
        return sum(category.saved_generations for category in self.categories)

    @property
    def saved_answers(self) -> int:
        """Answers more if every judge were asked about every pair."""
        return sum(category.saved_answers for category in self.categories)


def plan(
    settings: Settings,
    pilot: Pilot | None = None,
    *,
    prices: Mapping[str, float] | None = None,
    gpus: int | None = None,
) -> Plan:
    """Work out a build. ``prices`` in US dollars go before those of the profile; ``gpus`` share the work.

    Raises ConfigError for a price below 0, or fewer than 1 GPU.
    """
    rates, pilot = read_rates(), pilot or Pilot()
    paid = {price.item: price.dollars for price in settings.profile.prices} | dict(prices or {})
    _require_sound(paid, gpus)
    planners = [
        _Planner(settings=settings, category=category, pilot=pilot, rates=rates, prices=paid)
        for category in settings.categories
    ]
    work = tuple(item for planner in planners for item in planner.work())
    categories = tuple(planner.summary() for planner in planners)
    stored = sum(each.bytes + each.shard_bytes + each.part_bytes for each in categories)
    monthly = paid["TB"] * stored / 1e12 if "TB" in paid else None
    hours, unpriced = _by_gpu(work), {each.gpu or "core" for each in work if each.dollars is None}
    cores = math.fsum(each.hours for each in work if each.gpu is None)
    known = [each.dollars for each in work if each.dollars is not None]
    return Plan(
        categories=categories,
        work=work,
        gpu_hours=hours,
        core_hours=cores,
        least=_scaled(categories, work, low=False),
        most=_scaled(categories, work, low=True),
        storage_bytes=stored,
        storage_dollars=monthly,
        dollars=math.fsum(known) if known else None,
        unpriced=tuple(sorted(unpriced)),
        walls=_walls(settings, math.fsum(hours.values()), cores, gpus),
        top=_top(work, monthly, priced=bool(known) and unpriced <= {"core"}),
        measured=bool(pilot.speeds),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planner:
    """One category's plan."""

    settings: Settings
    category: Category
    pilot: Pilot
    rates: Rates
    prices: Mapping[str, float]

    def kept(self) -> Figure:
        """Return the share of pairs to be kept."""
        found = self.pilot.of(self.category, self.settings)
        if found is None:
            assumed = self.settings.profile.expected_kept
            return Figure(value=assumed, origin="profile", source="expected_kept of the profile")
        share = found.kept
        source = f"{share.count:,} pairs of the run"
        return Figure(value=share.value, origin="pilot", source=source, low=share.low, high=share.high)

    def capacity(self) -> int | None:
        """Return the prompts that the category's pool has, None for a user's."""
        return pools.capacity(self.category.name) if self.category.pool.uri is None else None

    def wanted(self) -> int:
        """Return the prompts that the quota takes, in whole buckets."""
        bucket = self.settings.profile.bucket_size
        per_prompt = expected_pairs(self._cast.recipes) * max(self.kept().value, 1e-6)
        return math.ceil(self.settings.quota(self.category) / per_prompt / bucket) * bucket

    def prompts(self) -> int:
        """Return the prompts that the build will take: no more than there are."""
        return min(self.wanted(), self.capacity() or self.wanted())

    def summary(self) -> CategoryPlan:
        """Return the figures of the category as a whole."""
        prompts, kept, quota = self.prompts(), self.kept(), self.settings.quota(self.category)
        shippable, gold = prompts * expected_pairs(self._cast.recipes), self._gold()
        answers = sum(self._answers().values())
        in_full = (shippable + gold) * len(ORDERS) * len(self._cast.judges)
        expected = min(quota, round(shippable * kept.value)) if prompts < self.wanted() else quota
        made = self._generations()
        weights = {name: self._weight(name) for name in made}
        media = sum(count * weights[name] for name, count in made.items())
        compared = [weights[name] for name in self._cast.generators]
        sample = 2 * sum(compared) / len(compared) + self.rates.records.kept
        return CategoryPlan(
            name=self.category.name,
            quota=quota,
            prompts=prompts,
            capacity=self.capacity(),
            generations=round(sum(made.values())),
            pairs=round(shippable + gold),
            kept_share=kept,
            kept=expected,
            missing=quota - expected,
            answers=round(answers),
            saved_generations=round(expected_saved(self._cast.recipes) * prompts),
            saved_answers=round(in_full - answers),
            bytes=round(media),
            shard_bytes=round(expected * sample),
            part_bytes=round((shippable + gold) * self.rates.records.judged),
        )

    def work(self) -> Iterator[Work]:
        """Yield what each model does."""
        if self._cast.rewrite:
            row = REWRITERS[self._cast.rewrite.rewriter]
            count = self.prompts() * self._cast.rewrite.share
            yield self._work("rewrite", row.name, count, row.seconds, row.gpus)
        specs = generator_specs(self.settings, self._cast)
        for name, count in self._generations().items():
            spec = specs[name]
            yield self._work("generate", name, count, spec.seconds, spec.gpus, dollars=spec.dollars)
        for name, count in self._answers().items():
            gpus = 0.0 if self.settings.profile.device == "cpu" else JUDGES[name].gpus
            yield self._work("judge", name, count, JUDGES[name].seconds, gpus)

    @property
    def _cast(self) -> Cast:
        return self.settings.cast(self.category)

    def _gold(self) -> float:
        return self.prompts() * sum(each.share for each in self._cast.recipes if each.kind == "gold")

    def _generations(self) -> dict[str, float]:
        each = expected_of_each(self._cast, generator_specs(self.settings, self._cast))
        return {name: count * self.prompts() for name, count in each.items()}

    def _answers(self) -> dict[str, float]:
        shippable, gold = self.prompts() * expected_pairs(self._cast.recipes), self._gold()
        return {name: (shippable * share + gold) * len(ORDERS) for name, share in self._asked().items()}

    def _asked(self) -> dict[str, float]:
        """Return the share of pairs that each judge is asked about, by the run's or the policy's rates."""
        policy, judges = self.settings.policy(self.category), self._cast.judges
        if not policy.early_exit:
            return dict.fromkeys(judges, 1.0)
        if found := self.pilot.of(self.category, self.settings):
            return dict(found.asked)
        known = {rate.judge: rate for rate in policy.rates}
        if not set(judges) <= known.keys():
            return dict.fromkeys(judges, 1.0)
        unsettled = asked_shares(make_policy(policy, judges, {}), judges, known)
        return {name: policy.audit + (1 - policy.audit) * unsettled[name] for name in judges}

    def _weight(self, generator: str) -> float:
        if found := self.pilot.weight(self.category.name, generator):
            return found.value
        spec = GENERATORS[generator]
        return self.rates.weight(spec.modality, spec.size(self.settings.size(self.category))).value

    def _work(
        self, stage: str, model: str, count: float, rated: float, gpus: float, *, dollars: float = 0.0
    ) -> Work:
        each, gpu = self._each(stage, model, rated, gpus), self._gpu(stage, model) if gpus else None
        hours = count * each.value / 3600
        price = self.prices.get(gpu or "core", self.prices.get("GPU") if gpu else None)
        bought = count * self.prices.get(model, dollars)
        return Work(
            stage=stage,
            category=self.category.name,
            model=model,
            items=round(count),
            each=each,
            gpu=gpu,
            hours=hours,
            dollars=None if price is None and not bought else bought + hours * (price or 0.0),
        )

    def _each(self, stage: str, model: str, rated: float, gpus: float) -> Figure:
        """Return the seconds of one item: of all its GPUs together, or of a core.

        A judge that is served elsewhere keeps a worker waiting, not GPUs: a run's speed is none of its own.
        """
        served = any(endpoint.judge == model for endpoint in self.settings.profile.endpoints)
        measured = self.pilot.seconds(stage, self.category.name, model)
        if measured is not None and not (served and gpus):
            return Figure(value=measured * (gpus or 1.0), origin="pilot", source="the run")
        if cited := self.rates.cited(model) if gpus else None:
            return Figure(value=cited.each, origin="cited", source=f"{cited.gpu}, {cited.source}")
        return Figure(value=rated, origin="table", source="estimate in the table of models")

    def _gpu(self, stage: str, model: str) -> str:
        """Return the type of GPU that a model runs on: the profile's, or the one that is cited."""
        placed = self.settings.accelerator(model, KINDS[stage])
        cited = self.rates.cited(model)
        return placed or (cited.gpu if cited else "H200")


def _require_sound(prices: Mapping[str, float], gpus: int | None) -> None:
    for item, dollars in prices.items():
        if not dollars >= 0:
            raise ConfigError(f"plan: price {item} = {dollars:g} must be 0 or more")
    if gpus is not None and gpus < 1:
        raise ConfigError(f"plan: gpus = {gpus} must be 1 or more")


def _scaled(categories: Iterable[CategoryPlan], work: Iterable[Work], *, low: bool) -> float:
    """Return what all work comes to, as a factor, if every share kept is at one end of its interval."""
    shares = {each.name: each.kept_share for each in categories}
    every = list(work)
    every = [each for each in every if each.gpu] or every
    planned = math.fsum(each.hours for each in every)

    def factor(share: Figure) -> float:
        end = share.low if low else share.high
        return 1.0 if end is None else share.value / max(end, 1e-6)

    return math.fsum(each.hours * factor(shares[each.category]) for each in every) / (planned or 1.0)


def _by_gpu(work: Iterable[Work]) -> dict[str, float]:
    hours: defaultdict[str, float] = defaultdict(float)
    for each in work:
        if each.gpu:
            hours[each.gpu] += each.hours
    return dict(hours)


def _walls(settings: Settings, gpu_hours: float, core_hours: float, gpus: int | None) -> dict[int, float]:
    """Return wall seconds by the number of GPUs, or of workers where no GPU is needed."""
    if gpu_hours:
        return {count: gpu_hours * 3600 / count for count in ((gpus,) if gpus else CLUSTERS)}
    workers = settings.profile.workers or os.cpu_count() or 1
    return {workers: core_hours * 3600 / workers}


def _top(work: Iterable[Work], storage: float | None, *, priced: bool) -> tuple[Bill, ...]:
    """Return what costs most, in dollars or in hours of GPUs (of cores if no GPU is needed)."""
    every = list(work)
    every = [each for each in every if each.gpu] or every if not priced else every
    bills: dict[str, Bill] = {}
    for each in every:
        name = f"{each.stage} {each.model}"
        before = bills.get(name, Bill(name=name, hours=0.0, dollars=0.0, share=0.0))
        dollars = (before.dollars or 0.0) + (each.dollars or 0.0) if priced else None
        bills[name] = replace(before, hours=before.hours + each.hours, dollars=dollars)
    if priced and storage is not None:
        bills["storage"] = Bill(name="storage for a month", hours=0.0, dollars=storage, share=0.0)

    def weight(bill: Bill) -> float:
        return bill.hours if bill.dollars is None else bill.dollars

    total = math.fsum(map(weight, bills.values())) or 1.0
    largest = sorted(bills.values(), key=weight, reverse=True)[:TOP]
    return tuple(replace(bill, share=weight(bill) / total) for bill in largest)
