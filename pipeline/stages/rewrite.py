"""After stage 1, where a category asks for it: a rewriter says prompts anew before they are rendered.

A root prompt and those perturbed from it are rewritten together or not at all: the rewriter is given the
root, and the one change that makes a perturbed prompt is made to its answer. So both sides of a pair are
asked for in the same words but for that change, and whichever recipe the root takes finds its prompts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby

import pyarrow as pa

from pipeline.config import Category, Rewrite
from pipeline.errors import WorkerError
from pipeline.ids import content_id, unit_interval
from pipeline.judges.base import Hosting
from pipeline.records import Prompt
from pipeline.rewriters.asking import rewriter_id
from pipeline.rewriters.base import Outcome, RewriterSpec, Sentences, Unrewritten
from pipeline.rewriters.served import Rewriter
from pipeline.stages.base import Earlier, Resources, Stage, Unit, read_part
from pipeline.stages.prompts import SEGMENT, PromptsStage
from pipeline.stages.recipes import Family
from pipeline.storage import Store

ASKED_AGAIN = (Unrewritten.REFUSED, Unrewritten.TAKEN)
"""What is no answer of the rewriter to the prompt: another day, or among other prompts, there may be one."""


class RewriteStage(Stage):
    """Lane: category and rewriter. A part holds every row of a bucket, rewritten or not."""

    name = "rewrite"

    def __init__(
        self,
        category: Category,
        settings: Rewrite,
        spec: RewriterSpec,
        *,
        prompts: PromptsStage,
        hosting: Hosting,
    ) -> None:
        self.rewriter_id = rewriter_id(spec)
        super().__init__(
            lane=self.lane_of(category.name, spec.name),
            prompts=prompts.fingerprint,
            rewriter=self.rewriter_id,
            share=settings.share,
            threshold=settings.threshold,
        )
        self.resources = Resources(gpus=0 if hosting.urls else spec.gpus)
        self.category, self.settings, self.spec = category, settings, spec
        self.prompts, self.hosting = prompts, hosting
        self.bucket_count = prompts.bucket_count
        self._rewriter: Rewriter | None = None
        self._earlier: Earlier | None = None

    def units(self, store: Store) -> Iterator[Unit]:
        """Yield one unit per bucket."""
        del store
        return map(self.unit, range(self.bucket_count))

    def needs(self, unit: Unit) -> Iterator[Unit]:
        """Yield the prompts of the bucket."""
        yield self.prompts.holding(unit.bucket)

    def holding(self, bucket: int) -> Unit:
        """Return the unit that holds ``bucket``."""
        return self.unit(bucket)

    def families(self, bucket: int, store: Store) -> Iterator[Family]:
        """Yield the usable prompts of a bucket, each root with those perturbed from it."""
        return _families(read_part(Prompt, self.unit(bucket).key, store))

    def open(self, store: Store) -> None:
        """Reach the rewriter, and find what it was asked under other settings."""
        self._earlier = Earlier(self, store)
        self._rewriter = Rewriter(self.spec, self.hosting, threshold=self.settings.threshold)
        self._rewriter.open()

    def close(self) -> None:
        """Free the rewriter."""
        if self._rewriter:
            self._rewriter.close()

    def process(self, unit: Unit, store: Store) -> pa.Table:
        """Rewrite the prompts that are drawn; every other one, and every row of no use, stays as it is."""
        key, place = self.prompts.holding(unit.bucket).key, unit.bucket % SEGMENT
        given = list(read_part(Prompt, key, store, row_group=place))
        families = {family.root.id: family for family in _families(given)}
        outcomes = self._outcomes(families, unit)
        taken, rows = {row.id for row in given}, []
        for row in given:
            if row.status == "failed":
                rows.append(row)
            elif row.id == row.root_id:
                said = self._rows(families[row.id], outcomes.get(row.id), taken)
                taken |= {each.id for each in said}
                rows += said
        return Prompt.table(rows)

    def _outcomes(self, families: Mapping[str, Family], unit: Unit) -> dict[str, Outcome]:
        """Return what came of each root prompt that is drawn; what was asked before is not asked again."""
        if self._rewriter is None or self._earlier is None:
            raise WorkerError(f"{self.lane}: not open: call open() before process()")
        known = _known(self._earlier.rows(Prompt, unit))
        drawn = [family for family in families.values() if self._draws(family.root)]
        found = {f.root.id: known[self._id(f)] for f in drawn if self._id(f) in known}
        left = [family for family in drawn if family.root.id not in found]
        modality = self.category.modality
        asked = (Sentences(root=f.root, perturbed=f.perturbed, modality=modality) for f in left)
        for family, outcome in zip(left, self._rewriter.rewrite(asked), strict=True):
            found[family.root.id] = outcome
        return found

    def _draws(self, root: Prompt) -> bool:
        return unit_interval(content_id("rewrite", prompt=root.id)) < self.settings.share

    def _id(self, family: Family) -> str:
        """Return the id of all that determines what comes of a family."""
        return content_id(
            "rewriting",
            prompts=[prompt.id for prompt in (family.root, *family.perturbed)],
            modality=self.category.modality,
            rewriter=self.rewriter_id,
            threshold=self.settings.threshold,
        )

    def _rows(self, family: Family, outcome: Outcome | None, taken: set[str]) -> list[Prompt]:
        """Return the rows of a family under its new texts, or as it was with the reason."""
        prompts = (family.root, *family.perturbed)
        if outcome is None:
            return [replace(prompt, unrewritten=str(Unrewritten.NOT_DRAWN)) for prompt in prompts]
        name = self._id(family)
        ids = [content_id("prompt", category=self.category.name, text=text) for text in outcome.texts]
        if not taken.isdisjoint(ids) or len(set(ids)) < len(ids):
            outcome, ids = Outcome(why=Unrewritten.TAKEN, detail=outcome.texts[0]), []
        if not ids:
            why = f"{outcome.why}: {outcome.detail}" if outcome.detail else str(outcome.why)
            return [replace(prompt, unrewritten=why, rewriting_id=name) for prompt in prompts]
        return [
            replace(prompt, id=own, root_id=ids[0], text=text, original=prompt.text, rewriting_id=name)
            for prompt, own, text in zip(prompts, ids, outcome.texts, strict=True)
        ]


def _families(rows: Iterable[Prompt]) -> Iterator[Family]:
    for _, members in groupby((row for row in rows if row.status == "ok"), key=lambda row: row.root_id):
        root, *perturbed = members
        yield Family(root=root, perturbed=tuple(perturbed))


def _known(rows: Iterable[Prompt]) -> dict[str, Outcome]:
    """Return what came of each rewriting that rows of older settings tell of."""
    found: defaultdict[str, list[Prompt]] = defaultdict(list)
    for row in rows:
        if row.rewriting_id:
            found[row.rewriting_id].append(row)
    outcomes = {name: _outcome(members) for name, members in found.items()}
    return {name: outcome for name, outcome in outcomes.items() if outcome.why not in ASKED_AGAIN}


def _outcome(members: list[Prompt]) -> Outcome:
    first = members[0]
    if first.unrewritten is None:
        root_id = first.root_id
        return Outcome(texts=tuple(dict.fromkeys(row.text for row in members if row.root_id == root_id)))
    why, _, detail = first.unrewritten.partition(": ")
    return Outcome(why=Unrewritten(why), detail=detail)
