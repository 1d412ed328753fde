"""What a build will count, weigh and last, before it starts; from measured rates where a run has any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config import Category, Settings
from pipeline.generators.table import GENERATORS
from pipeline.judges.table import JUDGES
from pipeline.records import ORDERS, Modality
from pipeline.runners.build import first_buckets
from pipeline.runners.progress import Speed
from pipeline.stages import Stage
from pipeline.stages.recipes import expected_generations, expected_pairs

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


def plan(settings: Settings, measured: dict[str, Speed]) -> Plan:
    """Work out the first round of a build."""
    workers = settings.profile.workers or os.cpu_count() or 1
    categories = tuple(_category(category, settings, measured) for category in settings.categories)
    return Plan(
        categories=categories,
        workers=workers,
        wall_seconds=sum(category.seconds for category in categories) / workers,
        measured=bool(measured),
        saved_generations=sum(2 * category.pairs - category.generations for category in categories),
    )


def _category(category: Category, settings: Settings, measured: dict[str, Speed]) -> CategoryPlan:
    cast = settings.cast(category)
    prompts = first_buckets(category, settings) * settings.profile.bucket_size
    gold = sum(recipe.share for recipe in cast.recipes if recipe.kind == "gold")
    generations = prompts * expected_generations(cast.recipes)
    shippable = prompts * expected_pairs(cast.recipes)
    pairs = shippable + prompts * gold
    answers = pairs * len(cast.judges) * len(ORDERS)
    generating = _mean(_generate_seconds(category, cast.generators, measured)) * generations
    judging = _mean(_judge_seconds(category, cast.judges, measured)) * answers
    return CategoryPlan(
        name=category.name,
        quota=settings.quota(category),
        prompts=prompts,
        generations=round(generations),
        pairs=round(pairs),
        answers=round(answers),
        kept=round(shippable * settings.profile.expected_kept),
        bytes=round(generations * RATED_BYTES[category.modality]),
        seconds=generating + judging,
    )


def _generate_seconds(
    category: Category, generators: tuple[str, ...], measured: dict[str, Speed]
) -> Iterator[float]:
    for name in generators:
        speed = measured.get(f"generate/{Stage.lane_of(category.name, name)}", Speed())
        yield speed.seconds / speed.rows if speed.rows else GENERATORS[name].seconds


def _judge_seconds(
    category: Category, judges: tuple[str, ...], measured: dict[str, Speed]
) -> Iterator[float]:
    for name in judges:
        speed = measured.get(f"judge/{Stage.lane_of(category.name, name)}", Speed())
        yield speed.seconds / speed.rows if speed.rows else JUDGES[name].seconds


def _mean(values: Iterator[float]) -> float:
    every = list(values)
    return sum(every) / len(every)
