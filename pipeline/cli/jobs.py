"""A build as a job of a Ray cluster: vipo submit, vipo job follow, vipo job stop."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pipeline.cli.options import add_run, add_settings, settings
from pipeline.cli.terminal import console
from pipeline.errors import BuildError

if TYPE_CHECKING:
    from pipeline.cli.options import Commands
    from pipeline.runners.jobs import Job

DETACHED = 130


def add(commands: Commands) -> None:
    """Register the commands."""
    command = commands.add_parser("submit", help="build on a Ray cluster, as a job of it")
    add_settings(command)
    _add_job(command)
    command.add_argument("--shared", action="store_true", help="folders that are named lie on every node")
    command.add_argument("--skip-failed", action="store_true", help="ship without units that failed")
    command.add_argument("--log", choices=("human", "json"), default="human", help="lines, or JSON lines")
    command.add_argument("--detach", action="store_true", help="do not follow the job")
    command.set_defaults(command=_submit)

    command = commands.add_parser("job", help="follow or stop the job that builds a run")
    verbs = command.add_subparsers(required=True, metavar="COMMAND")
    for name, function, about in (
        ("follow", _follow, "show its log until it ends; exit as it does"),
        ("stop", _stop, "end it; what it has committed stays"),
    ):
        command = verbs.add_parser(name, help=about)
        _add_job(command)
        command.set_defaults(command=function)


def _add_job(command: argparse.ArgumentParser) -> None:
    add_run(command)
    command.add_argument("--address", help="dashboard, such as http://head:8265 (default: RAY_ADDRESS)")


def _submit(given: argparse.Namespace) -> None:
    from pipeline.runners import jobs

    job = jobs.submit(
        settings(given),
        given.run,
        address=given.address,
        shared=given.shared,
        skip_failed=given.skip_failed,
        log=given.log,
    )
    if job.joined:
        _say(f"job {job.id} is at work on this run already: it is followed, none is submitted")
    else:
        _say(f"job {job.id} submitted to {job.address}")
    if given.detach:
        _say(_remedies(job))
    else:
        _watch(job)


def _follow(given: argparse.Namespace) -> None:
    from pipeline.runners import jobs

    _watch(jobs.latest(given.run, address=given.address))


def _stop(given: argparse.Namespace) -> None:
    from pipeline.runners import jobs

    job = jobs.latest(given.run, address=given.address)
    if not jobs.stop(job):
        raise BuildError(f"job {job.id} is not at work")
    console().print(f"stopped: {job.id}: submit it again to go on", soft_wrap=True, highlight=False)


def _watch(job: Job) -> None:
    """Show the job's log until it ends, and exit as it does; Ctrl-C leaves the job at work."""
    from pipeline.runners import jobs

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        status = jobs.follow(job, write)
    except KeyboardInterrupt:
        _say(f"detached: job {job.id} goes on\n{_remedies(job)}")
        status = DETACHED
    if status:
        raise SystemExit(status)


def _remedies(job: Job) -> str:
    return "\n".join(
        (
            f"follow it: vipo job follow --run {job.run} --address {job.address}",
            f"how far it is: vipo status --run {job.run}",
            f"stop it: vipo job stop --run {job.run} --address {job.address}",
        )
    )


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
