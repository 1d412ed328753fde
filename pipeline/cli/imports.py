"""vipo import."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pipeline.cli.options import add_run
from pipeline.cli.terminal import console, table

if TYPE_CHECKING:
    from pipeline.cli.options import Commands
    from pipeline.dataset.imported import Packed


def add(commands: Commands) -> None:
    """Register the command."""
    command = commands.add_parser(
        "import", help="make a run of pairs in Pick-a-Pic's columns, or go on with it: the same command"
    )
    command.add_argument("files", nargs="+", metavar="FILE", help="Parquet: file, folder, pattern, s3://")
    add_run(command)
    command.add_argument(
        "--category", default="pick_a_pic", help="what training calls them (default: pick_a_pic)"
    )
    command.add_argument(
        "--licence", choices=("research", "permissive"), default="research", help="(default: research)"
    )
    command.set_defaults(command=_import)


def _import(given: argparse.Namespace) -> None:
    from pipeline.dataset.imported import dropped, import_pairs

    packed = import_pairs(given.files, given.run, category=given.category, licence=given.licence, told=_show)
    rows, kept = sum(one.rows for one in packed), sum(one.kept for one in packed)
    fates = [("kept", kept), *dropped(packed).items()]
    table(
        f"{rows:,} rows", "fate rows share", [(fate, count, f"{count / rows:.1%}") for fate, count in fates]
    )
    _line(f'to train on them: data.runs = ["{given.run}"], data.licence = "{given.licence}"')


def _show(one: Packed) -> None:
    _line(f"kept {one.kept:,} of {one.rows:,} rows of {one.source}: {one.tar}")


def _line(text: str) -> None:
    console().print(text, soft_wrap=True, markup=False, highlight=False)
