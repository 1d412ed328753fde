"""vipo build."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pipeline.cli.options import add_run, add_settings, settings
from pipeline.cli.terminal import console, size, table
from pipeline.errors import BuildError

if TYPE_CHECKING:
    from pipeline.cli.options import Commands
    from pipeline.runners.build import Built


BAD_ROWS_SHOWN = 5


def add(commands: Commands) -> None:
    """Register the command."""
    command = commands.add_parser("build", help="build a dataset, or go on with one")
    add_settings(command)
    add_run(command)
    command.add_argument("--address", help="Ray cluster, such as ray://head:10001 (default: RAY_ADDRESS)")
    command.add_argument("--skip-failed", action="store_true", help="ship without units that failed")
    command.add_argument("--log", choices=("human", "json"), default="human", help="JSON: a line an event")
    command.set_defaults(command=_build)


def _build(given: argparse.Namespace) -> None:
    from pipeline import api

    built = api.build(
        settings(given), given.run, address=given.address, skip_failed=given.skip_failed, log=given.log
    )
    page = api.report(given.run)
    rows = [
        (item.name, item.quota, built.kept[item.name], item.pairs, size(_bytes(built, item.name)))
        for item in built.manifest.categories
    ]
    table("Dataset", "category quota kept shipped shards", rows)
    for name, bad in built.bad_rows.items():
        for line in bad[:BAD_ROWS_SHOWN]:
            console().print(f"{name}: pool {line}", soft_wrap=True, highlight=False, markup=False)
        console().print(f"{name}: {len(bad)} rows of its pool cannot be used")
    console().print(f"report: {page}", soft_wrap=True, highlight=False)
    problems = [f"{len(built.failures)} units failed"] if built.failures else []
    problems += [f"{name} is {count} pairs short" for name, count in built.short.items()]
    problems += [f"{name} was held back from the shards" for name in built.held_back]
    if problems:
        remedy = "run it again to try failed units again, or add --skip-failed to ship without them"
        if not built.failures:
            remedy = "its pool is used up: lower the quota, or give it a larger pool"
        raise BuildError(f"{'; '.join(problems)}: {remedy}")


def _bytes(built: Built, category: str) -> int:
    return sum(shard.bytes for shard in built.manifest.shards if shard.category == category)
