"""The same settings give the same bytes, whoever runs the units."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from rich.console import Console

from pipeline import api
from tests.e2e.world import (
    IMAGES,
    PATIENCE,
    PROFILE,
    QUIET,
    VIDEOS,
    Command,
    Project,
    built,
    tree,
    until,
    vipo,
)

pytestmark = pytest.mark.slow


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray head on this machine with ports, folder and token of its own."""

    address: str
    client_address: str
    environment: dict[str, str]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # Ray's sockets lie in this folder and their paths may have 107 characters: not below tmp_path.
    with tempfile.TemporaryDirectory(prefix="vray", dir="/tmp") as folder:
        token = Path(folder) / "token"
        token.write_text("a-token-of-this-test-alone")
        environment = {**QUIET, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        ports = _free_ports(3)
        log = Path(folder) / "log"
        with log.open("w") as written:
            head = subprocess.Popen(
                [
                    *(str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"),
                    *("--node-ip-address=127.0.0.1", f"--port={ports[0]}"),
                    *(f"--ray-client-server-port={ports[1]}", f"--dashboard-agent-listen-port={ports[2]}"),
                    *("--min-worker-port=0", "--max-worker-port=0", "--include-dashboard=false"),
                    *("--num-cpus=2", f"--temp-dir={folder}/ray", "--object-store-memory=100000000"),
                ],
                env={**os.environ, **environment},
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        try:
            until(lambda: "--block" in log.read_text() or head.poll() is not None, "the head is up")
            assert head.poll() is None, log.read_text()
            yield Cluster(f"127.0.0.1:{ports[0]}", f"ray://127.0.0.1:{ports[1]}", environment)
        finally:
            head.send_signal(signal.SIGTERM)
            head.wait(PATIENCE)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def test_two_local_workers_do_what_one_does(both: Project, both_run: Path, tmp_path: Path) -> None:
    built(Command(*both.build(tmp_path, "--workers", "2")))
    assert tree(tmp_path) == tree(both_run)


def test_stages_that_overlap_give_the_same_bytes(both_run: Path, tmp_path: Path) -> None:
    project = Project.write(tmp_path / "project", IMAGES, VIDEOS, profile=PROFILE + "overlap = true\n")
    built(Command(*project.build(tmp_path / "run", "--workers", "3")))
    assert tree(tmp_path / "run") == tree(both_run)


def test_ray_does_what_one_local_worker_does(both: Project, both_run: Path, tmp_path: Path) -> None:
    command = built(Command(*both.build(tmp_path, "--runner", "ray", "--workers", "2")))
    assert tree(tmp_path) == tree(both_run)
    until(lambda: not command.others(), f"Ray ends with its driver: {command.others()}")


def test_a_ray_cluster_does_what_one_local_worker_does(
    images: Project, images_tree: dict[str, str], cluster: Cluster, tmp_path: Path
) -> None:
    """Five workers are asked for; the cluster has room for two."""
    given = images.build(tmp_path, "--runner", "ray", "--workers", "5", "--address", cluster.address)
    built(Command(*given, environment=cluster.environment))
    assert tree(tmp_path) == images_tree


def test_a_ray_client_does_what_one_local_worker_does(
    images: Project, images_tree: dict[str, str], cluster: Cluster, tmp_path: Path
) -> None:
    given = images.build(tmp_path, "--runner", "ray", "--workers", "2", "--address", cluster.client_address)
    built(Command(*given, environment=cluster.environment))
    assert tree(tmp_path) == images_tree


def test_an_address_without_a_cluster_is_refused_in_a_line(images: Project, tmp_path: Path) -> None:
    (port,) = _free_ports(1)
    address = f"127.0.0.1:{port}"
    command = vipo(*images.build(tmp_path / "run", "--runner", "ray", "--address", address))
    assert command.process.returncode == 1
    assert re.search(rf"vipo: no Ray cluster at {address}: .*: check --address\n\Z", command.errors)
    assert not (tmp_path / "run").exists()


def test_python_does_what_the_command_does(
    images: Project, images_tree: dict[str, str], console: Console, tmp_path: Path
) -> None:
    command = vipo(*images.build(tmp_path / "command"))
    assert command.process.returncode == 0
    api.build(images.settings(), str(tmp_path / "python"), console=console)
    assert tree(tmp_path / "command") == tree(tmp_path / "python") == images_tree
    settings = [(tmp_path / name / "settings.json").read_bytes() for name in ("command", "python")]
    assert settings[0] == settings[1]
