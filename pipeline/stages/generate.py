"""Stage 2: prompts become generations."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict

import pyarrow as pa

from pipeline import media
from pipeline.config import Cast, Category
from pipeline.errors import ItemError, StorageError, WorkerError
from pipeline.generators.base import Generator, GeneratorSpec, Rendered, Request
from pipeline.generators.safety import Checker, make_checker
from pipeline.generators.table import make_generator
from pipeline.media.flaws import flaw
from pipeline.records import Generation, LicenceProfile, stricter
from pipeline.stages.base import Earlier, Resources, Stage, Unit, read_part
from pipeline.stages.prompts import PromptsStage
from pipeline.stages.recipes import Wanted, choose, generator_id, wanted
from pipeline.stages.rewrite import RewriteStage
from pipeline.storage import Store

REASON_LENGTH = 300

ENCODERS = 4
"""Threads that encode, hash and put while the generator makes the next: one JPEG takes 5 ms, a put more."""

AHEAD = 1 << 30
"""Bytes of frames that may wait for a thread: hundreds of images ride out a slow put; or one video."""


class GenerateStage(Stage):
    """Lane: category and generator. Media are put first; a medium's key is its SHA-256.

    ``specs`` are those of all generators of the category by name. A generator that starts from another's
    generations reads them from ``sources``, a wave before.
    """

    name = "generate"

    def __init__(
        self,
        category: Category,
        cast: Cast,
        generator: str,
        *,
        specs: Mapping[str, GeneratorSpec],
        prompts: PromptsStage | RewriteStage,
        sources: Sequence[GenerateStage] = (),
        budget: float = 0.0,
    ) -> None:
        spec = specs[generator]
        super().__init__(
            lane=self.lane_of(category.name, generator),
            prompts=prompts.fingerprint,
            generator=generator_id(spec),
            generators=cast.generators,
            recipes=[asdict(recipe) for recipe in cast.recipes],
            size=asdict(cast.size or category.size),
            safety=asdict(cast.safety) if cast.safety else None,
            sources=[stage.fingerprint for stage in sources],
            # With more to spend, what the budget refused is asked for again.
            budget=budget if spec.dollars else 0.0,
        )
        self.resources = Resources(gpus=spec.gpus)
        self.wave = 1 if sources else 0
        self.category, self.cast, self.spec, self.specs, self.prompts = category, cast, spec, specs, prompts
        self.size, self.sources, self.budget = cast.size or category.size, tuple(sources), budget
        self._generator: Generator | None = None
        self._checker: Checker | None = None
        self._earlier: Earlier | None = None

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per bucket."""
        del store
        for bucket in range(self.prompts.bucket_count):
            yield self.unit(bucket)

    def open(self, store: Store) -> None:
        """Load the generator, and find what the lane has made under other settings."""
        self._earlier = Earlier(self, store)
        self._checker = make_checker(self.cast.safety.checker) if self.cast.safety else None
        self._generator = make_generator(self.spec, budget=self.budget)
        self._generator.open(store)

    def close(self) -> None:
        """Free the generator."""
        if self._generator:
            self._generator.close()

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield the prompts, and the generations that this generator starts from."""
        yield self.prompts.holding(unit.bucket)
        yield from (stage.unit(unit.bucket) for stage in self.sources)

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Render what the recipes want of this generator for the bucket's prompts."""
        items = {self.id(item): item for item in self.wanted(unit.bucket, store)}
        rows = self._made_before(items, unit, store)
        items = {name: item for name, item in items.items() if name not in rows}
        rows |= {row.id: row for row in self._make(items, self._sources(unit, store), store)}
        return Generation.table(rows[name] for name in sorted(rows))

    def wanted(self, bucket: int, store: Store) -> Iterator[Wanted]:
        """Yield the generations of a bucket that fall to this generator."""
        for family in self.prompts.families(bucket, store):
            recipe = choose(self.cast.recipes, family)
            if recipe:
                for item in wanted(recipe, family, self.cast.generators, self.specs):
                    if item.generator == self.spec.name:
                        yield item

    def id(self, item: Wanted) -> str:
        """Return the id of the generation that ``item`` becomes."""
        return item.generation_id(self.specs, self.size)

    def _made_before(self, items: Mapping[str, Wanted], unit: Unit, store: Store) -> dict[str, Generation]:
        """Return the wanted generations that older settings made too, and whose media are still there."""
        if self._earlier is None:
            raise WorkerError(f"{self.lane}: not open: call open() before process()")
        found: dict[str, Generation] = {}
        for row in self._earlier.rows(Generation, unit):
            new = row.id in items and row.id not in found and row.status == "ok"
            if new and store.size(media.key(str(row.media_sha256), row.mime)) is not None:
                found[row.id] = row
        return found

    def _sources(self, unit: Unit, store: Store) -> dict[str, Generation]:
        return {
            row.id: row
            for stage in self.sources
            for row in read_part(Generation, stage.unit(unit.bucket).key, store)
        }

    def _make(
        self, items: Mapping[str, Wanted], sources: Mapping[str, Generation], store: Store
    ) -> Iterator[Generation]:
        """Render ``items``; threads encode, hash and put what is done while the next is made."""
        if self._generator is None:
            raise WorkerError(f"{self.lane}: not open: call open() before process()")
        able: list[tuple[Wanted, Generation | None]] = []
        for item in items.values():
            source = sources[self.id(item.source)] if item.source else None
            if source and source.status == "failed":
                yield self._row(item, ItemError("what it starts from could not be made"), store)
            else:
                able.append((item, source))
        results = self._generator.generate(self._request(item, source, store) for item, source in able)
        waiting: deque[tuple[int, Future[Generation]]] = deque()
        held = 0
        with ThreadPoolExecutor(ENCODERS) as threads:
            for (item, _), result in zip(able, results, strict=True):
                size = result.frames.nbytes if isinstance(result, Rendered) else 0
                waiting.append((size, threads.submit(self._row, item, result, store)))
                held += size
                while held > AHEAD and len(waiting) > 1:
                    size, done = waiting.popleft()
                    held -= size
                    yield done.result()
            for _, done in waiting:
                yield done.result()

    def _request(self, item: Wanted, source: Generation | None, store: Store) -> Request:
        frames = None
        if source:
            frames = media.decode(store.get(media.key(str(source.media_sha256), source.mime)), source.mime)
        return Request(
            id=self.id(item),
            prompt=item.prompt,
            seed=item.seed(),
            size=item.size(self.specs, self.size),
            source=frames,
        )

    def _row(self, item: Wanted, result: Rendered | ItemError, store: Store) -> Generation:
        """Encode and put one result, or say why there is none."""
        encoded, safety, reason = None, None, None
        size = item.size(self.specs, self.size)
        try:
            if isinstance(result, ItemError):
                raise result  # noqa: TRY301 one way out for all that makes an item fail
            safety = self._safety(result)
            self._refuse_unfit(result, safety)
            encoded = media.encode(result.frames, size.fps)
            store.put(media.key(encoded.sha256, encoded.mime), encoded.data)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 whatever one item breaks becomes that item's row
            encoded, reason = None, _reason(error)
        return Generation(
            id=self.id(item),
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
            mime=encoded.mime if encoded else media.mime_of(self.spec.modality),
            media_sha256=encoded.sha256 if encoded else None,
            bytes=len(encoded.data) if encoded else 0,
            licence=self._licence(item),
            licence_profile=self._licence_profile(item),
            defects=result.defects if isinstance(result, Rendered) else None,
            status="ok" if encoded else "failed",
            reason=reason,
            source_id=self.id(item.source) if item.source else None,
            safety=safety,
        )

    def _licence(self, item: Wanted) -> str:
        """Return the terms of the generator, and of what it started from."""
        every = [self.specs[each.generator].licence for each in (item, item.source) if each]
        return " and ".join(dict.fromkeys(every))

    def _licence_profile(self, item: Wanted) -> LicenceProfile:
        return stricter(*(self.specs[each.generator].licence_profile for each in (item, item.source) if each))

    def _safety(self, result: Rendered) -> float | None:
        return self._checker.score(result.frames) if self._checker else None

    def _refuse_unfit(self, result: Rendered, safety: float | None) -> None:
        """Raise ItemError for what nobody should compare; errors made on purpose are what they should be."""
        found = flaw(result.frames) if result.defects is None else None
        if found:
            raise ItemError(found)
        limit = self.cast.safety
        if limit and safety is not None and safety >= limit.threshold:
            raise ItemError(f"unsafe: {limit.checker} gives {safety:.2f}, the limit is {limit.threshold:.2f}")


def _reason(error: Exception) -> str:
    """Return one line that does not change from run to run."""
    said = str(error) if isinstance(error, ItemError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())[:REASON_LENGTH]
