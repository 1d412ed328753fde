"""vipo plan."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pipeline.cli.options import add_settings, settings
from pipeline.cli.terminal import console, size, table, time

if TYPE_CHECKING:
    from pipeline.cli.options import Commands


def add(commands: Commands) -> None:
    """Register the command."""
    command = commands.add_parser("plan", help="say what a build will count, weigh and last")
    add_settings(command)
    command.add_argument("--run", help="use the rates that this run has measured")
    command.set_defaults(command=_plan)


def _plan(given: argparse.Namespace) -> None:
    from pipeline import api

    made = api.plan(settings(given), given.run)
    rows = [
        (
            c.name,
            c.quota,
            c.prompts,
            c.generations,
            c.pairs,
            c.answers,
            c.kept,
            size(c.bytes),
            time(c.seconds),
        )
        for c in made.categories
    ]
    headings = "category quota prompts generations pairs answers kept media worker-time"
    table("Plan of the first round", headings, rows)
    source = "measured by the run" if made.measured else "from the tables of generators and judges"
    console().print(f"Rates {source}. On {made.workers} workers about {time(made.wall_seconds)}.")
    console().print(f"Using each generation in several pairs saves {made.saved_generations:,} generations.")
    if made.saved_answers:
        console().print(f"Asking no judge about what is settled saves {made.saved_answers:,} answers.")
