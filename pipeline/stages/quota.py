"""How many buckets of prompts a quota of kept pairs takes."""

from __future__ import annotations

import math

from pipeline import pools
from pipeline.config import Category, Settings
from pipeline.stages.recipes import expected_pairs

LEAST = 16
"""Buckets that a build begins with at least, if it needs as many."""


def first_buckets(category: Category, settings: Settings) -> int:
    """Return the buckets that should give the quota, if as many pairs are kept as the profile expects."""
    per_prompt = expected_pairs(settings.cast(category).recipes) * settings.profile.expected_kept
    prompts = math.ceil(settings.quota(category) / per_prompt)
    return min(math.ceil(prompts / settings.profile.bucket_size), most_buckets(category, settings))


def opening_buckets(category: Category, settings: Settings) -> int:
    """Return the buckets to begin with: what they keep sizes the steps after them.

    At least those that judges are calibrated on; a large quota begins with an eighth of what it should take.
    """
    planned = first_buckets(category, settings)
    return min(planned, max(LEAST, settings.policy(category).calibration, math.ceil(planned / 8)))


def next_buckets(missing: int, kept_each: float, so_far: int) -> int:
    """Return the buckets to add for ``missing`` pairs at ``kept_each`` a bucket; at most a doubling."""
    return min(so_far, math.ceil(missing / kept_each)) if kept_each else so_far


def most_buckets(category: Category, settings: Settings) -> int:
    """Return the buckets that the category's pool can fill; a user's pool ends where it ends."""
    if category.pool.uri is not None:
        return 1 << 40
    return max(1, pools.capacity(category.name) // settings.profile.bucket_size)
