"""The commands as functions: everything the command line does, for use from Python.

>>> settings = load("laptop", categories=["portrait"])
>>> built = build(settings, "runs/portraits")
>>> verify("runs/portraits").pairs
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from pipeline import media, weights
from pipeline.config import Pin, Profile, Runner, Settings, data_root, load_category, load_profile, nearest
from pipeline.dataset import audit, labelled
from pipeline.dataset import gc as garbage
from pipeline.dataset import manifest as manifests
from pipeline.dataset import repair as repairs
from pipeline.dataset import verify as verification
from pipeline.dataset.audit import Conflict
from pipeline.errors import ConfigError
from pipeline.generators.base import GeneratorSpec
from pipeline.judges.base import JudgeSpec
from pipeline.judges.table import JUDGES
from pipeline.records import Agreement, Calibration, Generation, Modality, Pair, Prompt, Record, Verdict
from pipeline.report.data import ReportInput, ShardRow
from pipeline.report.page import render
from pipeline.rewriters.base import RewriterSpec
from pipeline.runners import plan as planning
from pipeline.runners import status as statuses
from pipeline.runners.base import Workers
from pipeline.runners.build import Build, Built
from pipeline.runners.doctor import Finding, diagnose
from pipeline.runners.events import LogKind
from pipeline.runners.local import LocalWorkers
from pipeline.runners.pilot import read_pilot
from pipeline.runners.progress import Display
from pipeline.stages import Stage, generator_specs, hosting, judge_spec, read_part, rewriter_spec
from pipeline.stages.check import check, check_models, check_pools
from pipeline.storage import Store, open_store

REPORT_KEY = "report.html"
R = TypeVar("R", bound=Record)


def load(
    profile: str = "laptop",
    *,
    categories: Sequence[str] = (),
    folder: Path | None = None,
    modality: Modality | None = None,
    quota: int | None = None,
    limit: int | None = None,
    runner: Runner | None = None,
    workers: int | None = None,
) -> Settings:
    """Read a profile (its name, or the path of a TOML file) and the categories to build.

    ``folder`` holds the category files, ``quota`` replaces the quota of every category, ``runner`` and
    ``workers`` those of the profile. ``limit`` makes it a pilot that judges about so many pairs in all.
    Raises ConfigError naming file, key and remedy.
    """
    folder = folder or data_root() / "categories"
    path = Path(profile) if profile.endswith(".toml") else data_root() / f"infra/profiles/{profile}.toml"
    known = sorted(path.stem for path in folder.glob("*.toml"))
    for name in categories:
        if name not in known:
            raise ConfigError(f"{folder}: no category {name!r}: {nearest(name, known)}")
    chosen = [load_category(folder / f"{name}.toml") for name in categories or known]
    given = {"runner": runner, "workers": workers, "image_quota": quota, "video_quota": quota}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    profile_read = dataclasses.replace(load_profile(path), **changes)
    settings = Settings(
        profile=profile_read,
        categories=tuple(item for item in chosen if modality in (None, item.modality)),
        pins=_pins(profile_read) if profile_read.cast == "models" else (),
    )
    if not settings.categories:
        raise ConfigError(f"{folder}: no {modality or ''} category among {', '.join(known) or 'no files'}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit = {limit} must be above 0")
    return settings if limit is None else settings.limited(limit)


def _pins(profile: Profile) -> tuple[Pin, ...]:
    path = pins_file(profile)
    return weights.read_pins(path) if path.is_file() else ()


def pins_file(profile: Profile) -> Path:
    """Return the file that pins revisions of weights: the profile's own, or infra/weights.toml."""
    return Path(profile.pins) if profile.pins else data_root() / "infra/weights.toml"


def conflict(
    settings: Settings,
    judges: Sequence[str],
    *,
    run: str | None = None,
    category: str | None = None,
    parquet: str | None = None,
    limit: int | None = None,
    seen: Callable[[int], object] = id,
) -> Conflict:
    """Say how far ``judges`` contradict each other on pairs of a run, or of a file in Pick-a-Pic's columns.

    ``limit`` pairs are drawn by their ids; ``seen`` is called now and then with how many are done. Models are
    hosted as the profile of ``settings`` says. Raises ConfigError.
    """
    if (run is None) == (parquet is None) or (run is None) != (category is None):
        raise ConfigError("audit conflict: give --run and --category, or --parquet")
    if limit is not None and limit < 1:
        raise ConfigError(f"audit conflict: limit = {limit} must be above 0")
    for name in judges:
        if name not in JUDGES:
            raise ConfigError(f"audit conflict: no judge {name!r}: {nearest(name, JUDGES)}")
    settings = dataclasses.replace(settings, pins=_pins(settings.profile))
    each = [(judge_spec(settings, name), hosting(settings, name)) for name in judges]
    if parquet is not None:
        with audit.opened(each, "image") as scorers:
            return audit.conflict(labelled.parquet_pairs(parquet, limit=limit), scorers, seen=seen)
    store = open_store(str(run))
    built = {item.name: item for item in statuses.read_settings(store).categories}
    if category not in built:
        raise ConfigError(f"{store.uri}: no category {category!r}: {nearest(str(category), built)}")
    checks = any(spec.family == "measured" or spec.options.get("ask") == "checklist" for spec, _ in each)
    pairs = labelled.shard_pairs(store, category, limit=limit, checks=checks)
    with audit.opened(each, built[category].modality) as scorers:
        return audit.conflict(pairs, scorers, rubric=built[category].rubric, seen=seen)


def doctor(settings: Settings, *, address: str | None = None) -> list[Finding]:
    """Say what this machine can run of ``settings``: GPUs, memory, packages, Ray, and each model."""
    return diagnose(settings, address or os.environ.get("RAY_ADDRESS") or None)


def pin(settings: Settings, told: Callable[[str], object] = id, repos: Sequence[str] = ()) -> int:
    """Write down the present revision of ``repos``, or of all weights that a build would load.

    Returns how many have none. They are looked for where the profile says: a folder, a prefix, or the hub.
    ``told`` is called with a line for each repository.
    """
    check(settings)
    specs: list[GeneratorSpec | JudgeSpec | RewriterSpec] = []
    for cast in map(settings.cast, settings.categories):
        specs += [*generator_specs(settings, cast).values(), *(judge_spec(settings, j) for j in cast.judges)]
        specs += [rewriter_spec(settings, cast.rewrite.rewriter)] if cast.rewrite else []
    repos = list(repos) or weights.repositories(spec.weights for spec in specs)
    root, pins = settings.profile.weights, []
    for repo, found in zip(repos, weights.pin(repos, root), strict=True):
        if isinstance(found, Pin):
            pins.append(found)
        told(f"{repo}: {found.revision}" if isinstance(found, Pin) else str(found))
    source = f"{root or 'the hub'}, {datetime.now(UTC):%Y-%m-%d}"
    weights.write_pins(pins_file(settings.profile), pins, source)
    return len(repos) - len(pins)


def build(
    settings: Settings,
    run: str,
    *,
    address: str | None = None,
    skip_failed: bool = False,
    console: Console | None = None,
    log: LogKind = "human",
) -> Built:
    """Build, or go on building, the dataset of ``settings`` in the store ``run``.

    ``address`` is that of a Ray cluster (default: RAY_ADDRESS, else this machine). Raises ConfigError
    before any work for settings or a machine that will not do. With ``log`` json the lines of the console
    are events (``runners.events``).
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    _require_gpus(settings, address)
    check(settings)
    check_pools(settings)
    check_models(settings)
    store = open_store(run)
    workers = _workers(settings, store, address)
    with Display(store, console, log=log) as display:
        driver = Build(settings, store, workers=workers, display=display, skip_failed=skip_failed)
        return driver.run()


def plan(
    settings: Settings,
    run: str | None = None,
    *,
    prices: Mapping[str, float] | None = None,
    gpus: int | None = None,
) -> planning.Plan:
    """Say what a build will count, cost and last; by what ``run`` has measured, where it has.

    ``prices`` are US dollars for an hour of a type of GPU ("H100", "GPU" for any) or of a "core", for a month
    of a "TB", or for one item of a model; ``gpus`` share the work. Raises ConfigError.
    """
    check(settings)
    pilot = read_pilot(open_store(run)) if run else None
    return planning.plan(settings, pilot, prices=prices, gpus=gpus)


def status(run: str) -> statuses.Status:
    """Say how far a run is."""
    return statuses.status(open_store(run))


def verify(run: str, seen: Callable[[manifests.Shard], object] = id) -> verification.Verified:
    """Read all shards of a run back. Raises CorruptError naming the first bad file and record."""
    return verification.verify(open_store(run), seen)


def gc(
    run: str, *, older_than: float = 24.0, dry_run: bool = False, other_categories: bool = False
) -> list[garbage.Heap]:
    """Remove what the settings of the run's last build do not use and is older than ``older_than`` hours.

    Parts of categories that the settings do not name stay unless ``other_categories``. Raises ConfigError
    while a driver may be at work.
    """
    store = open_store(run)
    settings = statuses.read_settings(store)
    before = (time.time() if dry_run else _clock(store)) - older_than * 3600
    terms = garbage.Terms(
        before=before,
        idle=(lambda: None) if dry_run else lambda: statuses.require_idle(store, before),
        categories=None if other_categories else [category.name for category in settings.categories],
        dry_run=dry_run,
    )
    return garbage.gc(statuses.read_lanes(settings, store), store, terms)


def repair(run: str, told: Callable[[str], object] = id) -> repairs.Repaired:
    """Mend what is corrupt or missing in a run; ``told`` is called with a line for each thing done."""
    store = open_store(run)
    settings = statuses.read_settings(store)
    return repairs.repair(settings, statuses.read_lanes(settings, store), store, told)


def _clock(store: Store) -> float:
    """Return the time by the store's clock, which dates what it holds; this machine's may be wrong."""
    key = "clock"
    store.replace(key, b"")
    (entry,) = (entry for entry in store.list(key) if entry.key == key)
    store.delete(key)
    return entry.modified


def report(run: str) -> str:
    """Write the page about a run, finished or not; return its address."""
    store = open_store(run)
    store.replace(REPORT_KEY, render(_report_input(store)).encode())
    return f"{store.uri}/{REPORT_KEY}"


def _require_gpus(settings: Settings, address: str | None) -> None:
    needed = settings.profile.gpus
    if not needed:
        return
    if settings.profile.runner == "ray" and address:
        from pipeline.runners import ray

        ray.connect(address)
        have, where = ray.gpus(), f"the Ray cluster at {address}"
    else:
        have, where = len(list(Path("/dev").glob("nvidia[0-9]*"))), "this machine"
    if have < needed:
        raise ConfigError(
            f"profile {settings.profile.name} needs {needed} GPU or more, {where} has {have}: "
            "set RAY_ADDRESS to a GPU cluster, or run `make demo` to build a small dataset here"
        )


def _workers(settings: Settings, store: Store, address: str | None) -> Workers:
    count = settings.profile.workers
    if settings.profile.runner == "local":
        return LocalWorkers(store.uri, count or os.cpu_count() or 1)
    from pipeline.runners import ray

    ray.connect(address)
    return ray.RayWorkers(store.uri, count)


def _report_input(store: Store) -> ReportInput:
    settings = statuses.read_settings(store)
    every = statuses.read_lanes(settings, store)

    def rows(record: type[R], stages: Iterable[Stage]) -> Callable[[], Iterator[R]]:
        keys = [key for stage in stages for key in statuses.parts(stage, store)]
        return lambda: (row for key in keys for row in read_part(record, key, store))

    reached = {lane.category.name: lane.prompts.bucket_count for lane in every}
    prompts = rows(Prompt, (lane.rendered for lane in every))
    return ReportInput(
        title=f"Preference pairs: {store.uri.rpartition('/')[2]}",
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        settings={
            "run": store.uri,
            "profile": settings.profile.name,
            "cast": settings.profile.cast,
            "licence profile": settings.profile.licence_profile,
            **{name: metadata.version(name) for name in manifests.PACKAGES},
        },
        # A part of the pool holds more buckets than the build has used.
        prompts=lambda: (row for row in prompts() if row.bucket < reached[row.category]),
        generations=rows(Generation, (stage for lane in every for stage in lane.generate)),
        pairs=rows(Pair, (lane.pair for lane in every)),
        verdicts=rows(Verdict, (stage for lane in every for stage in (*lane.gold, *lane.judge))),
        calibrations=rows(Calibration, (lane.calibrate for lane in every if lane.calibrate)),
        agreements=rows(Agreement, (lane.agree for lane in every)),
        quotas={lane.category.name: settings.quota(lane.category) for lane in every},
        shards=tuple(_shard_rows(store)),
        fetch=lambda sha256, mime: store.get(media.key(sha256, mime)),
    )


def _shard_rows(store: Store) -> Iterator[ShardRow]:
    """Yield the shards of a finished build, nothing of one that is not."""
    if store.size(manifests.KEY) is None:
        return
    for shard in manifests.read_manifest(store).shards:
        yield ShardRow(
            name=shard.tar.rpartition("/")[2],
            category=shard.category,
            licence_profile=shard.licence_profile,
            pairs=shard.pairs,
            bytes=shard.bytes,
            sha256=shard.sha256,
        )
