"""What a newcomer installs: the Makefile's set-up, the lock, and a wheel that is light and complete."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CONSTRAINTS = ROOT / "infra" / "constraints.txt"
DATA = ("categories", "prompts", "infra/profiles")
ADAPTERS = {"av", "boto3", "cv2", "onnxruntime", "PIL", "rapidocr", "ray", "torch"}
SLOW_TO_IMPORT = ADAPTERS | {"numpy", "pyarrow"}
EXTRAS = frozenset({"embedded", "ray", "models", "clients", "safety", "consensus"})
"""Those of the tests; vLLM has an environment of its own."""
ONLY_IN_EXTRAS = {
    "diffusers",
    "nudenet",
    "onnxruntime",
    "opencv-python-headless",
    "rapidocr",
    "ray",
    "torch",
    "transformers",
    "vllm",
}


def run(*command: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    # Under `make test` these would turn every make started here into a part of that one.
    env = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=env)


def output(*command: str | Path, cwd: Path = ROOT) -> str:
    done = run(*command, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# ---- the Makefile


def test_make_help_has_a_line_for_every_target() -> None:
    targets = set(re.findall(r"^([a-z][a-z0-9-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    lines = output("make").splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(targets)
    assert all(len(line.split()) > 2 for line in lines)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The set-up's inputs and, younger, the stamps of an environment made from them."""
    for name in ("Makefile", "pyproject.toml", "infra/constraints.txt", "infra/find-python"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
        os.utime(tmp_path / name, (1000, 1000))
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for seconds, name in enumerate(("bin/python", ".demo", ".test"), start=1001):
        (tmp_path / ".venv" / name).touch(mode=0o755)
        os.utime(tmp_path / ".venv" / name, (seconds, seconds))
    return tmp_path


def installs(checkout: Path, target: str) -> int:
    return output("make", "--dry-run", target, cwd=checkout).count(" pip install ")


@pytest.mark.parametrize("target", ["demo", "test", "lint", "status"])
def test_a_second_call_sets_nothing_up(checkout: Path, target: str) -> None:
    assert installs(checkout, target) == 0


@pytest.mark.parametrize("changed", ["pyproject.toml", "infra/constraints.txt"])
def test_a_change_of_requirements_installs_again(checkout: Path, changed: str) -> None:
    os.utime(checkout / changed, (2000, 2000))
    assert installs(checkout, "demo") < installs(checkout, "test")
    assert installs(checkout, "demo") > 0


def test_the_demo_needs_no_test_packages(checkout: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    assert "--group test" not in output("make", "--dry-run", "demo", cwd=checkout)
    assert "--group test" in output("make", "--dry-run", "test", cwd=checkout)


def test_an_uninstalled_python_makes_the_environment_anew(checkout: Path) -> None:
    link = checkout / ".venv" / "bin" / "python"
    link.unlink()
    link.symlink_to("gone")
    assert " -m venv " in output("make", "--dry-run", "status", cwd=checkout)
    assert installs(checkout, "status") > 0


@pytest.mark.parametrize("named", ["nosuch", "false"])
def test_an_unfit_python_is_refused_in_one_line(checkout: Path, named: str) -> None:
    shutil.rmtree(checkout / ".venv")
    done = run("make", "demo", f"PYTHON={named}", cwd=checkout)
    said = [line for line in done.stderr.splitlines() if not line.startswith("make:")]
    assert len(said) == 1
    assert f"no Python 3.11 or newer among: {named}" in said[0]
    assert done.returncode != 0


def test_a_python_without_ensurepip_is_refused_with_the_package_to_install(tmp_path: Path) -> None:
    fake = tmp_path / "python3.12"
    fake.write_text('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; *print*) echo python3.12;; esac\n')
    fake.chmod(0o755)
    done = run(ROOT / "infra" / "find-python", fake)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "apt install python3.12-venv" in done.stderr


def test_the_first_fit_python_is_taken() -> None:
    assert output(ROOT / "infra" / "find-python", "nosuch", "false", sys.executable).strip() == sys.executable


# ---- the lock


def pins() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}


def required(name: str, extras: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or any(
            requirement.marker.evaluate({"extra": e}) for e in {"", *extras}
        ):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def closure() -> frozenset[str]:
    """Every distribution that the extras and the test group need in this environment."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    asked = [(item.name, frozenset(item.extras)) for item in map(Requirement, groups["test"])]
    seen = set(asked := [*asked, ("vipo", EXTRAS)])
    while asked:
        fresh = set(required(*asked.pop())) - seen
        seen |= fresh
        asked.extend(fresh)
    return frozenset(canonicalize_name(name) for name, _ in seen if name != "vipo")


def test_every_package_in_use_is_the_pinned_one() -> None:
    pinned = pins()
    used = {name: metadata.version(name).partition("+")[0] for name in sorted(closure())}
    assert {name: pinned.get(name) for name in used} == used


def test_the_lock_names_packages_and_no_index() -> None:
    lines = CONSTRAINTS.read_text().splitlines()
    assert [x for x in lines if not re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", x)] == []
    assert "://" not in CONSTRAINTS.read_text()


# ---- the command and the wheel


def imported_by_help(python: Path | str, cwd: Path) -> set[str]:
    done = run(python, "-X", "importtime", "-m", "pipeline", "--help", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}


def test_help_imports_nothing_slow() -> None:
    imported = imported_by_help(sys.executable, ROOT)
    assert "pipeline" in imported
    assert imported & SLOW_TO_IMPORT == set()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment that holds the wheel, what it requires, and nothing else."""
    home = tmp_path_factory.mktemp("bare")
    pip = (sys.executable, "-m", "pip", "-qq")
    output(*pip, "wheel", "--no-deps", "--build-constraint", CONSTRAINTS, "-w", home, ROOT)
    venv.create(home / "venv", with_pip=False)
    wheel = next(home.glob("vipo-*.whl"))
    output(*pip, "--python", home / "venv/bin/python", "install", "-c", CONSTRAINTS, wheel)
    return home / "venv" / "bin"


@pytest.mark.slow
def test_the_core_pulls_no_heavy_package(bare: Path) -> None:
    listed = output(sys.executable, "-m", "pip", "--python", bare / "python", "list", "--format", "json")
    names = {canonicalize_name(item["name"]) for item in json.loads(listed)}
    assert "vipo" in names
    assert names & ONLY_IN_EXTRAS == set()
    assert [name for name in names if name.startswith("nvidia-")] == []


@pytest.mark.slow
def test_the_wheel_ships_the_data_it_reads(bare: Path, tmp_path: Path) -> None:
    program = "from pipeline.config import data_root; print(data_root())"
    shipped = Path(output(bare / "python", "-c", program, cwd=tmp_path).strip())
    assert shipped.is_relative_to(bare.parent)
    for folder in DATA:
        assert contents(shipped / folder) == contents(ROOT / folder) != {}
    assert contents(ROOT / "pipeline").items() <= contents(shipped.parent).items()


def contents(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.slow
def test_the_wheel_answers_help_in_a_bare_environment(bare: Path, tmp_path: Path) -> None:
    usage = output(bare / "vipo", "--help", cwd=tmp_path)
    assert all(command in usage for command in ("plan", "build", "status", "verify", "report"))
    assert imported_by_help(bare / "python", tmp_path) & SLOW_TO_IMPORT == set()
