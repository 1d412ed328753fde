"""vipo prompts report and draw: what a pool is like, and a balanced pool drawn from it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.cli.terminal import console, size, table
from pipeline.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from pipeline.cli.options import Commands
    from pipeline.pools.balance import Stratum

SHOWN = 12


def add(verbs: Commands) -> None:
    """Register the commands under ``vipo prompts``."""
    command = verbs.add_parser("report", help="say how diverse pools are, and write a page about them")
    command.add_argument(
        "pools", nargs="*", metavar="POOL", help="category, or file (default: all categories)"
    )
    command.add_argument("--run", help="instead: the prompts of this run; POOL names its categories")
    command.add_argument("--count", type=int, default=5_000, help="prompts to grow (default: 5000)")
    command.add_argument(
        "--against", action="append", default=[], metavar="FILE", help="another pool: coverage"
    )
    command.add_argument("--radius", type=float, default=0.3, help="cosine distance covered (default: 0.3)")
    command.add_argument("--sample", type=int, default=5_000, help="prompts to embed (default: 5000)")
    command.add_argument("--out", type=Path, default=Path("prompts.html"), help="(default: prompts.html)")
    command.set_defaults(command=_report)

    command = verbs.add_parser("draw", help="draw a balanced pool from a larger one")
    command.add_argument("pool", metavar="POOL", help="category with a grammar, or file")
    command.add_argument("--count", type=int, required=True, help="prompts to draw")
    command.add_argument("--out", required=True, help="the pool to write: a .parquet file, local or s3://")
    command.add_argument(
        "--target", type=Path, help="TOML: shares of subjects, styles, difficulties (default: even, cap 0.02)"
    )
    command.add_argument("--from", type=int, dest="grown", help="prompts to grow first (default: all)")
    command.add_argument("--licence", default="", help="of rows that name none")
    command.add_argument("--seed", type=int, default=0, help="(default: 0)")
    command.set_defaults(command=_draw)


def _report(given: argparse.Namespace) -> None:
    from pipeline import pools
    from pipeline.pools.given import given as pool_of
    from pipeline.runners.pools import of_run, page, samples, view

    for name in ("count", "sample"):
        if getattr(given, name) < 1:
            raise ConfigError(f"prompts report: --{name} {getattr(given, name)} must be above 0")
    if given.run:
        sources = of_run(given.run, given.pools)
    else:
        sources = [pool_of(name, given.count) for name in given.pools or pools.categories()]
    others = samples(given.against, given.count, size=given.sample)
    views = [view(each, others, sample=given.sample, radius=given.radius) for each in sources]
    try:
        given.out.write_text(page(views), encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"{given.out}: cannot be written ({error.strerror}): choose another --out"
        ) from error
    headings = [figure.name.replace(" ", "-").lower() for figure in views[0].figures]
    rows = [(each.name, each.prompts, *(f.value for f in each.figures[:3])) for each in views]
    table("Pools of prompts", " ".join(("pool", "prompts", *headings[:3])), rows)
    rows = [(each.name, *(f.value for f in each.figures[3:])) for each in views]
    table("How far apart", " ".join(("pool", *headings[3:])), rows)
    for each in views:
        for other in each.covered:
            _say(
                f"{each.name}: covers {other.covered:.1%} of {other.name} within {each.radius:g}, "
                f"which covers {other.returned:.1%} of it"
            )
    for missing in dict.fromkeys(f.missing for each in views for f in each.figures if f.missing):
        _say(missing)
    _say(f"page: {given.out}")


def _draw(given: argparse.Namespace) -> None:
    from pipeline.config import load_toml
    from pipeline.pools.balance import DIMENSIONS, Target
    from pipeline.pools.given import draw_pool
    from pipeline.pools.given import given as pool_of

    target = load_toml(Target, given.target) if given.target else Target()
    pool = pool_of(given.pool, given.grown, licence=given.licence)
    made = draw_pool(pool, given.out, given.count, target, seed=given.seed)
    for dimension in DIMENSIONS:
        _strata(dimension, [each for each in made.drawn.strata if each.dimension == dimension])
    for reason, count in made.drawn.left_out.items():
        _say(f"left out: {count:,}: {reason}")
    _say(f"{made.drawn.prompts.num_rows:,} prompts, {size(made.bytes)}, SHA-256 {made.sha256}")
    _say(made.toml())


def _strata(dimension: str, strata: list[Stratum]) -> None:
    """Print those furthest from their share first, and how many more there are."""
    count = sum(each.drawn for each in strata)
    furthest = sorted(strata, key=lambda each: (-abs(each.wanted - each.drawn), -each.drawn, each.value))
    rows = [
        (
            each.value or "(not said)",
            each.available,
            f"{each.wanted:,.1f}",
            each.drawn,
            f"{each.drawn / count:.2%}",
            each.lacking,
        )
        for each in furthest[:SHOWN]
    ]
    table(f"By {dimension}", f"{dimension} available wanted drawn share lacking", rows)
    if strata[SHOWN:]:
        rest = max(abs(each.wanted - each.drawn) for each in furthest[SHOWN:])
        _say(f"{len(strata) - SHOWN:,} more, each at most {rest:.1f} prompts from what was wanted")
    if lacking := sum(each.lacking for each in strata):
        _say(f"{lacking:,} prompts of a {dimension} were lacking; others stand in by their shares")


def _say(line: str) -> None:
    console().print(line, soft_wrap=True, highlight=False, markup=False)
