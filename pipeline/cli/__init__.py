"""The command line: arguments in, the API's answers as tables out. All work is done behind ``api``.

A group of commands is a module here: its ``add`` registers them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from typing import NoReturn

from pipeline.cli import audit, build, imports, jobs, models, plan, prompts, runs, train
from pipeline.errors import VipoError

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit status: 0 done, 1 not done and said why, 130 interrupted."""
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        given.command(given)
    except VipoError as error:
        sys.stderr.write(f"vipo: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("vipo: interrupted: run the same command again to go on\n")
        return INTERRUPTED
    return 0


def _interrupt(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vipo", description="Build visual preference datasets.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (plan, build, imports, jobs, runs, audit, models, prompts, train):
        group.add(commands)
    return parser
