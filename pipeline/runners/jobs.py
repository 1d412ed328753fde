"""A build as a job of a Ray cluster: submitted by the Jobs API, followed, stopped, gone on with.

What is sent is this package, the prompts and the settings: never a variable of this machine's environment.
A job has the environment of the node that it runs on, so credentials (AWS_*, HF_TOKEN, VIPO_JUDGE_KEY) are
given to the nodes, as secrets of the cluster. The driver runs in the cluster; parts in the run's store
are all it leaves there, so a job that is submitted again goes on where the last one ended.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import Settings, to_json
from pipeline.errors import BuildError, ConfigError
from pipeline.ids import content_id
from pipeline.runners.base import one_line
from pipeline.runners.events import LogKind
from pipeline.runners.ray import packaged
from pipeline.stages.check import check
from pipeline.storage import refuse_secrets

ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
"""Variables that name the cluster, the first that is set; Ray itself looks at them in this order."""

KNOCK = 20.0
"""Seconds in which a dashboard must answer."""

LOST = 60.0
"""Seconds without the dashboard after which a job is no longer followed."""

PAUSE = 1.0
STOPPING = 60.0
"""Seconds in which a job that is told to stop has stopped: Ray kills it after three."""

CHATTY = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One job of a run. ``settings`` is the SHA-256 of those it was submitted with.

    ``joined``: it was at work already when it was to be submitted.
    """

    id: str
    run: str
    address: str
    settings: str
    at_work: bool = True
    joined: bool = False


def submit(
    settings: Settings,
    run: str,
    *,
    address: str | None = None,
    shared: bool = False,
    skip_failed: bool = False,
    log: LogKind = "human",
) -> Job:
    """Submit a build of ``settings`` to the cluster whose dashboard is at ``address`` (default: RAY_ADDRESS).

    A run has at most one job at work: if there is one, it is returned. ``shared`` says that all folders
    that are named lie on every node. Raises ConfigError before anything is sent.
    """
    settings = replace(settings, profile=replace(settings.profile, runner="ray"))
    check(settings)
    uri = _address_of(run)
    if not shared:
        _refuse_folders(settings, uri)
    digest = hashlib.sha256(to_json(settings)).hexdigest()
    client, url = _client(address)
    jobs = _jobs(client, uri, url)
    if jobs and jobs[-1].at_work:
        return _joined(jobs[-1], digest)
    number = 1 + (int(jobs[-1].id.rpartition("-")[2]) if jobs else 0)
    job = Job(id=f"{_prefix(uri)}{number}", run=uri, address=url, settings=digest)
    flags = [*(["--skip-failed"] if skip_failed else []), *(["--log", log] if log != "human" else [])]
    given = ["build", "--settings", "settings.json", "--run", uri, *flags]
    with _package(settings) as folder:
        try:
            client.submit_job(
                entrypoint=shlex.join(["python", "-m", "pipeline", *given]),
                submission_id=job.id,
                runtime_env={"working_dir": folder},
                metadata={"run": uri, "settings": digest},
            )
        except RuntimeError as error:
            # Somebody may have submitted the same run a moment ago.
            others = [other for other in _jobs(client, uri, url) if other.id == job.id and other.at_work]
            if not others:
                raise ConfigError(f"{url} refused the job: {one_line(error)}") from error
            return _joined(others[0], digest)
    return job


def follow(job: Job, write: Callable[[str], object]) -> int:
    """Give the log of a job to ``write`` until it ends; return its exit status.

    Raises BuildError for a job that was stopped, or died without an exit status.
    """
    client, _ = _client(job.address)
    details = _follow(client, job, write)
    if details.driver_exit_code is not None:
        code = int(details.driver_exit_code)
        return code if code >= 0 else 128 - code
    said = (details.message or "no reason is given").splitlines()[0]
    raise BuildError(f"job {job.id} {details.status.value.lower()}: {said}: the same command goes on with it")


def latest(run: str, *, address: str | None = None) -> Job:
    """Return the job of a run that was submitted last. Raises ConfigError if the cluster knows none."""
    uri = _address_of(run)
    client, url = _client(address)
    jobs = _jobs(client, uri, url)
    if not jobs:
        raise ConfigError(f"{url} knows no job of {uri}: `vipo submit` submits one")
    return jobs[-1]


def stop(job: Job) -> bool:
    """End a job and wait for its end; False if it was not at work. What it has committed stays."""
    client, _ = _client(job.address)
    if not client.stop_job(job.id):
        return False
    deadline = time.monotonic() + STOPPING
    while not client.get_job_info(job.id).status.is_terminal():
        if time.monotonic() > deadline:
            raise BuildError(
                f"job {job.id} has not ended in {STOPPING:.0f} s: see the dashboard, {job.address}"
            )
        time.sleep(PAUSE)
    return True


def dashboard(address: str | None = None) -> str:
    """Return the URL of the cluster's dashboard, which takes jobs. Raises ConfigError."""
    name, given = next(((name, os.environ[name]) for name in ADDRESSES if os.environ.get(name)), ("", ""))
    name, given = ("--address", address) if address else (name, given)
    if not given:
        raise ConfigError(
            "no Ray cluster is named: set RAY_ADDRESS to its dashboard, such as http://head:8265 "
            "(through `kubectl port-forward`: http://127.0.0.1:8265)"
        )
    refuse_secrets(given)
    scheme, _, rest = given.rpartition("://")
    if scheme not in {"http", "https"}:
        host = rest.rpartition(":")[0] or "head"
        raise ConfigError(
            f"{name}: {given} is where drivers join; jobs are submitted to the dashboard: use http://{host}:8265"
        )
    return given.rstrip("/")


def _client(address: str | None) -> tuple[Any, str]:
    """Connect to the dashboard. Raises ConfigError in the words of what is wrong."""
    url = dashboard(address)
    try:
        import requests
        from ray.exceptions import RayError
        from ray.job_submission import JobSubmissionClient
    except ImportError as error:
        raise ConfigError("jobs: ray is not installed: pip install 'vipo[ray]'") from error
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        requests.get(f"{url}/api/version", timeout=KNOCK)  # Ray's own client waits for ever
        with _without(ADDRESSES):
            return JobSubmissionClient(url), url
    except RayError as error:
        said = one_line(error).split(". ")[0]
        raise ConfigError(
            f"{url} wants the cluster's token ({said}): export RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH "
            "(or RAY_AUTH_TOKEN), the same as on its nodes"
        ) from error
    except (OSError, RuntimeError) as error:  # requests' errors are OSErrors
        if "ray[default]" in str(error):
            raise ConfigError("jobs: packages are missing: pip install 'vipo[ray]'") from error
        raise ConfigError(
            f"no Ray dashboard at {url}: {one_line(error)}: check RAY_ADDRESS, and that the head was started "
            "with its dashboard (ray[default])"
        ) from error


@contextmanager
def _without(names: Sequence[str]) -> Iterator[None]:
    """Hide variables: Ray takes them over the address that it is given."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _jobs(client: Any, uri: str, url: str) -> list[Job]:
    """Return the jobs of a run, the one that was submitted last at the end."""
    prefix = _prefix(uri)
    found = [
        Job(
            id=details.submission_id,
            run=uri,
            address=url,
            settings=(details.metadata or {}).get("settings", ""),
            at_work=not details.status.is_terminal(),
        )
        for details in client.list_jobs()
        if (details.submission_id or "").startswith(prefix)
    ]
    return sorted(found, key=lambda job: int(job.id.rpartition("-")[2]))


def _prefix(uri: str) -> str:
    return f"vipo-{content_id('run', uri=uri)[:12]}-"


def _joined(job: Job, digest: str) -> Job:
    if job.settings != digest:
        raise ConfigError(
            f"job {job.id} is at work on {job.run} with other settings: wait for its end, or end it first: "
            f"vipo job stop --run {job.run}"
        )
    return replace(job, joined=True)


def _address_of(run: str) -> str:
    """Return a run's address as the nodes need it: that of a folder from the root."""
    refuse_secrets(run)
    scheme, separator, rest = run.partition("://")
    if separator and scheme != "file":
        return run.rstrip("/")
    return str(Path(rest if separator else run).absolute())


def _refuse_folders(settings: Settings, run: str) -> None:
    """Refuse what only this machine may have: the nodes of a cluster would each see a folder of their own."""
    pools = {category.source: category.pool.uri for category in settings.categories if category.pool.uri}
    for where, uri in {"--run": run, **pools}.items():
        if "://" not in uri:
            raise ConfigError(
                f"{where}: {uri} is a path of this machine: use s3://bucket/prefix, or add --shared if every "
                "node of the cluster has that folder mounted there"
            )


@contextmanager
def _package(settings: Settings) -> Iterator[str]:
    """Make the folder that the job runs in: this package, so that its code is what runs, and the settings."""
    with packaged() as root:
        (root / "settings.json").write_bytes(to_json(settings))
        yield str(root)


def _follow(client: Any, job: Job, write: Callable[[str], object]) -> Any:
    """Follow a job over lost connections; return what Ray says of it at its end."""
    log, heard = _Log(client, job.id, write), time.monotonic()
    while True:
        try:
            asyncio.run(log.read())
            details = client.get_job_info(job.id)
            heard = time.monotonic()
            if details.status.is_terminal():
                return details
        except (OSError, RuntimeError) as error:
            if time.monotonic() - heard > LOST:
                raise BuildError(
                    f"nothing is heard of job {job.id} at {job.address} ({one_line(error)}); it may go on: "
                    f"vipo job follow --run {job.run}"
                ) from error
        time.sleep(PAUSE)


@dataclass(slots=True)
class _Log:
    """A job's log, of which ``seen`` characters are written. Ray tells it from its beginning each time."""

    client: Any
    job: str
    write: Callable[[str], object]
    seen: int = 0

    async def read(self) -> None:
        """Write what is new until the job ends. Raises OSError or RuntimeError if the connection does."""
        import aiohttp

        told = 0
        try:
            async for chunk in self.client.tail_job_logs(self.job):
                told += len(chunk)
                if told > self.seen:
                    self.write(chunk[self.seen - told :])
                    self.seen = told
        except aiohttp.ClientError as error:
            raise ConnectionError(one_line(error)) from error
