"""vipo audit."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pipeline.cli.terminal import console, table

if TYPE_CHECKING:
    from pipeline.cli.options import Commands
    from pipeline.report.statistics import Share


def add(commands: Commands) -> None:
    """Register the commands."""
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
    table(f"Ranked alike: {found.pairs:,} pairs", "who alike of share 95%-interval", rows)
    console().print(f"Coins would rank {found.chance:.4f} of the pairs alike.")
    for reason, count in found.skipped.items():
        console().print(f"skipped: {count:,}: {reason}", markup=False)


def _share(share: Share) -> tuple[int, int, str, str]:
    low, high = share.interval
    return (
        share.hits,
        share.total,
        "" if share.value is None else f"{share.value:.4f}",
        f"{low:.3f}-{high:.3f}",
    )
