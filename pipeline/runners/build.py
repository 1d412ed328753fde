"""The driver: which units there are, in which order they run, and when a category has enough."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from pipeline.config import Category, Settings, to_json
from pipeline.dataset.manifest import Manifest, write_manifest
from pipeline.errors import CorruptError
from pipeline.records import Prompt
from pipeline.runners.base import Outcome, Task, Workers, one_line, run
from pipeline.runners.progress import Display, Failure
from pipeline.stages import (
    ORDER,
    AgreeStage,
    CalibrateStage,
    JudgeStage,
    Lanes,
    Resources,
    ShardStage,
    Stage,
    lanes,
    read_columns,
    read_part,
)
from pipeline.stages.quota import first_buckets, most_buckets, next_buckets
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
    """How far a category is: ``failed`` buckets, whether a shard is ``torn``.

    ``uncalibrated``: buckets that judges are calibrated on have failed, so no pair can be labelled.
    """

    category: Category
    buckets: int
    quota: int
    failed: set[int] = field(default_factory=set)
    kept: int = 0
    torn: bool = False
    uncalibrated: bool = False


class Build:
    """Runs the stages of all categories one after the other, in rounds until every quota is met.

    ``skip_failed`` ships categories without their failed units.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        factory: WorkersFactory,
        display: Display,
        skip_failed: bool = False,
    ) -> None:
        self._settings, self._store, self._skip_failed = settings, store, skip_failed
        self._factory, self._display = factory, display
        self._workers: tuple[Resources, Workers] | None = None
        self._goals = [self._goal(category) for category in settings.categories]

    def run(self) -> Built:
        """Do all units that have no part yet, then write shards and manifest.

        A category with failed units is held back from the shards unless the build skips them; the
        shards of the others are written in any case.
        """
        self._store.replace(SETTINGS_KEY, to_json(self._settings))
        try:
            growing = list(self._goals)
            while growing:
                for kind in ORDER[:-1]:
                    self._run_stage(kind, growing)
                    if kind is CalibrateStage:
                        self._find_uncalibrated(growing)
                counted = [goal for goal in growing if self._count(goal)]
                growing = [goal for goal in counted if self._may_ship(goal) and self._grow(goal)]
            ready = [goal for goal in self._goals if self._may_ship(goal)]
            self._run_stage(ShardStage, ready)
        finally:
            self._dismiss()
        return self._built([goal for goal in ready if not goal.torn])

    def _may_ship(self, goal: _Goal) -> bool:
        return not goal.uncalibrated and (self._skip_failed or not goal.failed)

    def _find_uncalibrated(self, goals: Sequence[_Goal]) -> None:
        for goal in goals:
            stage = self._lanes(goal).calibrate
            goal.uncalibrated = stage is not None and self._store.size(stage.unit(0).key) is None

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
        return lanes(
            goal.category,
            self._settings,
            buckets=goal.buckets,
            skipped=skipped,
            skip_failed=self._skip_failed,
        )

    def _run_stage(self, kind: type[Stage], goals: Sequence[_Goal]) -> None:
        """Run the units of one stage that have no part yet, wave by wave."""
        by_name = {goal.category.name: goal for goal in goals}
        every = [task for goal in goals for task in self._tasks(kind, goal)]
        tasks = sorted((task for task, done in every if not done), key=_turn)
        with self._display.stage(kind.name, total=len(every), done=len(every) - len(tasks)):
            for _, group in groupby(tasks, key=_turn):
                # A unit that failed in an earlier wave takes those that follow it along.
                able = [task for task in group if not _follows_failed(task, by_name)]
                for outcome in self._outcomes(able):
                    self._display.advance(outcome)
                    if outcome.done.cause is not None:
                        _note_failure(by_name, outcome)

    def _outcomes(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        attempts = self._settings.profile.attempts
        for resources, group in groupby(tasks, key=lambda task: task.stage.resources):
            yield from run(self._hire(resources), group, attempts=attempts)

    def _tasks(self, kind: type[Stage], goal: _Goal) -> Iterator[tuple[Task, bool]]:
        """Yield every unit of a stage, with whether it is done; not those that follow a failed one."""
        for stage in self._lanes(goal).of(kind):
            done = {entry.key for entry in self._store.list(stage.folder)}
            for unit in stage.units(self._store):
                task = Task(stage=stage, unit=unit)
                if not _follows_failed(task, {goal.category.name: goal}):
                    yield task, unit.key in done

    def _count(self, goal: _Goal) -> bool:
        """Count what was kept; a part that cannot be read fails its bucket. False if nothing can be."""
        agree = self._lanes(goal).agree
        goal.kept = 0
        if goal.uncalibrated:
            return False
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


def _turn(task: Task) -> tuple[int, float]:
    """Return when a task's turn is: by wave, then those that need the same workers together."""
    return task.stage.wave, task.stage.resources.gpus


def _follows_failed(task: Task, goals: Mapping[str, _Goal]) -> bool:
    stage, goal = task.stage, goals[task.stage.category_name]
    if isinstance(stage, CalibrateStage):
        return not goal.failed.isdisjoint(stage.buckets(task.unit))
    if goal.uncalibrated and isinstance(stage, (JudgeStage, AgreeStage)) and stage.is_calibrated:
        return True
    return goal.failed.issuperset(stage.buckets(task.unit))


def _note_failure(goals: Mapping[str, _Goal], outcome: Outcome) -> None:
    stage, unit = outcome.task.stage, outcome.task.unit
    goal = goals[stage.category_name]
    if isinstance(stage, ShardStage):
        goal.torn = True
    elif not isinstance(stage, CalibrateStage):
        goal.failed.update(stage.buckets(unit))
