"""Stage 3: generations of one root prompt become pairs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import pyarrow as pa

from pipeline.config import Cast, Category
from pipeline.generators.base import GeneratorSpec
from pipeline.ids import content_id
from pipeline.records import Generation, Pair
from pipeline.stages.base import Stage, Unit, read_part
from pipeline.stages.generate import GenerateStage
from pipeline.stages.prompts import PromptsStage
from pipeline.stages.recipes import Match, Wanted, choose, matches
from pipeline.stages.rewrite import RewriteStage
from pipeline.storage import Store


class PairStage(Stage):
    """Lane: category."""

    name = "pair"

    def __init__(
        self,
        category: Category,
        cast: Cast,
        *,
        specs: Mapping[str, GeneratorSpec],
        prompts: PromptsStage | RewriteStage,
        generate: Sequence[GenerateStage],
    ) -> None:
        super().__init__(
            lane=category.name,
            generate=[stage.fingerprint for stage in generate],
            recipes=[asdict(recipe) for recipe in cast.recipes],
        )
        self.category, self.cast, self.specs = category, cast, specs
        self.size, self.prompts, self.generate = cast.size or category.size, prompts, tuple(generate)

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per bucket."""
        del store
        for bucket in range(self.prompts.bucket_count):
            yield self.unit(bucket)

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield every generator's generations of the bucket."""
        return (stage.unit(unit.bucket) for stage in self.generate)

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Form the pairs that the recipes ask for."""
        made = self.generations(unit.bucket, store)
        rows: list[Pair] = []
        for family in self.prompts.families(unit.bucket, store):
            recipe = choose(self.cast.recipes, family)
            if recipe:
                for match in matches(recipe, family, self.cast.generators, self.specs):
                    rows.append(self._row(recipe.kind, match, made))
        # By root prompt: a judge meets all pairs of one medium together, and measures it once.
        return Pair.table(sorted(rows, key=lambda row: (row.root_id, row.id)))

    def generations(self, bucket: int, store: Store) -> dict[str, Generation]:
        """Return every generation of a bucket by its id."""
        return {
            row.id: row
            for stage in self.generate
            for row in read_part(Generation, stage.unit(bucket).key, store)
        }

    def _row(self, recipe: str, match: Match, made: dict[str, Generation]) -> Pair:
        # Sides are ordered by id, a hash: no generator or recipe stands first more often than another.
        first, second = sorted((match.one, match.other), key=self._id)
        first_id, second_id = self._id(first), self._id(second)
        root_id = first.prompt.root_id
        return Pair(
            id=content_id("pair", root=root_id, generations=[first_id, second_id], recipe=recipe),
            root_id=root_id,
            category=self.category.name,
            recipe=recipe,
            first_id=first_id,
            second_id=second_id,
            first_sha256=made[first_id].media_sha256,
            second_sha256=made[second_id].media_sha256,
            expected=None if match.expected is None else "first" if match.expected == first else "second",
            gold=recipe == "gold",
        )

    def _id(self, item: Wanted) -> str:
        return item.generation_id(self.specs, self.size)
