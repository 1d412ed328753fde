"""The doctor finds what is there, names what is missing with its remedy, and never fails itself."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import api
from pipeline.config import Endpoint, Pin, Settings
from pipeline.runners.doctor import Finding, diagnose
from pipeline.weights import pin
from tests.unit.test_weights import write

H100 = "NVIDIA H100 80GB HBM3, 81559, 570.86.15"
SMALL = "NVIDIA T4, 15360, 570.86.15"


def one(findings: Sequence[Finding], area: str, name: str = "") -> Finding:
    (found,) = (finding for finding in findings if (finding.area, finding.name) == (area, name))
    return found


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program called nvidia-smi on the path, and nothing else."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture
def settings() -> Settings:
    return api.load("cluster", categories=["aesthetics"])


def test_every_model_of_the_tables_has_one_line_with_a_remedy() -> None:
    models = [finding for finding in diagnose() if finding.area == "model"]
    names = [finding.name for finding in models]
    assert len(names) == len(set(names))
    assert {"FLUX.1-dev", "Wan2.2-I2V-A14B", "HiDream-I1-Full", "Qwen3-VL-8B", "GLM-4.5V"} <= set(names)
    for finding in models:
        assert finding.state == "ok" or finding.remedy
        assert "\n" not in finding.found + finding.remedy
    assert "gated" in one(models, "model", "FLUX.1-dev").found
    assert "vipo weights pin" in one(models, "model", "GLM-4.5V").remedy


def test_settings_narrow_the_models_to_those_in_use(settings: Settings) -> None:
    cast = settings.cast(settings.categories[0])
    named = {finding.name for finding in diagnose(settings) if finding.area == "model"}
    assert named == {*cast.generators, *cast.judges}


def test_machine_and_packages_are_described() -> None:
    findings = diagnose()
    assert {finding.name for finding in findings if finding.area == "machine"} >= {"cores", "memory"}
    core = one(findings, "packages", "core")
    assert (core.state, core.remedy) == ("ok", "")


def test_gpus_are_what_the_driver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, f"echo '{H100}'; echo '{SMALL}'")
    findings = diagnose()
    assert one(findings, "gpu", "0").found == "NVIDIA H100 80GB HBM3, 86 GB, driver 570.86.15"
    assert one(findings, "gpu", "1").state == "ok"


@pytest.mark.parametrize(
    ("script", "state", "said"),
    [
        ("echo no devices were found >&2; exit 6", "unknown", "no devices were found"),
        ("echo nonsense", "unknown", "ValueError"),
    ],
)
def test_a_driver_that_fails_hides_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, state: str, said: str
) -> None:
    driver(tmp_path, monkeypatch, script)
    findings = diagnose()
    gpu = one(findings, "gpu")
    assert gpu.state == state
    assert said in gpu.found
    assert one(findings, "machine", "cores").state == "ok"


def test_without_gpu_it_says_what_else_can_be_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu = one(diagnose(), "gpu")
    assert gpu.state == "missing"
    assert "--profile laptop" in gpu.remedy


@pytest.mark.parametrize(("gpu", "state"), [(H100, "ok"), (SMALL, "missing")])
def test_a_model_is_ready_where_its_weights_are_and_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings, gpu: str, state: str
) -> None:
    driver(tmp_path, monkeypatch, f"echo '{gpu}'")
    folder = write(tmp_path / "weights", "Qwen/Qwen-Image")
    root = str(tmp_path / "weights")
    (found,) = pin(["Qwen/Qwen-Image"], root)
    assert isinstance(found, Pin)
    here = replace(settings, profile=replace(settings.profile, weights=root), pins=(found,))
    findings = diagnose(here)
    ready = one(findings, "model", "Qwen-Image")
    assert ready.state == state
    assert str(folder) in ready.found
    assert "not pinned" in one(findings, "model", "Z-Image").remedy


@pytest.mark.parametrize("address", ["ray://127.0.0.1:{}", "127.0.0.1:{}"])
def test_a_cluster_is_knocked_at(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert one(diagnose(address=address.format(port)), "ray", "cluster").state == "ok"
    gone = one(diagnose(address=address.format(port)), "ray", "cluster")
    assert gone.state == "missing"
    assert "RAY_ADDRESS" in gone.remedy


def test_a_judge_that_is_served_elsewhere_needs_no_weights_here(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        there = Endpoint(judge="GLM-4.6V-Flash", urls=(url,))
        findings = diagnose(replace(settings, profile=replace(settings.profile, endpoints=(there,))))
    assert one(findings, "judge", "GLM-4.6V-Flash").state == "ok"
    assert "GLM-4.6V-Flash" not in {finding.name for finding in findings if finding.area == "model"}


@pytest.mark.parametrize(
    ("script", "state", "found"),
    [
        ("echo 0.32.0", "ok", "vllm 0.32.0 in "),
        ("exit 1", "missing", "no vllm in "),
        (None, "missing", "no vllm"),
    ],
)
def test_another_python_is_asked_for_its_vllm(
    settings: Settings, tmp_path: Path, script: str | None, state: str, found: str
) -> None:
    python = tmp_path / "python"
    if script:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    vllm = one(
        diagnose(replace(settings, profile=replace(settings.profile, vllm=str(python)))), "packages", "vllm"
    )
    assert vllm.state == state
    assert vllm.found.startswith(found)


def test_a_place_that_cannot_be_is_a_finding_too(settings: Settings) -> None:
    broken = replace(settings, profile=replace(settings.profile, weights="ftp://nowhere"))
    models = [finding for finding in diagnose(broken) if finding.area == "model"]
    assert {finding.state for finding in models} == {"missing"}
    assert all("not a known kind of store" in finding.remedy for finding in models)
