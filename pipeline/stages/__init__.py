"""The stages of a build. ORDER is the table of contents; ``lanes`` makes the stages of one category."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from pipeline.config import Cast, Category, Settings
from pipeline.generators.base import GeneratorSpec
from pipeline.generators.table import GENERATORS
from pipeline.judges.base import Hosting, JudgeSpec
from pipeline.judges.table import JUDGES
from pipeline.rewriters.base import RewriterSpec
from pipeline.rewriters.table import REWRITERS
from pipeline.stages.agree import AgreeStage
from pipeline.stages.ask import GoldStage
from pipeline.stages.base import Resources, Stage, Unit, commit, read_columns, read_part
from pipeline.stages.calibrate import CalibrateStage
from pipeline.stages.generate import GenerateStage
from pipeline.stages.judge import JudgeStage
from pipeline.stages.pair import PairStage
from pipeline.stages.prompts import PromptsStage
from pipeline.stages.quota import first_buckets
from pipeline.stages.recipes import generators_of
from pipeline.stages.rewrite import RewriteStage
from pipeline.stages.shard import ShardStage, ShardUnit, tar_key
from pipeline.weights import pinned

Row = TypeVar("Row", GeneratorSpec, JudgeSpec, RewriterSpec)

__all__ = [
    "ORDER",
    "AgreeStage",
    "CalibrateStage",
    "JudgeStage",
    "Lanes",
    "Resources",
    "ShardStage",
    "ShardUnit",
    "Stage",
    "Unit",
    "commit",
    "generator_specs",
    "hosting",
    "judge_spec",
    "kinds",
    "lanes",
    "read_columns",
    "read_part",
    "rewriter_spec",
    "tar_key",
]

ORDER: tuple[type[Stage], ...] = (
    PromptsStage,
    RewriteStage,
    GenerateStage,
    PairStage,
    GoldStage,
    CalibrateStage,
    JudgeStage,
    AgreeStage,
    ShardStage,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """All stages of one category over its first ``buckets`` buckets.

    Without gold pairs there is nothing to calibrate: no ``gold``, no ``calibrate``. Without a rewriter
    prompts are rendered as they are: no ``rewrite``.
    """

    category: Category
    prompts: PromptsStage
    rewrite: RewriteStage | None
    generate: tuple[GenerateStage, ...]
    pair: PairStage
    gold: tuple[GoldStage, ...]
    calibrate: CalibrateStage | None
    judge: tuple[JudgeStage, ...]
    agree: AgreeStage
    shard: ShardStage

    @property
    def all(self) -> tuple[Stage, ...]:
        """Every stage, each after those that it reads."""
        calibrate = (self.calibrate,) if self.calibrate else ()
        labels = (*self.gold, *calibrate, *self.judge, self.agree)
        texts = (self.prompts, self.rewrite) if self.rewrite else (self.prompts,)
        return (*texts, *self.generate, self.pair, *labels, self.shard)

    @property
    def rendered(self) -> PromptsStage | RewriteStage:
        """The stage whose prompts are rendered."""
        return self.rewrite or self.prompts

    def of(self, kind: type[Stage]) -> Iterator[Stage]:
        """Yield the stages of one kind."""
        return (stage for stage in self.all if isinstance(stage, kind))


def kinds(every: Iterable[Lanes]) -> list[type[Stage]]:
    """Return the stages that one category at least goes through, in their order."""
    there = {type(stage) for held in every for stage in held.all}
    return [kind for kind in ORDER if kind in there]


def lanes(
    category: Category,
    settings: Settings,
    *,
    buckets: int,
    skipped: tuple[int, ...] = (),
    skip_failed: bool = False,
) -> Lanes:
    """Make the stages of a category, each from those before it.

    ``skipped`` buckets have units that failed for good: shards are cut without them, and judges are
    calibrated without them if the user ships without them (``skip_failed``).
    """
    cast, profile, policy = settings.cast(category), settings.profile, settings.policy(category)
    prompts = PromptsStage(
        category,
        bucket_size=profile.bucket_size,
        perturbations=int(any(recipe.kind == "perturbed_prompt" for recipe in cast.recipes)),
        buckets=buckets,
    )
    rewrite = _rewrite(category, settings, prompts)
    specs = generator_specs(settings, cast)
    generate = _generate(category, settings, specs, rewrite or prompts)
    pair = PairStage(category, cast, specs=specs, prompts=rewrite or prompts, generate=generate)
    count = min(policy.calibration, first_buckets(category, settings))
    left_out = skipped if skip_failed else ()
    panel = [judge_spec(settings, name) for name in cast.judges]
    gold: tuple[GoldStage, ...] = ()
    calibrate = None
    if any(recipe.kind == "gold" for recipe in cast.recipes):
        gold = tuple(
            GoldStage(category, spec, pair=pair, hosting=hosting(settings, spec.name)) for spec in panel
        )
        calibrate = CalibrateStage(category, pair=pair, gold=gold, count=count, skipped=left_out)
    judge: tuple[JudgeStage, ...] = ()
    for spec in panel:
        stage = JudgeStage(
            category,
            spec,
            pair=pair,
            hosting=hosting(settings, spec.name),
            policy=policy,
            panel=cast.judges,
            before=judge,
            calibrate=calibrate,
        )
        judge = (*judge, stage)
    agree = AgreeStage(
        category,
        policy,
        pair=pair,
        judge=judge,
        gold=gold,
        calibrate=calibrate,
        count=count,
        skipped=left_out,
    )
    if rewrite:
        _on(rewrite, settings.accelerator(rewrite.spec.name, "rewriters"))
    for each in generate:
        _on(each, settings.accelerator(each.spec.name, "generators"))
    for asked in (*gold, *judge):
        _on(asked, settings.accelerator(asked.spec.name, "judges"))
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
        rewrite=rewrite,
        generate=generate,
        pair=pair,
        gold=gold,
        calibrate=calibrate,
        judge=judge,
        agree=agree,
        shard=shard,
    )


def _on(stage: Stage, accelerator: str | None) -> None:
    """Have a stage that needs GPUs run on those of one type."""
    if stage.resources.gpus:
        stage.resources = replace(stage.resources, accelerator=accelerator)


def _rewrite(category: Category, settings: Settings, prompts: PromptsStage) -> RewriteStage | None:
    wanted = settings.cast(category).rewrite
    if wanted is None:
        return None
    spec = rewriter_spec(settings, wanted.rewriter)
    return RewriteStage(category, wanted, spec, prompts=prompts, hosting=hosting(settings, spec.name))


def _generate(
    category: Category,
    settings: Settings,
    specs: Mapping[str, GeneratorSpec],
    prompts: PromptsStage | RewriteStage,
) -> tuple[GenerateStage, ...]:
    """Make the generate stages: first those that start from nothing, then those that start from them."""
    cast, budget = settings.cast(category), settings.profile.budget
    first = tuple(
        GenerateStage(category, cast, name, specs=specs, prompts=prompts, budget=budget)
        for name, spec in specs.items()
        if spec.starts_from == "nothing"
    )
    second = tuple(
        GenerateStage(category, cast, name, specs=specs, prompts=prompts, budget=budget, sources=first)
        for name, spec in specs.items()
        if spec.starts_from != "nothing"
    )
    return (*first, *second)


def generator_specs(settings: Settings, cast: Cast) -> dict[str, GeneratorSpec]:
    """Return the rows of all generators that a cast's recipes call, with the weights that are pinned."""
    return {name: _placed(GENERATORS[name], settings) for name in generators_of(cast)}


def judge_spec(settings: Settings, name: str) -> JudgeSpec:
    """Return the row of a judge, with the weights that the settings pin."""
    return _placed(JUDGES[name], settings)


def rewriter_spec(settings: Settings, name: str) -> RewriterSpec:
    """Return the row of a rewriter, with the weights that the settings pin."""
    return _placed(REWRITERS[name], settings)


def hosting(settings: Settings, judge: str) -> Hosting:
    """Return where a judge, or a rewriter, answers under the settings' profile."""
    served = next((item.urls for item in settings.profile.endpoints if item.judge == judge), ())
    return Hosting(urls=served, vllm=settings.profile.vllm)


def _placed(row: Row, settings: Settings) -> Row:
    gpus = 0 if settings.profile.device == "cpu" else row.gpus
    return replace(row, weights=pinned(row.weights, settings), gpus=gpus)
