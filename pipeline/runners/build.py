"""The driver: which units there are, in which order they run, and when a category has enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from pipeline import pools
from pipeline.config import Category, Settings, to_json
from pipeline.dataset.manifest import Manifest, write_manifest
from pipeline.errors import CorruptError
from pipeline.records import Prompt
from pipeline.runners.base import Outcome, Task, Workers, one_line, run
from pipeline.runners.progress import Display, Failure
from pipeline.stages import ORDER, Lanes, Resources, ShardStage, Stage, lanes, read_columns, read_part
from pipeline.stages.recipes import expected_pairs
from pipeline.storage import Store

SETTINGS_KEY = "settings.json"
WorkersFactory = Callable[[Resources], Workers]


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build came to. ``kept`` counts pairs by category; ``short`` those under their quota.

    ``bad_rows`` says of a category's pool, if it is a user's, which rows cannot be used, and why.
    """

    manifest: Manifest
    kept: dict[str, int]
    short: dict[str, int]
    failures: list[Failure]
    held_back: tuple[str, ...]
    bad_rows: dict[str, list[str]]


@dataclass(slots=True, kw_only=True)
class _Goal:
    """How far a category is: ``failed`` buckets, and whether a shard is ``torn``."""

    category: Category
    buckets: int
    quota: int
    failed: set[int] = field(default_factory=set)
    kept: int = 0
    torn: bool = False


class Build:
    """Runs the stages of all categories one after the other, in rounds until every quota is met."""

    def __init__(
        self, settings: Settings, store: Store, *, factory: WorkersFactory, display: Display
    ) -> None:
        self._settings, self._store = settings, store
        self._factory, self._display = factory, display
        self._workers: tuple[Resources, Workers] | None = None
        self._goals = [self._goal(category) for category in settings.categories]

    def run(self, *, skip_failed: bool = False) -> Built:
        """Do all units that have no part yet, then write shards and manifest.

        A category with failed units is held back from the shards unless ``skip_failed``; the shards
        of the others are written in any case.
        """
        self._store.replace(SETTINGS_KEY, to_json(self._settings))
        try:
            growing = list(self._goals)
            while growing:
                for kind in ORDER[:-1]:
                    self._run_stage(kind, growing)
                counted = [goal for goal in growing if self._count(goal)]
                growing = [goal for goal in counted if (skip_failed or not goal.failed) and self._grow(goal)]
            ready = [goal for goal in self._goals if skip_failed or not goal.failed]
            self._run_stage(ShardStage, ready)
        finally:
            self._dismiss()
        return self._built([goal for goal in ready if not goal.torn])

    def _built(self, whole: Sequence[_Goal]) -> Built:
        shipped = {goal.category.name for goal in whole}
        final = [self._lanes(goal) for goal in whole]
        return Built(
            manifest=write_manifest(self._settings, final, self._store),
            kept={goal.category.name: goal.kept for goal in self._goals},
            short={g.category.name: g.quota - g.kept for g in self._goals if g.kept < g.quota},
            failures=self._display.diary.failures,
            held_back=tuple(g.category.name for g in self._goals if g.category.name not in shipped),
            bad_rows={g.category.name: list(self._bad_rows(g)) for g in self._goals if g.category.pool.uri},
        )

    def _bad_rows(self, goal: _Goal) -> Iterator[str]:
        prompts = self._lanes(goal).prompts
        for unit in prompts.units(self._store):
            if not goal.failed.issuperset(prompts.buckets(unit)):
                for row in read_part(Prompt, unit.key, self._store):
                    if row.status == "failed" and row.bucket < goal.buckets:
                        yield f"line {row.line}: {row.reason}"

    def _goal(self, category: Category) -> _Goal:
        quota = self._settings.quota(category)
        return _Goal(category=category, quota=quota, buckets=first_buckets(category, self._settings))

    def _lanes(self, goal: _Goal) -> Lanes:
        skipped = tuple(sorted(goal.failed))
        return lanes(goal.category, self._settings, buckets=goal.buckets, skipped=skipped)

    def _run_stage(self, kind: type[Stage], goals: Sequence[_Goal]) -> None:
        """Run the units of one stage that have no part yet."""
        by_name = {goal.category.name: goal for goal in goals}
        every = [task for goal in goals for task in self._tasks(kind, goal)]
        tasks = [task for task, done in every if not done]
        tasks.sort(key=lambda task: task.stage.resources.gpus)
        with self._display.stage(kind.name, total=len(every), done=len(every) - len(tasks)):
            for resources, group in groupby(tasks, key=lambda task: task.stage.resources):
                attempts = self._settings.profile.attempts
                for outcome in run(self._hire(resources), group, attempts=attempts):
                    self._display.advance(outcome)
                    if outcome.done.cause is not None:
                        _note_failure(by_name, outcome)

    def _tasks(self, kind: type[Stage], goal: _Goal) -> Iterator[tuple[Task, bool]]:
        """Yield every unit of a stage, with whether it is done; not those that follow a failed one."""
        for stage in self._lanes(goal).of(kind):
            done = {entry.key for entry in self._store.list(stage.folder)}
            for unit in stage.units(self._store):
                if not goal.failed.issuperset(stage.buckets(unit)):
                    yield Task(stage=stage, unit=unit), unit.key in done

    def _count(self, goal: _Goal) -> bool:
        """Count what was kept; a part that cannot be read fails its bucket. False if nothing can be."""
        agree = self._lanes(goal).agree
        goal.kept = 0
        for bucket in sorted(set(range(goal.buckets)) - goal.failed):
            unit = agree.unit(bucket)
            try:
                goal.kept += sum(read_columns(["kept"], unit.key, self._store)["kept"].to_pylist())
            except CorruptError as error:
                goal.failed.add(bucket)
                self._display.failed(unit, one_line(error))
        return len(goal.failed) < goal.buckets

    def _grow(self, goal: _Goal) -> bool:
        """Take more buckets if the quota needs them and the pool has them."""
        if goal.kept >= goal.quota:
            return False
        each = goal.kept / (goal.buckets - len(goal.failed))
        wanted = goal.buckets + next_buckets(goal.quota - goal.kept, each, goal.buckets)
        buckets = min(wanted, most_buckets(goal.category, self._settings))
        prompts = self._lanes(goal).prompts
        if buckets == goal.buckets or not prompts.reaches(goal.buckets - 1, self._store):
            return False
        goal.buckets = buckets
        return True

    def _hire(self, resources: Resources) -> Workers:
        """Return workers that have ``resources``; those of another kind are dismissed first."""
        if self._workers and self._workers[0] != resources:
            self._dismiss()
        if self._workers is None:
            self._workers = resources, self._factory(resources)
        return self._workers[1]

    def _dismiss(self) -> None:
        if self._workers:
            self._workers[1].close()
            self._workers = None


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


def _note_failure(goals: Mapping[str, _Goal], outcome: Outcome) -> None:
    stage, unit = outcome.task.stage, outcome.task.unit
    goal = goals[stage.category_name]
    if isinstance(stage, ShardStage):
        goal.torn = True
    else:
        goal.failed.update(stage.buckets(unit))
