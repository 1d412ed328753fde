"""vipo prompts: import a pool, check it against held-out prompts."""

from __future__ import annotations

import argparse
import time as clock
from typing import TYPE_CHECKING

from pipeline.cli import pools
from pipeline.cli.terminal import console, size, table, time
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.cli.options import Commands
    from pipeline.pools.imports import Imported

SHOWN = 10


def add(commands: Commands) -> None:
    """Register the commands."""
    command = commands.add_parser("prompts", help="pools of prompts: import, check, report, draw")
    verbs = command.add_subparsers(required=True, metavar="COMMAND")

    command = verbs.add_parser("import", help="make a pool of public or own prompts: read, clean, write")
    command.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="file, folder, s3:// or hf://datasets/ORG/NAME@COMMIT/FILE",
    )
    command.add_argument("--format", required=True, help="plain, or the set the prompts come from")
    command.add_argument("--out", required=True, help="the pool to write: a .parquet file, local or s3://")
    command.add_argument("--licence", required=True, help="licence of the prompts, such as CC0-1.0")
    command.add_argument("--source", required=True, help="where they come from, as every prompt will say")
    command.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="such as text=prompt (repeatable)",
    )
    _add_hold_out(command)
    command.add_argument(
        "--language", action="append", default=[], help="kept ones (default: en; repeatable)"
    )
    command.add_argument("--no-minors", action="store_true", help="drop every mention of children")
    command.add_argument(
        "--similar",
        type=float,
        default=0.0,
        help="drop another wording of the same from this cosine, such as 0.95",
    )
    command.set_defaults(command=_import)

    command = verbs.add_parser("check", help="say whether a pool holds prompts of evaluation sets")
    command.add_argument("pool", help="file or address of the pool")
    _add_hold_out(command, required=True)
    command.set_defaults(command=_check)

    pools.add(verbs)


def _add_hold_out(command: argparse.ArgumentParser, *, required: bool = False) -> None:
    command.add_argument(
        "--hold-out",
        action="append",
        default=[],
        required=required,
        metavar="[FORMAT=]FILE",
        help="prompts that no pool may hold, such as parti=PartiPrompts.tsv (repeatable)",
    )


def _import(given: argparse.Namespace) -> None:
    from pipeline.pools.clean import Policy
    from pipeline.pools.imports import hold_out, import_pool

    started = clock.perf_counter()
    policy = Policy(
        languages=tuple(given.language) or Policy().languages, minors="drop" if given.no_minors else "keep"
    )
    made = import_pool(
        given.sources,
        format=given.format,
        out=given.out,
        licence=given.licence,
        source=given.source,
        columns=_columns(given.column),
        held_out=hold_out(given.hold_out),
        policy=policy,
        similar=given.similar,
    )
    _told(made, clock.perf_counter() - started)
    if not given.hold_out:
        _line("nothing was held out: name the evaluation sets you will use as --hold-out")


def _columns(given: list[str]) -> dict[str, str]:
    columns = {}
    for each in given:
        ours, separator, theirs = each.partition("=")
        if not (separator and theirs):
            raise ConfigError(f"--column {each}: give OURS=THEIRS, such as text=prompt")
        columns[ours] = theirs
    return columns


def _told(made: Imported, seconds: float) -> None:
    rows = [("kept", made.kept, _share(made.kept, made.rows))]
    rows += [(str(reason), count, _share(count, made.rows)) for reason, count in made.dropped.items()]
    table(f"{made.rows:,} rows in {time(seconds)}", "fate rows share", rows)
    _line(f"repaired: {made.repaired:,} of those kept; with checks: {made.checked:,}")
    _line(f"dropped rows: {made.dropped_pool}")
    _line(f"pool: {made.pool} ({size(made.bytes)}); for the category's file:\n\n{made.toml()}")


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else ""


def _check(given: argparse.Namespace) -> None:
    from pipeline.pools.imports import check_pool, hold_out

    found = check_pool(given.pool, hold_out(given.hold_out))
    rows = [(match.row, match.how, match.text, match.held_out) for match in found.matches[:SHOWN]]
    if rows:
        table("Held-out prompts in the pool", "row how prompt held-out", rows, words=4)
        raise ConfigError(
            f"{given.pool}: {len(found.matches)} of {found.rows} prompts are held out: "
            "import it with --hold-out"
        )
    _line(f"none of {found.rows:,} prompts is one of the {found.held_out:,} held out")


def _line(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False, highlight=False)
