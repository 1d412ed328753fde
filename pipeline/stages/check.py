"""Names and numbers of the settings against the tables they refer to, before any work starts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from pipeline import pools, weights
from pipeline.config import Cast, Category, Policy, Profile, Recipe, Settings, Size, nearest
from pipeline.errors import ConfigError, VipoError
from pipeline.generators.base import GeneratorSpec
from pipeline.generators.remote import permit
from pipeline.generators.safety import CHECKERS, require_checker
from pipeline.generators.table import GENERATORS
from pipeline.judges.base import JudgeSpec
from pipeline.judges.table import JUDGES
from pipeline.records import Modality
from pipeline.rewriters.base import RewriterSpec
from pipeline.rewriters.table import REWRITERS
from pipeline.stages import generator_specs, judge_spec, policies, recipes, rewriter_spec
from pipeline.stages.prompts import read_pool
from pipeline.stages.recipes import candidates
from pipeline.stages.shard import PROFILES as SHIPPED


def check(settings: Settings) -> None:
    """Refuse settings that cannot work. Raises ConfigError naming file, key and remedy."""
    for category in settings.categories:
        cast = settings.cast(category)
        _generators(category, "generators", cast.generators)
        _judges(category, cast)
        for recipe in cast.recipes:
            _recipe(category, cast, recipe)
        _policy(category, cast, settings.policy(category))
        _size(category, settings.size(category))
        if cast.safety:
            _known(category, "safety.checker", cast.safety.checker, CHECKERS)
        _rewrite(category, cast)
        _pool(category)
        _quota(category, cast, settings)
    _endpoints(settings)
    _accelerators(settings)


def check_models(settings: Settings) -> None:
    """Refuse models that are not there, or not to be had, before any worker is placed.

    Raises ConfigError, or what ``weights.check`` raises, for the first; it says how many more there are.
    """
    profile, casts = settings.profile, [settings.cast(category) for category in settings.categories]
    served = {endpoint.judge for endpoint in profile.endpoints}
    for cast in casts:
        if cast.safety:
            require_checker(cast.safety.checker)
    rows: dict[str, GeneratorSpec | JudgeSpec | RewriterSpec] = {}
    for cast in casts:
        for generator in generator_specs(settings, cast).values():
            _permitted(generator, profile)
            rows[generator.name] = generator
        rows |= {name: judge_spec(settings, name) for name in cast.judges if name not in served}
        if cast.rewrite and cast.rewrite.rewriter not in served:
            rows[cast.rewrite.rewriter] = rewriter_spec(settings, cast.rewrite.rewriter)
    for row in rows.values():
        if row.gpus and profile.runner == "local":
            raise ConfigError(
                f"profile {profile.name}: {row.name} needs a GPU, runner local gives out none: --runner ray"
            )
    _weights(rows.values())


def _permitted(generator: GeneratorSpec, profile: Profile) -> None:
    if generator.family == "remote":
        permit(generator, profile)
    if generator.licence_profile not in SHIPPED[profile.licence_profile]:
        raise ConfigError(
            f"profile {profile.name}: what {generator.name} makes ({generator.licence}) ships only under "
            'licence_profile = "research": set it, or name other generators'
        )


def _weights(rows: Iterable[GeneratorSpec | JudgeSpec | RewriterSpec]) -> None:
    failures: list[VipoError] = []
    for model in {row.weights: None for row in rows if row.weights}:
        try:
            weights.check(model)
        except VipoError as error:
            failures.append(error)
    if failures:
        more = f" (and {len(failures) - 1} more models: `vipo doctor` lists all)" if failures[1:] else ""
        raise type(failures[0])(f"{failures[0]}{more}")


def check_pools(settings: Settings) -> None:
    """Read every pool of the user once. Raises ConfigError or StorageError."""
    for category in settings.categories:
        if category.pool.uri is not None:
            read_pool(category, bucket_size=settings.profile.bucket_size)


def _generators(category: Category, key: str, names: Sequence[str], modality: Modality | None = None) -> None:
    wanted = modality or category.modality
    fitting = [name for name, spec in GENERATORS.items() if spec.modality == wanted]
    for name in names:
        _known(category, key, name, GENERATORS)
        problem = f"{key} names {name!r}, which is for {GENERATORS[name].modality}s: "
        _require(category, name in fitting, problem + nearest(name, fitting))
    _distinct(category, key, names)


def _judges(category: Category, cast: Cast) -> None:
    fitting = [name for name, spec in JUDGES.items() if category.modality in spec.modalities]
    for name in cast.judges:
        _known(category, "judges", name, JUDGES)
        problem = f"judges names {name!r}, which is for {JUDGES[name].modalities[0]}s: "
        _require(category, name in fitting, problem + nearest(name, fitting))
    _distinct(category, "judges", cast.judges)


def _distinct(category: Category, key: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    _require(category, twice is None, f"{key} names {twice!r} twice: remove one")


def _known(category: Category, key: str, name: str, valid: Collection[str]) -> None:
    if name not in valid:
        raise ConfigError(f"{category.source}: {key} names unknown {name!r}: {nearest(name, valid)}")


def _recipe(category: Category, cast: Cast, recipe: Recipe) -> None:
    key = f"recipe {recipe.kind!r}:"
    _known(category, "recipes", recipe.kind, recipes.KINDS)
    _require(category, 0 < recipe.share <= 1, f"{key} share = {recipe.share:g} must be in (0, 1]")
    if recipe.kind in ("gold", "degraded"):
        _losers(category, recipe, key)
    if recipe.kind == "shared_first_frame":
        _require(category, category.modality == "video", f"{key} is for videos")
        _require(category, bool(recipe.first_frames), f"{key} needs first_frames: name an image generator")
        _generators(category, f"{key} first_frames", recipe.first_frames, "image")
    if recipe.kind in ("across_models", "across_seeds", "shared_first_frame"):
        _require(category, recipe.generations >= 2, f"{key} generations must be 2 or more")
    _candidates(category, cast, recipe, key)


def _losers(category: Category, recipe: Recipe, key: str) -> None:
    """A known order comes from two generators named, or from degrading what one has made."""
    if recipe.losers:
        _generators(category, f"{key} losers", recipe.losers)
        worse = [name for name, spec in GENERATORS.items() if spec.starts_from == "own"]
        for name in recipe.losers:
            _known(category, f"{key} losers", name, worse)
        return
    _require(category, recipe.kind == "gold", f"{key} needs losers: name generators that degrade")
    _require(category, bool(recipe.winner and recipe.loser), f"{key} needs a winner and a loser, or losers")
    _generators(category, key, (str(recipe.winner), str(recipe.loser)))


def _candidates(category: Category, cast: Cast, recipe: Recipe, key: str) -> None:
    """Refuse a recipe that picks from the cast's generators and finds too few that do what it needs."""
    if recipe.winner is None:
        several = recipe.kind in ("across_models", "shared_first_frame")
        needed, fitting = (
            recipe.generations if several else 1,
            candidates(recipe, cast.generators, GENERATORS),
        )
        start = "start from an image" if recipe.kind == "shared_first_frame" else "need nothing but a prompt"
        problem = f"{key} needs {needed} generators that {start}, only {len(fitting)} are named: add some"
        _require(category, len(fitting) >= needed, problem)


def _policy(category: Category, cast: Cast, policy: Policy) -> None:
    _known(category, "policy.kind", policy.kind, policies.KINDS)
    for rate in policy.rates:
        _known(category, "policy.rates", rate.judge, cast.judges)
    if policy.kind == "single":
        _known(category, "policy.judge", str(policy.judge), cast.judges)
    elif policy.kind in ("unanimous", "majority"):
        possible = 1 <= policy.votes <= len(cast.judges)
        problem = f"policy.votes = {policy.votes} cannot be reached"
        _require(category, possible, f"{problem} by {len(cast.judges)} judges: lower it or add judges")
    else:
        fits = 0.5 < policy.precision < 1
        _require(category, fits, f"policy.precision = {policy.precision:g} must be in (0.5, 1)")
    _require(category, 0 <= policy.audit <= 1, f"policy.audit = {policy.audit:g} must be in [0, 1]")
    _require(category, policy.calibration > 0, "policy.calibration must be above 0")
    if policy.kind == "weighted":
        known = any(recipe.kind == "gold" for recipe in cast.recipes) or bool(policy.rates)
        _require(category, known, "policy weighted: add a gold recipe, or policy.rates of the judges")
    if policy.kind == "dawid_skene":
        problem = "policy dawid_skene learns from all answers: set early_exit = false"
        _require(category, not policy.early_exit, problem)


def _rewrite(category: Category, cast: Cast) -> None:
    if cast.rewrite:
        share, threshold = cast.rewrite.share, cast.rewrite.threshold
        _known(category, "rewrite.rewriter", cast.rewrite.rewriter, REWRITERS)
        _require(category, 0 < share <= 1, f"rewrite.share = {share:g} must be in (0, 1]")
        _require(category, 0 <= threshold <= 1, f"rewrite.threshold = {threshold:g} must be in [0, 1]")


def _size(category: Category, size: Size) -> None:
    for side, pixels in (("width", size.width), ("height", size.height)):
        step = 2 if category.modality == "video" else 1  # H.264 halves the sides of its colour planes
        fits = pixels > 0 and pixels % step == 0
        _require(category, fits, f"size.{side} = {pixels} must be a multiple of {step} above 0")


def _endpoints(settings: Settings) -> None:
    known = (*JUDGES, *REWRITERS)
    for endpoint in settings.profile.endpoints:
        problem = f"profile {settings.profile.name}: endpoints names unknown judge {endpoint.judge!r}: "
        if endpoint.judge not in known:
            raise ConfigError(problem + nearest(endpoint.judge, known))


def _accelerators(settings: Settings) -> None:
    known = ("generators", "judges", "rewriters", *GENERATORS, *JUDGES, *REWRITERS)
    for name in (name for each in settings.profile.accelerators for name in each.models):
        if name not in known:
            problem = f"profile {settings.profile.name}: accelerators names unknown model {name!r}: "
            raise ConfigError(problem + nearest(name, known))


def _pool(category: Category) -> None:
    pool = category.pool
    if pool.uri is None:
        _known(category, "name", category.name, pools.categories())
        return
    _require(category, bool(pool.sha256), "pool.sha256 is missing: give the SHA-256 of pool.uri")
    _require(category, bool(pool.licence), "pool.licence is missing: give the licence of the prompts")


def _quota(category: Category, cast: Cast, settings: Settings) -> None:
    """Refuse a quota that the pool could not give even if every pair were kept."""
    each = recipes.expected_pairs(cast.recipes)
    _require(category, each > 0, "recipes make no pair that can ship: add one that is not gold")
    if category.pool.uri is None:
        quota, capacity = settings.quota(category), pools.capacity(category.name)
        most = math.floor(capacity * each)
        problem = f"quota = {quota:,} cannot be met: {capacity:,} prompts give at most {most:,} pairs"
        _require(category, quota <= most, f"{problem}: lower it, or raise generations in a recipe")


def _require(category: Category, holds: bool, problem: str) -> None:
    if not holds:
        raise ConfigError(f"{category.source}: {problem}")
