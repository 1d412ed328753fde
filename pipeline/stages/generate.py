"""Stage 2: prompts become generations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

import pyarrow as pa

from pipeline import media
from pipeline.config import Cast, Category
from pipeline.errors import StorageError, WorkerError
from pipeline.generators.base import Generator, Rendered, Request
from pipeline.generators.table import GENERATORS, make_generator
from pipeline.records import Generation
from pipeline.stages.base import Resources, Stage, Unit
from pipeline.stages.prompts import PromptsStage
from pipeline.stages.recipes import Wanted, choose, generator_id, wanted
from pipeline.storage import Store

REASON_LENGTH = 300


class GenerateStage(Stage):
    """Lane: category and generator. Media are put first; a medium's key is its SHA-256."""

    name = "generate"

    def __init__(self, category: Category, cast: Cast, generator: str, *, prompts: PromptsStage) -> None:
        spec = GENERATORS[generator]
        super().__init__(
            lane=self.lane_of(category.name, generator),
            prompts=prompts.fingerprint,
            generator=generator_id(spec),
            generators=cast.generators,
            recipes=[asdict(recipe) for recipe in cast.recipes],
            size=asdict(category.size),
        )
        self.resources = Resources(gpus=spec.gpus)
        self.category, self.cast, self.spec, self.prompts = category, cast, spec, prompts
        self._generator: Generator | None = None

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per bucket."""
        del store
        for bucket in range(self.prompts.bucket_count):
            yield self.unit(bucket)

    def open(self) -> None:
        """Load the generator."""
        self._generator = make_generator(self.spec)
        self._generator.open()

    def close(self) -> None:
        """Free the generator."""
        if self._generator:
            self._generator.close()

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Render what the recipes want of this generator for the bucket's prompts."""
        items = list(self.wanted(unit.bucket, store))
        rows: list[Generation] = []
        for start in range(0, len(items), self.spec.batch):
            batch = items[start : start + self.spec.batch]
            for item, result in zip(batch, self._render(batch), strict=True):
                rows.append(self._row(item, result, store))
        return Generation.table(sorted(rows, key=lambda row: row.id))

    def wanted(self, bucket: int, store: Store) -> Iterator[Wanted]:
        """Yield the generations of a bucket that fall to this generator."""
        for family in self.prompts.families(bucket, store):
            recipe = choose(self.cast.recipes, family)
            if recipe:
                for item in wanted(recipe, family, self.cast.generators):
                    if item.generator == self.spec.name:
                        yield item

    def _render(self, batch: list[Wanted]) -> list[Rendered | str]:
        """Return frames, or the reason why there are none; one bad item does not take its batch along."""
        if self._generator is None:
            raise WorkerError(f"{self.lane}: not open: call open() before process()")
        requests = [Request(prompt=item.prompt, seed=item.seed(), size=self.category.size) for item in batch]
        try:
            return list(self._generator.generate(requests))
        except (WorkerError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 whatever one prompt breaks becomes that prompt's row
            if len(batch) == 1:
                return [_reason(error)]
            return [result for item in batch for result in self._render([item])]

    def _row(self, item: Wanted, result: Rendered | str, store: Store) -> Generation:
        encoded, reason = None, result if isinstance(result, str) else None
        if isinstance(result, Rendered):
            try:
                encoded = media.encode(result.frames, self.category.size.fps)
                store.put(media.key(encoded.sha256, encoded.mime), encoded.data)
            except StorageError:
                raise
            except Exception as error:  # noqa: BLE001 as above
                encoded, reason = None, _reason(error)
        size = self.category.size
        return Generation(
            id=item.generation_id(self.spec, size),
            prompt_id=item.prompt.id,
            root_id=item.prompt.root_id,
            category=self.category.name,
            generator=self.spec.name,
            generator_id=generator_id(self.spec),
            seed=item.seed(),
            width=encoded.probe.width if encoded else size.width,
            height=encoded.probe.height if encoded else size.height,
            frames=encoded.probe.frames if encoded else size.frames,
            fps=encoded.probe.fps if encoded else size.fps,
            mime=encoded.mime if encoded else media.mime_of(self.category.modality),
            media_sha256=encoded.sha256 if encoded else None,
            bytes=len(encoded.data) if encoded else 0,
            licence=self.spec.licence,
            licence_profile=self.spec.licence_profile,
            defects=result.defects if isinstance(result, Rendered) else None,
            status="ok" if encoded else "failed",
            reason=reason,
        )


def _reason(error: Exception) -> str:
    """Return one line that does not change from run to run."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:REASON_LENGTH]
