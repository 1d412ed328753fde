"""What a machine can run: vipo doctor, weights."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pipeline.cli.options import add_settings, settings
from pipeline.cli.terminal import console, table
from pipeline.errors import StorageError

if TYPE_CHECKING:
    from pipeline.cli.options import Commands


def add(commands: Commands) -> None:
    """Register the commands."""
    command = commands.add_parser("doctor", help="say what this machine can run: GPUs, packages, models")
    add_settings(command)
    command.add_argument("--address", help="Ray cluster to knock at (default: RAY_ADDRESS)")
    command.set_defaults(command=_doctor)

    command = commands.add_parser("weights", help="the weights of models")
    verbs = command.add_subparsers(required=True, metavar="COMMAND")
    command = verbs.add_parser("pin", help="note the revision of all weights that a build would load")
    command.add_argument("repo", nargs="*", help="only these, such as org/name")
    add_settings(command)
    command.set_defaults(command=_pin)


def _doctor(given: argparse.Namespace) -> None:
    from pipeline import api

    findings = api.doctor(settings(given), address=given.address)
    rows = [(f.area, f.name, f.state, f.found, f.remedy if f.state != "ok" else "") for f in findings]
    table("This machine", "area name state found remedy", rows, words=5)


def _pin(given: argparse.Namespace) -> None:
    from pipeline import api

    def told(line: str) -> None:
        console().print(line, soft_wrap=True, markup=False, highlight=False)

    chosen = settings(given)
    unpinned = api.pin(chosen, told, given.repo)
    told(f"written: {api.pins_file(chosen.profile)}")
    if unpinned:
        raise StorageError(f"{unpinned} repositories are not pinned: see the lines above")
