"""Names and numbers of the settings against the tables they refer to, before any work starts."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

from pipeline import pools
from pipeline.config import Cast, Category, Recipe, Settings, nearest
from pipeline.errors import ConfigError
from pipeline.generators.base import GeneratorSpec
from pipeline.generators.table import GENERATORS
from pipeline.judges.base import JudgeSpec
from pipeline.judges.table import JUDGES
from pipeline.stages import policies, recipes
from pipeline.stages.prompts import read_pool


def check(settings: Settings) -> None:
    """Refuse settings that cannot work. Raises ConfigError naming file, key and remedy."""
    for category in settings.categories:
        cast = settings.cast(category)
        _specs(category, "generators", cast.generators, GENERATORS)
        _specs(category, "judges", cast.judges, JUDGES)
        for recipe in cast.recipes:
            _recipe(category, cast, recipe)
        _policy(category, cast)
        _size(category)
        _pool(category)
        _quota(category, cast, settings)


def check_pools(settings: Settings) -> None:
    """Read every pool of the user once. Raises ConfigError or StorageError."""
    for category in settings.categories:
        if category.pool.uri is not None:
            read_pool(category, bucket_size=settings.profile.bucket_size)


def _specs(
    category: Category,
    key: str,
    names: Iterable[str],
    table: Mapping[str, GeneratorSpec] | Mapping[str, JudgeSpec],
) -> None:
    seen: set[str] = set()
    for name in names:
        _known(category, key, name, table)
        if table[name].modality != category.modality:
            fitting = [row for row, spec in table.items() if spec.modality == category.modality]
            raise ConfigError(
                f"{category.source}: {key} names {name!r}, which is for {table[name].modality}s: "
                f"{nearest(name, fitting)}"
            )
        if name in seen:
            raise ConfigError(f"{category.source}: {key} names {name!r} twice: remove one")
        seen.add(name)


def _known(category: Category, key: str, name: str, valid: Collection[str]) -> None:
    if name not in valid:
        raise ConfigError(f"{category.source}: {key} names unknown {name!r}: {nearest(name, valid)}")


def _recipe(category: Category, cast: Cast, recipe: Recipe) -> None:
    key = f"recipe {recipe.kind!r}:"
    _known(category, "recipes", recipe.kind, recipes.KINDS)
    _require(category, 0 < recipe.share <= 1, f"{key} share = {recipe.share:g} must be in (0, 1]")
    if recipe.kind == "gold":
        _require(category, bool(recipe.winner and recipe.loser), f"{key} needs a winner and a loser")
        _specs(category, f"{key}", (str(recipe.winner), str(recipe.loser)), GENERATORS)
    if recipe.kind.startswith("across_"):
        _require(category, recipe.generations >= 2, f"{key} generations must be 2 or more")
    if recipe.kind == "across_models":
        enough = len(cast.generators) >= recipe.generations
        problem = f"{key} {recipe.generations} generations need as many generators, "
        _require(category, enough, f"{problem}only {len(cast.generators)} are named: add some")


def _policy(category: Category, cast: Cast) -> None:
    policy = category.policy
    _known(category, "policy.kind", policy.kind, policies.KINDS)
    if policy.kind == "single":
        _known(category, "policy.judge", str(policy.judge), cast.judges)
    else:
        possible = 1 <= policy.votes <= len(cast.judges)
        problem = f"policy.votes = {policy.votes} cannot be reached"
        _require(category, possible, f"{problem} by {len(cast.judges)} judges: lower it or add judges")


def _size(category: Category) -> None:
    for side, pixels in (("width", category.size.width), ("height", category.size.height)):
        step = 2 if category.modality == "video" else 1  # H.264 halves the sides of its colour planes
        fits = pixels > 0 and pixels % step == 0
        _require(category, fits, f"size.{side} = {pixels} must be a multiple of {step} above 0")


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
