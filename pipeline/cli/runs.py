"""What looks at a run, or mends it: vipo status, verify, report, repair, gc."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pipeline.cli.options import add_run
from pipeline.cli.terminal import console, size, table, time
from pipeline.errors import BuildError, CorruptError

if TYPE_CHECKING:
    from pipeline.cli.options import Commands


def add(commands: Commands) -> None:
    """Register the commands."""
    for name, function, about in (
        ("status", _status, "show how far a run is"),
        ("verify", _verify, "read every shard back and check it"),
        ("report", _report, "write the page about a run"),
        ("repair", _repair, "make again what is corrupt or missing, or say what is lost (no build at work)"),
        ("gc", _gc, "remove what the settings of the last build do not use"),
    ):
        command = commands.add_parser(name, help=about)
        add_run(command)
        command.set_defaults(command=function)
    command.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    command.add_argument("--older-than", type=float, default=24.0, metavar="HOURS", help="(default: 24)")
    command.add_argument(
        "--other-categories", action="store_true", help="also parts of categories that the settings lack"
    )


def _status(given: argparse.Namespace) -> None:
    from pipeline import api

    seen = api.status(given.run)
    rows = [
        (
            stage.name,
            f"{stage.done}/{stage.total}",
            "" if stage.rate is None else f"{stage.rate:.1f}",
            "" if stage.left is None or stage.done == stage.total else time(stage.left),
        )
        for stage in seen.stages
    ]
    table("Finished" if seen.finished else "Unfinished", "stage units rows/worker-second left", rows)
    for failure in seen.failures:
        console().print(f"failed: {failure.unit}: {failure.cause}", markup=False, soft_wrap=True)
    if seen.stale:
        old = [(f"{s.stage}/{s.lane}", s.fingerprint, s.parts, size(s.bytes)) for s in seen.stale]
        table("Not of these settings (vipo gc removes them)", "lane fingerprint parts size", old)


def _verify(given: argparse.Namespace) -> None:
    from pipeline import api

    found = api.verify(
        given.run,
        lambda shard: console().print(
            f"good: {shard.tar} ({shard.pairs} pairs)", soft_wrap=True, highlight=False
        ),
    )
    console().print(
        f"verified: {found.shards} shards, {found.pairs} pairs, {found.media} media, {size(found.bytes)}"
    )


def _repair(given: argparse.Namespace) -> None:
    from pipeline import api

    def told(line: str) -> None:
        console().print(line, soft_wrap=True, markup=False, highlight=False)

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
            size(heap.bytes),
            f"kept: {heap.kept}" if heap.kept else fate,
        )
        for heap in heaps
    ]
    if rows:
        table("Not needed", "what fingerprint objects size fate", rows)
    console().print(f"{fate}: {size(sum(heap.bytes for heap in heaps if not heap.kept))}")


def _report(given: argparse.Namespace) -> None:
    from pipeline import api

    console().print(f"report: {api.report(given.run)}", soft_wrap=True, highlight=False)
