"""Stage 1: the pool of a category becomes prompts, bucket by bucket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby, takewhile

import pyarrow as pa

from pipeline import pools
from pipeline.config import Category
from pipeline.records import Prompt
from pipeline.stages.base import Stage, Unit, read_part
from pipeline.stages.recipes import Family
from pipeline.storage import Store, read_uri

SEGMENT = 100
"""Buckets of one part: a bucket of prompts is small, and a file of a user is read from its start."""


class PromptsStage(Stage):
    """Lane: category. A part holds SEGMENT buckets, one row group each."""

    name = "prompts"

    def __init__(self, category: Category, *, bucket_size: int, perturbations: int, buckets: int) -> None:
        super().__init__(
            lane=category.name,
            pool=_content(category, perturbations),
            bucket_size=bucket_size,
            perturbations=perturbations,
        )
        self.category = category
        self.bucket_size = bucket_size
        self.perturbations = perturbations
        self.bucket_count = buckets

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per started segment."""
        del store
        for first in range(0, self.bucket_count, SEGMENT):
            yield self.unit(first // SEGMENT)

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield nothing: the first stage."""
        del unit
        return iter(())

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Grow the segment, or read the pool up to its end and keep the segment."""
        del store
        start, end = unit.bucket * SEGMENT, (unit.bucket + 1) * SEGMENT
        rows = takewhile(lambda prompt: prompt.bucket < end, self._pool(start, end))
        buckets = groupby((row for row in rows if row.bucket >= start), key=lambda prompt: prompt.bucket)
        batches = [batch for _, bucket in buckets for batch in Prompt.table(bucket).to_batches()]
        return pa.Table.from_batches(batches, schema=Prompt.schema())

    def buckets(self, unit: Unit) -> Iterable[int]:
        """Return the buckets of the segment."""
        return range(unit.bucket * SEGMENT, (unit.bucket + 1) * SEGMENT)

    def holding(self, bucket: int) -> Unit:
        """Return the unit that holds ``bucket``."""
        return self.unit(bucket // SEGMENT)

    def families(self, bucket: int, store: Store) -> Iterator[Family]:
        """Yield the usable prompts of a bucket, each root with those perturbed from it."""
        rows = read_part(Prompt, self.holding(bucket).key, store, row_group=bucket % SEGMENT)
        for _, members in groupby((row for row in rows if row.status == "ok"), key=lambda row: row.root_id):
            root, *perturbed = members
            yield Family(root=root, perturbed=tuple(perturbed))

    def reaches(self, bucket: int, store: Store) -> bool:
        """Say whether the pool has rows for ``bucket``; it may be that none of them is usable."""
        return any(
            True for _ in read_part(Prompt, self.holding(bucket).key, store, row_group=bucket % SEGMENT)
        )

    def _pool(self, start: int, end: int) -> Iterator[Prompt]:
        """Yield the prompts of buckets ``start`` to ``end``; of a file, also all others."""
        if self.category.pool.uri is not None:
            return read_pool(self.category, bucket_size=self.bucket_size)
        return pools.grow(
            self.category.name,
            min(end * self.bucket_size, pools.capacity(self.category.name)),
            start=start * self.bucket_size,
            bucket_size=self.bucket_size,
            seed=self.category.pool.seed,
            perturbations=self.perturbations,
        )


def read_pool(category: Category, *, bucket_size: int) -> Iterator[Prompt]:
    """Yield the prompts of a user's pool. Raises ConfigError at once if it is not what its hash says."""
    pool = category.pool
    return pools.read(
        str(pool.uri),
        str(pool.sha256),
        category=category.name,
        licence=str(pool.licence),
        bucket_size=bucket_size,
        fetch=read_uri,
    )


def _content(category: Category, perturbations: int) -> dict[str, int | str | None]:
    """Return what determines the rows of a pool; where a user's file lies does not."""
    pool = category.pool
    if pool.uri is None:
        return {"seed": pool.seed, "version": pools.version(category.name, perturbations)}
    return {"sha256": pool.sha256, "licence": pool.licence, "name": pool.uri.rpartition("/")[2]}
