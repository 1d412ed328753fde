"""Pools as the tests see them: the first prompts of each category with all their perturbed ones."""

from __future__ import annotations

from functools import cache

import pytest

from pipeline.pools import categories, grow
from pipeline.records import Prompt

CATEGORIES = categories()
COUNT = 500

every_category = pytest.mark.parametrize("category", CATEGORIES)


@cache
def grown(category: str) -> tuple[Prompt, ...]:
    return tuple(grow(category, COUNT, bucket_size=64, perturbations=8))


def roots(category: str) -> list[Prompt]:
    return [prompt for prompt in grown(category) if prompt.perturbation is None]
