"""What a build will count, weigh and last, before it starts; from measured rates where a run has any."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.config import Category, Settings
from pipeline.generators.table import GENERATORS
from pipeline.judges.table import JUDGES
from pipeline.records import ORDERS, Modality
from pipeline.runners.progress import Speed
from pipeline.stages import Stage, generator_specs
from pipeline.stages.policies import make_policy
from pipeline.stages.quota import first_buckets
from pipeline.stages.recipes import expected_of_each, expected_pairs, expected_saved
from pipeline.stages.trust import asked_shares

RATED_BYTES: dict[Modality, int] = {"image": 454_000, "video": 3_200_000}
"""A 1024 px JPEG of quality 95, and 81 frames of 720p by x264 veryfast at crf 17."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CategoryPlan:
    """Expected figures of one category; ``seconds`` are worker-seconds, GPUs or cores."""

    name: str
    quota: int
    prompts: int
    generations: int
    pairs: int
    answers: int
    saved_generations: int
    saved_answers: int
    kept: int
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A build as it should go. ``measured`` says whether its rates come from the run or from tables."""

    categories: tuple[CategoryPlan, ...]
    workers: int
    wall_seconds: float
    measured: bool
    saved_generations: int
    saved_answers: int


def plan(settings: Settings, measured: dict[str, Speed]) -> Plan:
    """Work out the first round of a build."""
    workers = settings.profile.workers or os.cpu_count() or 1
    categories = tuple(_category(category, settings, measured) for category in settings.categories)
    return Plan(
        categories=categories,
        workers=workers,
        wall_seconds=sum(category.seconds for category in categories) / workers,
        measured=bool(measured),
        saved_generations=sum(category.saved_generations for category in categories),
        saved_answers=sum(category.saved_answers for category in categories),
    )


def _category(category: Category, settings: Settings, measured: dict[str, Speed]) -> CategoryPlan:
    cast = settings.cast(category)
    prompts = first_buckets(category, settings) * settings.profile.bucket_size
    gold = prompts * sum(recipe.share for recipe in cast.recipes if recipe.kind == "gold")
    shippable = prompts * expected_pairs(cast.recipes)
    made = {
        name: each * prompts for name, each in expected_of_each(cast, generator_specs(settings, cast)).items()
    }
    shares = _asked_shares(category, settings, measured)
    answers = {name: (shippable * share + gold) * len(ORDERS) for name, share in shares.items()}
    in_full = (shippable + gold) * len(ORDERS) * len(cast.judges)
    return CategoryPlan(
        name=category.name,
        quota=settings.quota(category),
        prompts=prompts,
        generations=round(sum(made.values())),
        pairs=round(shippable + gold),
        answers=round(sum(answers.values())),
        saved_generations=round(expected_saved(cast.recipes) * prompts),
        saved_answers=round(in_full - sum(answers.values())),
        kept=round(shippable * settings.profile.expected_kept),
        bytes=round(sum(made.values()) * RATED_BYTES[category.modality]),
        seconds=sum(
            count * _each("generate", category, name, GENERATORS[name].seconds, measured)
            for name, count in made.items()
        )
        + sum(
            count * _each("judge", category, name, JUDGES[name].seconds, measured)
            for name, count in answers.items()
        ),
    )


def _each(stage: str, category: Category, name: str, rated: float, measured: Mapping[str, Speed]) -> float:
    """Return the seconds of one generation or answer: measured, or else as the table rates it."""
    speed = measured.get(f"{stage}/{Stage.lane_of(category.name, name)}", Speed())
    return speed.seconds / speed.rows if speed.rows else rated


def _asked_shares(category: Category, settings: Settings, measured: Mapping[str, Speed]) -> dict[str, float]:
    """Return the share of the pairs that each judge is asked about, by the run's or the policy's rates."""
    policy, judges = settings.policy(category), settings.cast(category).judges
    rows = [measured.get(f"judge/{Stage.lane_of(category.name, name)}", Speed()).rows for name in judges]
    if not policy.early_exit:
        return dict.fromkeys(judges, 1.0)
    if rows[0]:
        return {name: count / rows[0] for name, count in zip(judges, rows, strict=True)}
    rates = {rate.judge: rate for rate in policy.rates}
    if not set(judges) <= rates.keys():
        return dict.fromkeys(judges, 1.0)
    unsettled = asked_shares(make_policy(policy, judges, {}), judges, rates)
    return {name: policy.audit + (1 - policy.audit) * unsettled[name] for name in judges}
