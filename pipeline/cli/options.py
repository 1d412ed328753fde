"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.config import Settings

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_run(command: argparse.ArgumentParser) -> None:
    """Add ``--run``."""
    command.add_argument("--run", required=True, help="folder or s3://bucket/prefix of the run")


def add_settings(command: argparse.ArgumentParser) -> None:
    """Add what chooses a build's settings."""
    command.add_argument("--settings", metavar="FILE", help="settings.json of a run, instead of all below")
    command.add_argument("--profile", default="laptop", help="name, or path of a TOML file (default: laptop)")
    command.add_argument("--categories", type=Path, metavar="FOLDER", help="folder of category files")
    command.add_argument("--category", action="append", default=[], help="only this one (repeatable)")
    command.add_argument("--modality", choices=("image", "video"), help="only categories of this kind")
    command.add_argument("--quota", type=int, help="kept pairs wanted of each category")
    command.add_argument("--limit", type=int, metavar="PAIRS", help="a pilot: judge about so many in all")
    command.add_argument("--runner", choices=("local", "ray"), help="instead of the profile's")
    command.add_argument("--workers", type=int, help="instead of the profile's (0: as many as fit)")


def settings(given: argparse.Namespace) -> Settings:
    """Return the settings that were chosen. Raises ConfigError."""
    from pipeline import api

    if given.settings:
        return _read(given)
    return api.load(
        given.profile,
        categories=given.category,
        folder=given.categories,
        modality=given.modality,
        quota=given.quota,
        limit=given.limit,
        runner=given.runner,
        workers=given.workers,
    )


def _read(given: argparse.Namespace) -> Settings:
    from pipeline.config import from_json
    from pipeline.storage import read_uri

    others = ["categories", "category", "modality", "quota", "limit", "runner", "workers"]
    if given.profile != "laptop" or any(getattr(given, name) not in (None, []) for name in others):
        raise ConfigError(f"--settings {given.settings} says it all: leave out what else chooses settings")
    return from_json(read_uri(given.settings), given.settings)
