"""How many buckets of prompts a quota of kept pairs takes."""

from __future__ import annotations

import math

from pipeline import pools
from pipeline.config import Category, Settings
from pipeline.stages.recipes import expected_pairs


def first_buckets(category: Category, settings: Settings) -> int:
    """Return the buckets that should give the quota at the share of pairs expected to be kept."""
    per_prompt = expected_pairs(settings.cast(category).recipes) * settings.profile.expected_kept
    prompts = math.ceil(settings.quota(category) / per_prompt)
    return min(math.ceil(prompts / settings.profile.bucket_size), most_buckets(category, settings))


def next_buckets(missing: int, kept_each: float, so_far: int) -> int:
    """Return the buckets to add for ``missing`` pairs at ``kept_each`` a bucket; at most a doubling."""
    return min(so_far, math.ceil(missing / kept_each)) if kept_each else so_far


def most_buckets(category: Category, settings: Settings) -> int:
    """Return the buckets that the category's pool can fill; a user's pool ends where it ends."""
    if category.pool.uri is not None:
        return 1 << 40
    return max(1, pools.capacity(category.name) // settings.profile.bucket_size)
