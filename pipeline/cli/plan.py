"""vipo plan."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from pipeline.cli.options import add_settings, settings
from pipeline.cli.terminal import console, size, table, time
from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.cli.options import Commands
    from pipeline.runners.plan import Plan, Work
    from pipeline.runners.rates import Figure


def add(commands: Commands) -> None:
    """Register the command."""
    command = commands.add_parser("plan", help="say what a build will count, cost and last")
    add_settings(command)
    command.add_argument("--run", help="use what this run has measured, such as a small one made first")
    command.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="ITEM=DOLLARS",
        help="an hour of a GPU (H100=2.5, GPU=2 for any) or of a core, a month of a TB, an item of a model",
    )
    command.add_argument("--gpus", type=int, help="say the wall time on so many GPUs")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(command=_plan)


def _plan(given: argparse.Namespace) -> None:
    from pipeline import api

    prices = dict(_price(text) for text in given.price)
    made = api.plan(settings(given), given.run, prices=prices, gpus=given.gpus)
    if given.json:
        shown = json.dumps(asdict(made), indent=1)
        console().print(shown, markup=False, highlight=False, soft_wrap=True)
        return
    _categories(made)
    _work(made)
    for line in _lines(made):
        console().print(line, highlight=False, soft_wrap=True)
    if given.run and not made.measured:
        console().print(f"{given.run} has measured nothing yet.")


def _price(text: str) -> tuple[str, float]:
    item, _, dollars = text.partition("=")
    try:
        return item, float(dollars)
    except ValueError:
        raise ConfigError(f"--price {text!r}: give an item and US dollars, such as H100=2.5") from None


def _categories(made: Plan) -> None:
    rows = [
        (
            each.name,
            each.quota,
            each.prompts,
            "yours" if each.capacity is None else f"{each.capacity:,}",
            each.generations,
            each.pairs,
            _share(each.kept_share),
            each.kept,
            each.answers,
        )
        for each in made.categories
    ]
    headings = "category quota prompts pool generations pairs share-kept kept requests"
    table("Until every quota is met", headings, rows)


def _share(kept: Figure) -> str:
    if kept.low is None or kept.high is None:
        return f"{kept.value:.2f} (assumed)"
    return f"{kept.value:.2f} ({kept.low:.2f}-{kept.high:.2f})"


def _work(made: Plan) -> None:
    """Print a row a model, the longest first; on a cluster those that need no GPU share one."""
    rows: defaultdict[tuple[str, str], list[Work]] = defaultdict(list)
    for each in made.work:
        rows[each.stage, each.model if each.gpu or not made.gpu_hours else "(without GPU)"].append(each)
    ranked = sorted(rows.items(), key=lambda row: (_STAGES.index(row[0][0]), -sum(w.hours for w in row[1])))
    headings = "stage model on speed-from items s/item hours dollars"
    table("What models do", headings, [_row(*names, every) for names, every in ranked], words=4)


_STAGES = ("rewrite", "generate", "judge")


def _row(stage: str, model: str, every: list[Work]) -> tuple[object, ...]:
    items, hours = sum(each.items for each in every), sum(each.hours for each in every)
    dollars = [each.dollars for each in every if each.dollars is not None]
    return (
        stage,
        model,
        every[0].gpu or "core",
        "/".join(sorted({each.each.origin for each in every})),
        items,
        _number(every[0].each.value if len({w.each.value for w in every}) == 1 else hours * 3600 / items),
        _number(hours),
        f"{sum(dollars):,.0f}" if len(dollars) == len(every) else "",
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _lines(made: Plan) -> Iterator[str]:
    """Yield totals, what is stored, how long it takes, what dominates, what lacks, and what is assumed."""
    hours = [f"{_number(count)} {gpu}-hours" for gpu, count in made.gpu_hours.items()]
    total = ", ".join([*hours, f"{_number(made.core_hours)} core-hours"])
    yield f"In all: {total}.{_dollars(made)}"
    if made.least < 1 < made.most:
        yield f"By the interval of the share kept, {made.least:.2f} to {made.most:.2f} times all that."
    media, shards, parts = (sum(getattr(c, key) for c in made.categories) for key in _STORED)
    monthly = "" if made.storage_dollars is None else f", ${made.storage_dollars:,.0f} a month"
    yield (
        f"Stored: {size(made.storage_bytes)}{monthly}: media {size(media)}, shards {size(shards)}, "
        f"parts {size(parts)}."
    )
    unit = "GPUs" if made.gpu_hours else "workers"
    yield "Wall time: " + ", ".join(f"{time(s)} on {count} {unit}" for count, s in made.walls.items()) + "."
    if made.top:
        largest = ", ".join(f"{bill.name} {bill.share:.0%}" for bill in made.top)
        yield f"What counts most, in {'hours' if made.top[0].dollars is None else 'dollars'}: {largest}."
    yield f"Using each generation in several pairs saves {made.saved_generations:,} generations."
    if made.saved_answers:
        yield f"Asking no judge about what is settled saves {made.saved_answers:,} requests."
    for each in (each for each in made.categories if each.missing):
        yield (
            f"{each.name}: the pool is too small: its {each.capacity:,} prompts give {each.kept:,} of "
            f"{each.quota:,} pairs: lower the quota, raise generations in a recipe, or bring your own pool."
        )
    yield _assumed(made)


_STORED = ("bytes", "shard_bytes", "part_bytes")


def _dollars(made: Plan) -> str:
    if made.dollars is None:
        return " No prices: give --price H100=2.5 and the like to see dollars."
    without = f" without {', '.join(made.unpriced)} (no price)" if made.unpriced else ""
    return f" ${made.dollars:,.0f}{without}."


def _assumed(made: Plan) -> str:
    """Say in a line where the rates come from."""
    origins = {each.each.origin for each in made.work} | {each.kept_share.origin for each in made.categories}
    known = {
        "pilot": "pilot: measured by the run",
        "cited": "cited: infra/rates.toml, with sources",
        "table": "table: estimates in the tables of models",
        "profile": "share kept: expected_kept of the profile, a pilot measures it",
    }
    told = "; ".join(text for origin, text in known.items() if origin in origins)
    return f"Rates: {told}. Starts, weights to load and idle GPUs are not counted."
