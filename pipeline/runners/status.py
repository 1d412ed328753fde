"""How far a run is, read from its parts alone; speed and failures from what drivers noted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.config import Category, Settings, from_json
from pipeline.dataset import manifest
from pipeline.dataset.gc import Stale, stale
from pipeline.errors import ConfigError, StorageError
from pipeline.runners.build import SETTINGS_KEY
from pipeline.runners.progress import FOLDER, Failure, Speed, read_diaries, read_diary
from pipeline.stages import Lanes, ShardStage, Stage, kinds, lanes
from pipeline.stages.check import check
from pipeline.stages.quota import first_buckets
from pipeline.storage import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus:
    """Units of one stage of all categories. ``rate`` is rows a worker-second, ``left`` seconds to go."""

    name: str
    done: int
    total: int
    rate: float | None
    left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A run as it stands. ``failures`` are units that failed for good and are still not done.

    ``stale`` are parts of fingerprints that the settings do not use: older settings find them again.
    """

    stages: tuple[StageStatus, ...]
    failures: tuple[Failure, ...]
    finished: bool
    stale: tuple[Stale, ...] = ()


def read_settings(store: Store) -> Settings:
    """Return the settings of the last build of a run.

    Raises StorageError if there was none, ConfigError if they name what this version does not have.
    """
    if store.size(SETTINGS_KEY) is None:
        if store.size(manifest.KEY) is not None:
            raise StorageError(
                f"{store.uri}: an import is here, no build: what of it is damaged, `vipo verify` names: "
                "delete that .tar and its .parquet, and import again"
            )
        raise StorageError(f"{store.uri}: no run is here: give the --run of a build, or run build first")
    settings = from_json(store.get(SETTINGS_KEY), f"{store.uri}/{SETTINGS_KEY}")
    check(settings)
    return settings


def read_lanes(settings: Settings, store: Store) -> list[Lanes]:
    """Return the stages of every category, over as many buckets as the run has got to."""
    return [_lanes(category, settings, store) for category in settings.categories]


def speeds(store: Store) -> dict[str, Speed]:
    """Return the work of all drivers by ``stage/lane``."""
    total: dict[str, Speed] = {}
    for diary in read_diaries(store):
        for lane, seen in diary.lanes.items():
            speed = total.setdefault(lane, Speed())
            speed.units, speed.rows = speed.units + seen.units, speed.rows + seen.rows
            speed.seconds += seen.seconds
    return total


def status(store: Store) -> Status:
    """Count parts against units."""
    settings = read_settings(store)
    every = read_lanes(settings, store)
    measured = speeds(store)
    workers = settings.profile.workers or os.cpu_count() or 1
    stages = tuple(_stage_status(kind, every, measured, workers, store) for kind in kinds(every))
    failures = {failure.unit: failure for diary in read_diaries(store) for failure in diary.failures}
    open_failures = (failure for failure in failures.values() if store.size(failure.unit) is None)
    return Status(
        stages=stages,
        failures=tuple(open_failures),
        finished=all(stage.done == stage.total for stage in stages),
        stale=tuple(stale(every, store)),
    )


def require_idle(store: Store, since: float) -> None:
    """Raise ConfigError if a driver that never said it ended has written its diary after ``since``."""
    for entry in store.list(FOLDER):
        if entry.modified > since and not read_diary(entry.key, store).ended:
            raise ConfigError(
                f"{store.uri}/{entry.key}: this build may be at work and name what would be removed: end it "
                "first (the same command goes on with it); if it was killed, wait, or lower --older-than"
            )


def parts(stage: Stage, store: Store) -> list[str]:
    """Return the keys of a stage's parts."""
    return [entry.key for entry in store.list(stage.folder) if entry.key.endswith(".parquet")]


def _lanes(category: Category, settings: Settings, store: Store) -> Lanes:
    planned = first_buckets(category, settings)
    stages = lanes(category, settings, buckets=planned)
    reached = max(_last_bucket(parts(stage, store)) + 1 for stage in (*stages.generate, stages.pair))
    if reached < planned:  # a quota may be met early: then there are shards of just these buckets
        met = lanes(category, settings, buckets=reached)
        if any(store.list(met.shard.folder)):
            return met
    return lanes(category, settings, buckets=max(planned, reached))


def _last_bucket(keys: Sequence[str]) -> int:
    return int(keys[-1].rpartition("/")[2].removesuffix(".parquet")) if keys else -1


def _stage_status(
    kind: type[Stage], every: Sequence[Lanes], measured: dict[str, Speed], workers: int, store: Store
) -> StageStatus:
    done = total = rows = 0
    seconds = left = 0.0
    for stage in (stage for lane in every for stage in lane.of(kind)):
        units, finished = _count(stage, every, store)
        speed = measured.get(f"{stage.name}/{stage.lane}", Speed())
        done, total = done + finished, total + units
        rows, seconds = rows + speed.rows, seconds + speed.seconds
        left += (units - finished) * speed.seconds / speed.units if speed.units else 0.0
    return StageStatus(
        name=kind.name,
        done=done,
        total=total,
        rate=rows / seconds if seconds else None,
        left=left / workers if seconds else None,
    )


def _count(stage: Stage, every: Sequence[Lanes], store: Store) -> tuple[int, int]:
    """Return units and parts; how many shards there will be is known once all pairs are labelled."""
    finished = len(parts(stage, store))
    if isinstance(stage, ShardStage):
        agree = next(lane.agree for lane in every if lane.shard is stage)
        if len(parts(agree, store)) < sum(1 for _ in agree.units(store)):
            return max(1, finished), finished
    return sum(1 for _ in stage.units(store)), finished
