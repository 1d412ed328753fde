"""The driver: which units there are, in which order they run, and when a category has enough."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from pipeline.config import Category, Settings, to_json
from pipeline.dataset.manifest import Manifest, write_manifest
from pipeline.errors import CorruptError, WorkerError
from pipeline.records import Prompt
from pipeline.runners.base import Done, Outcome, Task, Workers, one_line
from pipeline.runners.flow import Flow
from pipeline.runners.progress import Display, Failure
from pipeline.stages import (
    ORDER,
    AgreeStage,
    CalibrateStage,
    Lanes,
    ShardStage,
    Stage,
    kinds,
    lanes,
    read_columns,
    read_part,
)
from pipeline.stages.quota import most_buckets, next_buckets, opening_buckets
from pipeline.storage import Store

SETTINGS_KEY = "settings.json"

READERS = 16
"""Parts read at a time to count what was kept: on S3 each waits for its answer."""


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
    """How far a category is: ``failed`` buckets, pairs ``kept`` by bucket, whether a shard is ``torn``.

    ``lanes`` are its stages over all buckets taken in so far; ``seen`` the keys of their units, of which some
    are ``done`` and some ``out``; ``sharding`` once all buckets are labelled.
    ``uncalibrated``: buckets that judges are calibrated on have failed, so no pair can be labelled.
    """

    category: Category
    quota: int
    buckets: int
    lanes: Lanes
    failed: set[int] = field(default_factory=set)
    kept: dict[int, int] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    out: set[str] = field(default_factory=set)
    sharding: bool = False
    torn: bool = False
    ended: bool = False
    uncalibrated: bool = False

    @property
    def total(self) -> int:
        return sum(self.kept.values())


class Build:
    """Gives workers the units whose inputs are there; a category ends when its quota of kept pairs is met.

    A category's buckets are taken in step by step, and each step is sized by what the buckets before it
    kept. ``skip_failed`` ships categories without their failed units.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        workers: Workers,
        display: Display,
        skip_failed: bool = False,
    ) -> None:
        self._settings, self._store, self._skip_failed = settings, store, skip_failed
        self._workers, self._display = workers, display
        self._flow = Flow(overlap=settings.profile.overlap)
        self._goals = {category.name: self._goal(category) for category in settings.categories}
        self._expected: set[str] = set()
        self._at_work = 0

    def run(self) -> Built:
        """Do all units that have no part yet, then write the manifest.

        A category with failed units is held back from the shards unless the build skips them; the
        shards of the others are written in any case.
        """
        self._store.replace(SETTINGS_KEY, to_json(self._settings))
        self._display.started(self._settings)
        try:
            for kind in kinds(goal.lanes for goal in self._goals.values()):
                self._expect(kind.name, 0, 0)
            for goal in self._goals.values():
                self._take_in(goal)
            self._settle(self._goals)
            while self._flow.floor() < len(ORDER):
                self._give_out()
                self._display.staffed(self._workers.staff(), idle=len(self._workers.idle()))
                for task, done in self._workers.wait():
                    self._take_back(task, done)
        finally:
            self._workers.close()
        return self._built([goal for goal in self._goals.values() if goal.sharding and not goal.torn])

    # ---- tasks out and back

    def _give_out(self) -> None:
        """Give every idle worker a task, if there is one for it."""
        needs = self._flow.needs()
        if not (needs or self._at_work):
            raise WorkerError("tasks are left that wait for parts that nobody makes: report this as a bug")
        self._workers.hire(needs)
        for worker in self._workers.idle():
            task = self._flow.next(worker, self._workers.staff())
            if task is None:
                continue
            self._display.begin(task.stage.name)
            if self._workers.start(worker, self._as_it_is_now(task)):
                self._at_work += 1
            else:
                self._flow.retry(task)

    def _take_back(self, task: Task, done: Done) -> None:
        self._at_work -= 1
        goal = self._goals[task.stage.category_name]
        if done.cause is not None and task.attempt < self._settings.profile.attempts:
            self._display.retried(task, done)
            self._flow.retry(replace(task, attempt=task.attempt + 1))
            return
        self._display.advance(Outcome(task=task, done=done))
        goal.out.remove(task.unit.key)
        if done.cause is None:
            goal.done.add(task.unit.key)
            self._flow.done(task, done.seconds)
        else:
            _note_failure(goal, task)
            goal.out.difference_update(self._flow.failed(task, self._does_without))
        self._settle([goal.category.name])

    def _as_it_is_now(self, task: Task) -> Task:
        """Return a task with what is known by now: judges are calibrated without buckets that failed."""
        goal = self._goals[task.stage.category_name]
        if not (goal.failed and self._does_without(task)):
            return task
        now = self._lanes(goal)
        stage: Stage | None = now.calibrate if isinstance(task.stage, CalibrateStage) else now.agree
        return replace(task, stage=stage or task.stage)

    def _does_without(self, task: Task) -> bool:
        """Say whether a task can be done without a part that failed."""
        stage = task.stage
        consensus = isinstance(stage, AgreeStage) and stage.settings.kind == "dawid_skene"
        return self._skip_failed and (isinstance(stage, CalibrateStage) or consensus)

    # ---- how far categories are

    def _goal(self, category: Category) -> _Goal:
        buckets = opening_buckets(category, self._settings)
        return _Goal(
            category=category,
            quota=self._settings.quota(category),
            buckets=buckets,
            lanes=lanes(category, self._settings, buckets=buckets),
        )

    def _lanes(self, goal: _Goal) -> Lanes:
        skipped = tuple(sorted(bucket for bucket in goal.failed if bucket < goal.buckets))
        return lanes(
            goal.category,
            self._settings,
            buckets=goal.buckets,
            skipped=skipped,
            skip_failed=self._skip_failed,
        )

    def _take_in(self, goal: _Goal) -> None:
        """Add the units of all stages before the shards that have not been added yet."""
        goal.lanes = self._lanes(goal)
        for stage in goal.lanes.all[:-1]:
            self._add(goal, stage)

    def _add(self, goal: _Goal, stage: Stage) -> None:
        """Add the units of a stage; not those that need a part that failed."""
        there = {entry.key for entry in self._store.list(stage.folder)}
        total = done = 0
        for unit in stage.units(self._store):
            if unit.key in goal.seen:
                continue
            goal.seen.add(unit.key)
            task = Task(stage=stage, unit=unit)
            if unit.key in there:
                goal.done.add(unit.key)
                total, done = total + 1, done + 1
            elif (needs := self._open_needs(goal, task)) is not None:
                goal.out.add(unit.key)
                self._flow.add(task, needs)
                total += 1
        self._expect(stage.name, total, done)

    def _open_needs(self, goal: _Goal, task: Task) -> list[str] | None:
        """Return the parts that a task has to wait for; None if one of them never comes."""
        keys = [need.key for need in task.stage.needs(task.unit) if need.key not in goal.done]
        coming = [key for key in keys if key in goal.out]
        return coming if len(coming) == len(keys) or self._does_without(task) else None

    def _settle(self, names: Iterable[str]) -> None:
        """Take those categories a step further that have no task left."""
        for goal in map(self._goals.__getitem__, names):
            while not (goal.ended or self._flow.left(goal.category.name)):
                self._step(goal)
        self._end_stages()

    def _step(self, goal: _Goal) -> None:
        """Take in more buckets, or cut shards, or end."""
        if goal.sharding:
            goal.ended = True
            return
        calibrate = goal.lanes.calibrate
        goal.uncalibrated = calibrate is not None and calibrate.unit(0).key not in goal.done
        if self._count(goal) and self._may_ship(goal) and self._grow(goal):
            self._take_in(goal)
        elif self._may_ship(goal):
            goal.sharding, goal.lanes = True, self._lanes(goal)
            self._add(goal, goal.lanes.shard)
        else:
            goal.ended = True

    def _may_ship(self, goal: _Goal) -> bool:
        return not goal.uncalibrated and (self._skip_failed or not goal.failed)

    def _count(self, goal: _Goal) -> bool:
        """Count what was kept; a part that cannot be read fails its bucket. False if nothing can be."""
        if goal.uncalibrated:
            return False
        new = sorted(set(range(goal.buckets)) - goal.failed - goal.kept.keys())
        with ThreadPoolExecutor(READERS) as readers:
            for bucket, kept in zip(new, readers.map(lambda b: self._kept(goal, b), new), strict=True):
                if isinstance(kept, CorruptError):
                    goal.failed.add(bucket)
                    self._display.failed(goal.lanes.agree.unit(bucket), one_line(kept))
                else:
                    goal.kept[bucket] = kept
        self._display.counted(goal.category.name, kept=goal.total, quota=goal.quota)
        return bool(goal.kept)

    def _kept(self, goal: _Goal, bucket: int) -> int | CorruptError:
        try:
            part = read_columns(["kept"], goal.lanes.agree.unit(bucket).key, self._store)
            return sum(map(bool, part["kept"].to_pylist()))
        except CorruptError as error:
            return error

    def _grow(self, goal: _Goal) -> bool:
        """Take more buckets if the quota needs them and the pool has them."""
        if goal.total >= goal.quota:
            return False
        each = goal.total / len(goal.kept)
        wanted = goal.buckets + next_buckets(goal.quota - goal.total, each, goal.buckets)
        buckets = min(wanted, most_buckets(goal.category, self._settings))
        if buckets == goal.buckets or not goal.lanes.prompts.reaches(goal.buckets - 1, self._store):
            return False
        goal.buckets = buckets
        return True

    # ---- what is shown and said

    def _expect(self, stage: str, total: int, done: int) -> None:
        self._expected.add(stage)
        self._display.expect(stage, total=total, done=done)

    def _end_stages(self) -> None:
        """Close the account of stages that have nothing left to do, of any category."""
        for kind in ORDER[: self._flow.floor()]:
            if kind.name in self._expected:
                self._expected.remove(kind.name)
                self._display.begin(kind.name)
                self._display.end(kind.name)

    def _built(self, whole: Sequence[_Goal]) -> Built:
        shipped = {goal.category.name for goal in whole}
        every = self._goals.values()
        manifest = write_manifest(self._settings, [goal.lanes for goal in whole], self._store)
        held_back = tuple(name for name in self._goals if name not in shipped)
        self._display.shipped(manifest, held_back)
        return Built(
            manifest=manifest,
            kept={goal.category.name: goal.total for goal in every},
            short={g.category.name: g.quota - g.total for g in every if g.total < g.quota},
            failures=self._display.diary.failures,
            held_back=held_back,
            bad_rows={g.category.name: list(self._bad_rows(g)) for g in every if g.category.pool.uri},
        )

    def _bad_rows(self, goal: _Goal) -> Iterator[str]:
        prompts = goal.lanes.prompts
        for unit in prompts.units(self._store):
            if not goal.failed.issuperset(prompts.buckets(unit)):
                for row in read_part(Prompt, unit.key, self._store):
                    if row.status == "failed" and row.bucket < goal.buckets:
                        yield f"line {row.line}: {row.reason}"


def _note_failure(goal: _Goal, task: Task) -> None:
    if isinstance(task.stage, ShardStage):
        goal.torn = True
    elif not isinstance(task.stage, CalibrateStage):
        goal.failed.update(task.stage.buckets(task.unit))
