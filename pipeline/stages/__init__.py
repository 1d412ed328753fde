"""The stages of a build. ORDER is the table of contents; ``lanes`` makes the stages of one category."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.config import Category, Settings
from pipeline.stages.agree import AgreeStage
from pipeline.stages.base import Resources, Stage, Unit, commit, read_columns, read_part
from pipeline.stages.generate import GenerateStage
from pipeline.stages.judge import JudgeStage
from pipeline.stages.pair import PairStage
from pipeline.stages.prompts import PromptsStage
from pipeline.stages.shard import ShardStage, ShardUnit, tar_key

__all__ = [
    "ORDER",
    "Lanes",
    "Resources",
    "ShardStage",
    "ShardUnit",
    "Stage",
    "Unit",
    "commit",
    "lanes",
    "read_columns",
    "read_part",
    "tar_key",
]

ORDER: tuple[type[Stage], ...] = (
    PromptsStage,
    GenerateStage,
    PairStage,
    JudgeStage,
    AgreeStage,
    ShardStage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """All stages of one category over its first ``buckets`` buckets."""

    category: Category
    prompts: PromptsStage
    generate: tuple[GenerateStage, ...]
    pair: PairStage
    judge: tuple[JudgeStage, ...]
    agree: AgreeStage
    shard: ShardStage

    def of(self, kind: type[Stage]) -> Iterator[Stage]:
        """Yield the stages of one kind."""
        every = (self.prompts, *self.generate, self.pair, *self.judge, self.agree, self.shard)
        return (stage for stage in every if isinstance(stage, kind))


def lanes(category: Category, settings: Settings, *, buckets: int, skipped: tuple[int, ...] = ()) -> Lanes:
    """Make the stages of a category, each from those before it."""
    cast, profile = settings.cast(category), settings.profile
    gold = {name for recipe in cast.recipes for name in (recipe.winner, recipe.loser) if name}
    prompts = PromptsStage(
        category,
        bucket_size=profile.bucket_size,
        perturbations=int(any(recipe.kind == "perturbed_prompt" for recipe in cast.recipes)),
        buckets=buckets,
    )
    generate = tuple(
        GenerateStage(category, cast, name, prompts=prompts)
        for name in (*cast.generators, *sorted(gold - set(cast.generators)))
    )
    pair = PairStage(category, cast, prompts=prompts, generate=generate)
    judge = tuple(JudgeStage(category, name, pair=pair) for name in cast.judges)
    agree = AgreeStage(category, pair=pair, judge=judge)
    shard = ShardStage(
        category,
        agree=agree,
        shard_bytes=profile.shard_bytes,
        licence_profile=profile.licence_profile,
        skipped=skipped,
    )
    return Lanes(
        category=category,
        prompts=prompts,
        generate=generate,
        pair=pair,
        judge=judge,
        agree=agree,
        shard=shard,
    )
