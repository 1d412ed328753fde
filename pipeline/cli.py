"""The command line: arguments in, the API's answers as tables out. All work is done behind ``api``."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipeline.errors import BuildError, CorruptError, StorageError, VipoError

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.config import Settings
    from pipeline.report.statistics import Share
    from pipeline.runners.build import Built

INTERRUPTED = 130
BAD_ROWS_SHOWN = 5


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 not done and said why, 130 interrupted."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        given.command(given)
    except VipoError as error:
        sys.stderr.write(f"vipo: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("vipo: interrupted: run the same command again to go on\n")
        return INTERRUPTED
    return 0


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vipo", description="Build visual preference datasets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("plan", help="say what a build will count, weigh and last")
    _add_settings(command)
    command.add_argument("--run", help="use the rates that this run has measured")
    command.set_defaults(command=_plan)

    command = commands.add_parser("build", help="build a dataset, or go on with one")
    _add_settings(command)
    _add_run(command)
    command.add_argument("--address", help="Ray cluster, such as ray://head:10001 (default: RAY_ADDRESS)")
    command.add_argument("--skip-failed", action="store_true", help="ship without units that failed")
    command.set_defaults(command=_build)

    for name, function, about in (
        ("status", _status, "show how far a run is"),
        ("verify", _verify, "read every shard back and check it"),
        ("report", _report, "write the page about a run"),
        ("repair", _repair, "make again what is corrupt or missing, or say what is lost (no build at work)"),
    ):
        command = commands.add_parser(name, help=about)
        _add_run(command)
        command.set_defaults(command=function)

    command = commands.add_parser("audit", help="look at labelled pairs with other eyes")
    verbs = command.add_subparsers(required=True, metavar="COMMAND")
    command = verbs.add_parser("conflict", help="how far judges rank the pairs of a dataset alike")
    command.add_argument("--run", help="folder or s3://bucket/prefix of a finished run")
    command.add_argument("--category", help="category of the run")
    command.add_argument("--parquet", help="instead: file, folder or s3:// prefix in Pick-a-Pic's columns")
    command.add_argument("--judge", action="append", default=[], help="two or more of the table (repeatable)")
    command.add_argument("--limit", type=int, help="look at so many pairs")
    command.add_argument("--profile", default="laptop", help="where models are (default: laptop)")
    command.set_defaults(command=_conflict)

    command = commands.add_parser("doctor", help="say what this machine can run: GPUs, packages, models")
    _add_settings(command)
    command.add_argument("--address", help="Ray cluster to knock at (default: RAY_ADDRESS)")
    command.set_defaults(command=_doctor)

    command = commands.add_parser("weights", help="the weights of models")
    verbs = command.add_subparsers(required=True, metavar="COMMAND")
    command = verbs.add_parser("pin", help="note the revision of all weights that a build would load")
    command.add_argument("repo", nargs="*", help="only these, such as org/name")
    _add_settings(command)
    command.set_defaults(command=_pin)

    command = commands.add_parser("gc", help="remove what the settings of the last build do not use")
    _add_run(command)
    command.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    command.add_argument("--older-than", type=float, default=24.0, metavar="HOURS", help="(default: 24)")
    command.add_argument(
        "--other-categories", action="store_true", help="also parts of categories that the settings lack"
    )
    command.set_defaults(command=_gc)
    return parser


def _add_run(command: argparse.ArgumentParser) -> None:
    command.add_argument("--run", required=True, help="folder or s3://bucket/prefix of the run")


def _add_settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--profile", default="laptop", help="name, or path of a TOML file (default: laptop)")
    command.add_argument("--categories", type=Path, metavar="FOLDER", help="folder of category files")
    command.add_argument("--category", action="append", default=[], help="only this one (repeatable)")
    command.add_argument("--modality", choices=("image", "video"), help="only categories of this kind")
    command.add_argument("--quota", type=int, help="kept pairs wanted of each category")
    command.add_argument("--runner", choices=("local", "ray"), help="instead of the profile's")
    command.add_argument("--workers", type=int, help="instead of the profile's (0: as many as fit)")


def _settings(given: argparse.Namespace) -> Settings:
    from pipeline import api

    return api.load(
        given.profile,
        categories=given.category,
        folder=given.categories,
        modality=given.modality,
        quota=given.quota,
        runner=given.runner,
        workers=given.workers,
    )


def _plan(given: argparse.Namespace) -> None:
    from pipeline import api

    made = api.plan(_settings(given), given.run)
    rows = [
        (
            c.name,
            c.quota,
            c.prompts,
            c.generations,
            c.pairs,
            c.answers,
            c.kept,
            _size(c.bytes),
            _time(c.seconds),
        )
        for c in made.categories
    ]
    headings = "category quota prompts generations pairs answers kept media worker-time"
    _table("Plan of the first round", headings, rows)
    source = "measured by the run" if made.measured else "from the tables of generators and judges"
    console = _console()
    console.print(f"Rates {source}. On {made.workers} workers about {_time(made.wall_seconds)}.")
    console.print(f"Using each generation in several pairs saves {made.saved_generations:,} generations.")
    if made.saved_answers:
        console.print(f"Asking no judge about what is settled saves {made.saved_answers:,} answers.")


def _conflict(given: argparse.Namespace) -> None:
    from pipeline import api

    found = api.conflict(
        api.load(given.profile),
        given.judge,
        run=given.run,
        category=given.category,
        parquet=given.parquet,
        limit=given.limit,
    )
    rows = [
        ("all, of all pairs", *_share(found.alike)),
        ("all, of pairs that all rank", *_share(found.alike_of_ranked)),
        *((f"{one} and {other}", *_share(share)) for (one, other), share in found.two.items()),
        *((f"{judge} and the label", *_share(share)) for judge, share in found.label.items()),
    ]
    _table(f"Ranked alike: {found.pairs:,} pairs", "who alike of share 95%-interval", rows)
    console = _console()
    console.print(f"Coins would rank {found.chance:.4f} of the pairs alike.")
    for reason, count in found.skipped.items():
        console.print(f"skipped: {count:,}: {reason}", markup=False)


def _share(share: Share) -> tuple[int, int, str, str]:
    low, high = share.interval
    return (
        share.hits,
        share.total,
        "" if share.value is None else f"{share.value:.4f}",
        f"{low:.3f}-{high:.3f}",
    )


def _doctor(given: argparse.Namespace) -> None:
    from pipeline import api

    findings = api.doctor(_settings(given), address=given.address)
    rows = [(f.area, f.name, f.state, f.found, f.remedy if f.state != "ok" else "") for f in findings]
    _table("This machine", "area name state found remedy", rows, words=5)


def _pin(given: argparse.Namespace) -> None:
    from pipeline import api

    def told(line: str) -> None:
        _console().print(line, soft_wrap=True, markup=False, highlight=False)

    settings = _settings(given)
    unpinned = api.pin(settings, told, given.repo)
    told(f"written: {api.pins_file(settings.profile)}")
    if unpinned:
        raise StorageError(f"{unpinned} repositories are not pinned: see the lines above")


def _build(given: argparse.Namespace) -> None:
    from pipeline import api

    built = api.build(_settings(given), given.run, address=given.address, skip_failed=given.skip_failed)
    page = api.report(given.run)
    rows = [
        (item.name, item.quota, built.kept[item.name], item.pairs, _size(_bytes(built, item.name)))
        for item in built.manifest.categories
    ]
    _table("Dataset", "category quota kept shipped shards", rows)
    for name, bad in built.bad_rows.items():
        for line in bad[:BAD_ROWS_SHOWN]:
            _console().print(f"{name}: pool {line}", soft_wrap=True, highlight=False, markup=False)
        _console().print(f"{name}: {len(bad)} rows of its pool cannot be used")
    _console().print(f"report: {page}", soft_wrap=True, highlight=False)
    problems = [f"{len(built.failures)} units failed"] if built.failures else []
    problems += [f"{name} is {count} pairs short" for name, count in built.short.items()]
    problems += [f"{name} was held back from the shards" for name in built.held_back]
    if problems:
        remedy = "run it again to try failed units again, or add --skip-failed to ship without them"
        if not built.failures:
            remedy = "its pool is used up: lower the quota, or give it a larger pool"
        raise BuildError(f"{'; '.join(problems)}: {remedy}")


def _status(given: argparse.Namespace) -> None:
    from pipeline import api

    seen = api.status(given.run)
    rows = [
        (
            stage.name,
            f"{stage.done}/{stage.total}",
            "" if stage.rate is None else f"{stage.rate:.1f}",
            "" if stage.left is None or stage.done == stage.total else _time(stage.left),
        )
        for stage in seen.stages
    ]
    _table("Finished" if seen.finished else "Unfinished", "stage units rows/worker-second left", rows)
    for failure in seen.failures:
        _console().print(f"failed: {failure.unit}: {failure.cause}", markup=False, soft_wrap=True)
    if seen.stale:
        old = [(f"{s.stage}/{s.lane}", s.fingerprint, s.parts, _size(s.bytes)) for s in seen.stale]
        _table("Not of these settings (vipo gc removes them)", "lane fingerprint parts size", old)


def _verify(given: argparse.Namespace) -> None:
    from pipeline import api

    console = _console()
    found = api.verify(
        given.run,
        lambda shard: console.print(
            f"good: {shard.tar} ({shard.pairs} pairs)", soft_wrap=True, highlight=False
        ),
    )
    console.print(
        f"verified: {found.shards} shards, {found.pairs} pairs, {found.media} media, {_size(found.bytes)}"
    )


def _repair(given: argparse.Namespace) -> None:
    from pipeline import api

    console = _console()

    def told(line: str) -> None:
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    done = api.repair(given.run, told)
    for key in done.lost:
        told(f"lost: {key}")
    counts = len(done.removed), len(done.restored), len(done.rebuilt)
    told("removed {}, restored {} media, rebuilt {} shards".format(*counts))
    if done.lost:
        raise CorruptError(f"{len(done.lost)} pairs are lost: restore the pool of prompts, then repair again")
    if done.todo:
        raise BuildError(
            f"{'; '.join(done.todo)}: run the same build again, then `vipo repair --run {given.run}`"
        )


def _gc(given: argparse.Namespace) -> None:
    from pipeline import api

    heaps = api.gc(
        given.run,
        older_than=given.older_than,
        dry_run=given.dry_run,
        other_categories=given.other_categories,
    )
    fate = "would go" if given.dry_run else "removed"
    rows = [
        (
            heap.what,
            heap.fingerprint,
            heap.objects,
            _size(heap.bytes),
            f"kept: {heap.kept}" if heap.kept else fate,
        )
        for heap in heaps
    ]
    if rows:
        _table("Not needed", "what fingerprint objects size fate", rows)
    _console().print(f"{fate}: {_size(sum(heap.bytes for heap in heaps if not heap.kept))}")


def _report(given: argparse.Namespace) -> None:
    from pipeline import api

    _console().print(f"report: {api.report(given.run)}", soft_wrap=True, highlight=False)


def _bytes(built: Built, category: str) -> int:
    return sum(shard.bytes for shard in built.manifest.shards if shard.category == category)


def _console() -> Console:
    from rich.console import Console

    return Console()


def _table(title: str, headings: str, rows: Sequence[tuple[object, ...]], *, words: int = 1) -> None:
    """Print ``rows``; the first ``words`` columns are words, the others numbers."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, heading in enumerate(headings.split()):
        table.add_column(heading, justify="left" if number < words else "right")
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else escape(str(cell)) for cell in row))
    _console().print(table)


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:,.0f} h"
