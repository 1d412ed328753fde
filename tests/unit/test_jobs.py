"""What a submission refuses before anything is sent, and what is sent."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from pipeline.config import from_json
from pipeline.errors import ConfigError
from pipeline.runners import jobs
from tests.e2e.nodes import free_ports
from tests.e2e.world import Project

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in jobs.ADDRESSES:
        monkeypatch.delenv(name, raising=False)


def test_without_an_address_it_is_said_what_to_set(images: Project) -> None:
    with pytest.raises(ConfigError, match=r"set RAY_ADDRESS to its dashboard, such as http://head:8265"):
        jobs.submit(images.settings(), "s3://bucket/run")


@pytest.mark.parametrize("address", ["ray://head:10001", "head:6379", "head"])
def test_an_address_of_drivers_is_refused_with_the_one_of_jobs(
    images: Project, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match=rf"RAY_ADDRESS: {address} .*: use http://head:8265"):
        jobs.submit(images.settings(), "s3://bucket/run")


def test_the_address_that_is_given_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://third")
    assert jobs.dashboard() == "http://third"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://second/")
    assert jobs.dashboard() == "http://second"
    assert jobs.dashboard("https://first") == "https://first"


def test_an_address_with_a_login_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://me:hunter2@head:8265")
    with pytest.raises(ConfigError) as caught:
        jobs.dashboard()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("run", ["runs/mine", "file:///data/run", "/data/run"])
def test_a_folder_of_this_machine_is_refused(images: Project, run: str) -> None:
    with pytest.raises(ConfigError, match=r"--run: /.* is a path of this machine: use s3://.* --shared"):
        jobs.submit(images.settings(), run, address="http://head:8265")


def test_a_dashboard_that_is_not_there_is_named_in_a_line(images: Project) -> None:
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(ConfigError, match=rf"no Ray dashboard at {url}: .*: check RAY_ADDRESS") as caught:
        jobs.submit(images.settings(), "s3://bucket/run", address=url)
    assert "\n" not in str(caught.value)


def test_a_mistake_in_the_settings_is_found_before_the_cluster_is_asked(images: Project) -> None:
    with pytest.raises(ConfigError, match="cannot be met"):
        jobs.submit(images.settings(quota=999_999_999), "s3://bucket/run", address="http://head:8265")


def test_what_is_sent_runs_by_itself_and_holds_nothing_of_this_machine(
    images: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As Ray packs it, unpacked elsewhere: this checkout is installed for the same Python, and not used."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-not-sent")
    settings = images.settings()
    with jobs._package(settings) as folder:
        create_package(folder, tmp_path / "sent.zip", include_gitignore=True)
    with zipfile.ZipFile(tmp_path / "sent.zip") as sent:
        sent.extractall(tmp_path / "there")
    files = [path for path in (tmp_path / "there").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 8 << 20
    assert not any(b"a-secret-that-is-not-sent" in path.read_bytes() for path in files)
    assert {path.relative_to(tmp_path / "there").parts[0] for path in files} == {
        "pipeline",
        "prompts",
        "settings.json",
        "vipo-0.1.0.dist-info",
    }
    there = (tmp_path / "there" / "settings.json").read_bytes()
    assert from_json(there, "there") == settings

    code = (
        "import importlib.metadata as m, pipeline.api; from pipeline.config import data_root; "
        "print(pipeline.__file__, data_root(), m.distribution('vipo').locate_file(''))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path / "there", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(ROOT) not in done.stdout
    assert str(tmp_path / "there") in done.stdout


def test_a_run_has_its_own_series_of_jobs() -> None:
    names = {jobs._prefix(uri) for uri in ("s3://bucket/a", "s3://bucket/b", "/data/a")}
    assert len(names) == 3
    assert jobs._address_of("s3://bucket/a/") == "s3://bucket/a"
    assert jobs._address_of("runs/a") == f"{Path.cwd()}/runs/a"
