"""Builds as jobs of a Ray cluster of two nodes: submitted, followed, left, killed, stopped, gone on with."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline import api
from pipeline.runners.metrics import DOLLARS, FAILED_ROWS, METRICS, PREFIX
from pipeline.storage import open_store
from tests.e2e.nodes import HEAD_IP, TwoNodes, free_ports
from tests.e2e.world import IMAGES, Command, Project, built, dead, parts, tree, until, vipo

pytestmark = pytest.mark.slow

SCRIPTS = Path(sys.executable).parent
NEVER_HERE = {DOLLARS.name, FAILED_ROWS.name}
"""Metrics of what does not happen in these builds: nothing is bought, nothing fails to be made."""


@dataclass(slots=True)
class Cluster(TwoNodes):
    """Two nodes of which the head has a dashboard, and so takes jobs."""

    dashboard: int = 0
    metrics: int = 0

    def start_head(self, environment: object = None) -> None:
        assert environment is None
        self._port, agent, grpc, self.dashboard, self.metrics = free_ports(5)
        ports = {
            "port": self._port,
            "dashboard-port": self.dashboard,
            "dashboard-agent-listen-port": agent,
            "dashboard-agent-grpc-port": grpc,
            "metrics-export-port": self.metrics,
        }
        self.head = self._start(
            *("--head", f"--node-ip-address={HEAD_IP}", f"--dashboard-host={HEAD_IP}"),
            *("--include-dashboard=true", f"--temp-dir={self._folder.name}/ray"),
            *(f"--{name}={port}" for name, port in ports.items()),
            environment={},
        )
        until(lambda: self.head and self.head.up, "the head is up")

    @property
    def url(self) -> str:
        return f"http://{HEAD_IP}:{self.dashboard}"

    def shown(self) -> set[str]:
        """Return the names that a scrape of the head's metrics gives."""
        with urllib.request.urlopen(f"http://{HEAD_IP}:{self.metrics}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return {re.split(r"[{ ]", line)[0] for line in lines if line and not line.startswith("#")}

    def drivers(self) -> list[int]:
        """Return the ids of the processes that drive a build."""
        assert self.head
        lines = self.head.processes()
        return [pid for pid, line in lines.items() if re.match(r"\S*python\S* -m pipeline build ", line)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    given = {"PATH": f"{SCRIPTS}:{os.environ['PATH']}", "RAY_metrics_report_interval_ms": "1000"}
    with Cluster(environment=given) as nodes:
        nodes.start_head()
        nodes.start_second()
        yield nodes


def submit(cluster: Cluster, project: Project, run: Path | str, *extra: str) -> Command:
    """Start ``vipo submit`` for a build that takes both nodes."""
    given = ["submit", *project.build(run, "--workers", "2", *extra)[1:], "--shared"]
    return Command(*given, environment=joins(cluster))


def job(cluster: Cluster, verb: str, run: Path) -> Command:
    """Follow or stop the last job of a run."""
    return vipo("job", verb, "--run", str(run), environment=joins(cluster))


def joins(cluster: Cluster) -> dict[str, str]:
    """Return the environment of a command that talks to the cluster.

    A command, and not this process: Ray reads how a process authenticates once, when it is imported.
    """
    return {**cluster.environment, "RAY_ADDRESS": cluster.url}


def held_driver(cluster: Cluster, run: Path) -> int:
    """Stop the driver of a run in the middle; return its id."""
    until(lambda: parts(run, "prompts"), "the build has begun")
    (driver,) = [pid for pid in cluster.drivers() if str(run) in command_line(pid)]
    os.kill(driver, signal.SIGSTOP)
    assert not (run / "manifest.json").exists()
    return driver


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_a_job_is_left_joined_killed_and_gone_on_with(
    cluster: Cluster, few: Project, few_tree: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    first = submit(cluster, few, run)
    driver = held_driver(cluster, run)
    until(lambda: "prompts: " in first.output, "the job's log is shown")

    first.process.send_signal(signal.SIGINT)
    assert first.end() == 130
    said = first.errors.splitlines()
    name = re.fullmatch(r"job (vipo-[0-9a-f]{12}-1) submitted to " + re.escape(cluster.url), said[0])
    assert name, said
    assert said[1:] == [
        f"detached: job {name[1]} goes on",
        f"follow it: vipo job follow --run {run} --address {cluster.url}",
        f"how far it is: vipo status --run {run}",
        f"stop it: vipo job stop --run {run} --address {cluster.url}",
    ]
    assert not dead(driver)

    other = submit(cluster, few, run, "--quota", "13")
    assert other.end() == 1
    assert other.errors.startswith(f"vipo: job {name[1]} is at work on {run} with other settings: ")

    second = submit(cluster, few, run)
    until(lambda: "prompts: " in second.output, "the log is shown from its beginning")
    assert f"job {name[1]} is at work on this run already" in second.errors
    assert not api.status(str(run)).finished
    os.kill(driver, signal.SIGKILL)
    assert second.end() == 128 + signal.SIGKILL
    assert not (run / "manifest.json").exists()

    third = submit(cluster, few, run)
    wanted = {PREFIX + metric.name for metric in METRICS if metric.name not in NEVER_HERE}
    shown: set[str] = set()

    def seen() -> bool:
        shown.update(re.sub("_(bucket|count|sum)$", "", name) for name in cluster.shown())
        return wanted <= shown

    until(seen, "the driver's metrics are shown by Ray", seconds=60)
    built(third)
    assert re.match(r"job vipo-[0-9a-f]{12}-2 submitted to ", third.errors)
    assert f"report: {run}/report.html" in third.output
    assert tree(run) == few_tree


def test_a_job_that_is_stopped_has_ended(cluster: Cluster, few: Project, tmp_path: Path) -> None:
    run = tmp_path / "run"
    submitted = submit(cluster, few, run, "--detach")
    assert submitted.end() == 0
    (name,) = re.findall("^job (vipo-[0-9a-f]{12}-1) submitted", submitted.errors)
    until(lambda: parts(run, "prompts"), "the build has begun")
    stopped = job(cluster, "stop", run)
    assert stopped.process.returncode == 0, stopped.errors
    assert stopped.output == f"stopped: {name}: submit it again to go on\n"
    assert not [pid for pid in cluster.drivers() if str(run) in command_line(pid)]

    followed = job(cluster, "follow", run)
    assert followed.process.returncode == 1
    assert re.fullmatch(f"vipo: job {name} stopped: .*: the same command goes on with it\n", followed.errors)
    assert f"Running entrypoint for job {name}" in followed.output
    again = job(cluster, "stop", run)
    assert (again.process.returncode, again.errors) == (1, f"vipo: job {name} is not at work\n")


def test_a_build_that_fails_fails_its_job_and_logs_events(cluster: Cluster, tmp_path: Path) -> None:
    """The pool of the user has a single prompt: the quota cannot be met."""
    import hashlib

    payload = b'{"text": "two fish", "checks": {"objects": [{"name": "fish", "count": 2, "colour": null}]}}\n'
    (tmp_path / "pool.jsonl").write_bytes(payload)
    pool = f'[pool]\nuri = "{tmp_path}/pool.jsonl"\nsha256 = "{hashlib.sha256(payload).hexdigest()}"\n'
    text = IMAGES.replace("[rubric]", f'{pool}licence = "CC0-1.0"\n\n[rubric]')
    command = submit(cluster, Project.write(tmp_path / "project", text), tmp_path / "run", "--log", "json")
    assert command.end() == 1
    lines = command.output.splitlines()
    assert any(line.startswith("vipo: alignment is ") for line in lines)
    events = [json.loads(line) for line in lines if line.startswith("{")]
    assert events[0]["event"] == "build_started"
    assert events[0]["runner"] == "ray"
    assert events[-1]["event"] == "build_ended"
    assert events[-1]["short"]["alignment"] > 0


def test_the_command_of_ray_submits_it_too(
    cluster: Cluster, few: Project, few_tree: dict[str, str], tmp_path: Path
) -> None:
    """What `ray job submit` starts is a build on the cluster that the job belongs to."""
    run = tmp_path / "run"
    build = ["vipo", *few.build(run, "--runner", "ray", "--workers", "2")]
    command = [str(SCRIPTS / "ray"), "job", "submit", "--address", cluster.url, "--", *build]
    done = subprocess.run(
        command, env={**os.environ, **cluster.environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"report: {run}/report.html" in done.stdout, shlex.join(command)
    assert tree(run) == few_tree
    assert open_store(str(run)).size("manifest.json")


@pytest.mark.parametrize("token", [None, "another-token"])
def test_a_wrong_token_is_refused_in_a_line(
    cluster: Cluster, few: Project, tmp_path: Path, token: str | None
) -> None:
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    run = f"s3://bucket/{tmp_path.name}"
    arguments = ["submit", *few.build(run)[1:], "--address", cluster.url]
    command = vipo(*arguments, environment={**given, "HOME": str(tmp_path)})
    assert command.process.returncode == 1
    (line,) = command.errors.splitlines()
    assert line.startswith(f"vipo: {cluster.url} wants the cluster's token")
    assert "RAY_AUTH_TOKEN" in line
    assert "another-token" not in line
