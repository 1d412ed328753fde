"""The cluster files of infra/ are what their readers take, and are closed to strangers.

Pods and volumes are checked against Kubernetes' own schemas, `ray up`'s file by Ray itself. Of KubeRay's and
SkyPilot's schemas no package fits beside the others, so their keys are named here.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

INFRA = Path(__file__).parents[2] / "infra"
KUBERNETES = "1.37"

CLUSTER_KEYS = {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions"} | {
    "headGroupSpec",
    "workerGroupSpecs",
}
HEAD_KEYS = {"serviceType", "rayStartParams", "template", "resources", "labels"}
GROUP_KEYS = {"groupName", "minReplicas", "maxReplicas", "labels", "resources", "rayStartParams", "template"}
JOB_KEYS = {"clusterSelector", "entrypoint", "submissionMode", "submitterPodTemplate"}
SKY_KEYS = {"name", "num_nodes", "resources", "envs", "secrets", "setup", "run"}
SKY_RESOURCES = {"accelerators", "use_spot", "disk_size", "job_recovery"}


def documents(name: str) -> dict[str, dict[str, Any]]:
    found = yaml.safe_load_all((INFRA / name).read_text())
    return {document.get("kind", ""): document for document in found}


VOLUME, CLUSTER = documents("kuberay/cluster.yaml").values()
JOB = documents("kuberay/job.yaml")["RayJob"]
AWS = documents("aws.yaml")[""]
SKY = documents("skypilot.yaml")[""]
HEAD, GROUPS = CLUSTER["spec"]["headGroupSpec"], CLUSTER["spec"]["workerGroupSpecs"]
TEMPLATES = {
    "head": HEAD["template"],
    **{group["groupName"]: group["template"] for group in GROUPS},
    "submitter": JOB["spec"]["submitterPodTemplate"],
}


def pod(name: str) -> dict[str, Any]:
    template = copy.deepcopy(TEMPLATES[name])
    return {"apiVersion": "v1", "kind": "Pod", "metadata": template.get("metadata", {}), **template}


def container(name: str) -> dict[str, Any]:
    (only,) = TEMPLATES[name]["spec"]["containers"]
    return dict(only)


# ---- formats


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_is_one_of_kubernetes(name: str) -> None:
    kubernetes_validate.validate(pod(name), KUBERNETES, strict=True)


def test_a_mistake_in_a_pod_would_be_found() -> None:
    wrong = pod("judges")
    wrong["spec"]["containers"][0]["resorces"] = wrong["spec"]["containers"][0].pop("resources")
    with pytest.raises(kubernetes_validate.ValidationError, match="resorces"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_volume_is_one_of_kubernetes_and_shared_by_all() -> None:
    kubernetes_validate.validate(VOLUME, KUBERNETES, strict=True)
    assert VOLUME["spec"]["accessModes"] == ["ReadWriteMany"]
    claim = {"claimName": VOLUME["metadata"]["name"]}
    for name in TEMPLATES.keys() - {"submitter"}:
        volumes = {each["name"]: each for each in TEMPLATES[name]["spec"]["volumes"]}
        mounts = {each["mountPath"]: volumes[each["name"]] for each in container(name)["volumeMounts"]}
        assert mounts["/cache"]["persistentVolumeClaim"] == claim
        assert mounts["/dev/shm"]["emptyDir"]["medium"] == "Memory"  # noqa: S108 a mount, no temporary file


def test_kuberay_knows_every_key() -> None:
    assert (CLUSTER["apiVersion"], JOB["apiVersion"]) == ("ray.io/v1", "ray.io/v1")
    assert CLUSTER["spec"].keys() <= CLUSTER_KEYS
    assert HEAD.keys() <= HEAD_KEYS
    assert [group.keys() - GROUP_KEYS for group in GROUPS] == [set()] * len(GROUPS)
    assert JOB["spec"].keys() <= JOB_KEYS


def test_kuberay_takes_what_it_takes_only_together() -> None:
    """As its operator checks before it makes a pod."""
    for group in (HEAD, *GROUPS):
        params = group["rayStartParams"]
        assert all(isinstance(value, str) for value in params.values())
        assert not (
            group.get("resources") and params.keys() & {"num-cpus", "num-gpus", "memory", "resources"}
        )
        assert "labels" not in params
        assert "restartPolicy" not in group["template"]["spec"]  # its autoscaler v2 wants Never, and sets it
    assert JOB["spec"]["clusterSelector"] == {"ray.io/cluster": CLUSTER["metadata"]["name"]}
    assert "backoffLimit" not in JOB["spec"]
    assert "generateName" in JOB["metadata"]


def test_ray_up_takes_the_file() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    filled = prepare_config(copy.deepcopy(AWS))
    validate_config(filled)
    workers = {name: kind for name, kind in AWS["available_node_types"].items() if name != "head"}
    assert filled["max_workers"] == sum(kind["max_workers"] for kind in workers.values())
    assert {kind["node_config"]["InstanceMarketOptions"]["MarketType"] for kind in workers.values()} == {
        "spot"
    }
    assert "InstanceMarketOptions" not in AWS["available_node_types"]["head"]["node_config"]
    assert filled["head_setup_commands"] == filled["worker_setup_commands"] == []


def test_ray_up_would_refuse_a_mistake() -> None:
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    wrong = copy.deepcopy(AWS)
    wrong["available_node_types"]["judges"]["max_worker"] = 16
    with pytest.raises(ValidationError, match="max_worker"):
        validate_config(prepare_config(wrong))


def test_the_skypilot_task_has_keys_that_skypilot_knows() -> None:
    assert SKY.keys() == SKY_KEYS
    assert SKY["resources"].keys() == SKY_RESOURCES
    assert SKY["resources"]["use_spot"] is True
    assert SKY["resources"]["job_recovery"].keys() == {"strategy", "max_restarts_on_errors"}
    assert all(isinstance(value, str) for value in SKY["envs"].values())


# ---- who may do what


def test_ray_wants_the_token_everywhere() -> None:
    assert CLUSTER["spec"]["authOptions"] == {"mode": "token", "secretName": "vipo-ray-token"}
    assert AWS["file_mounts"] == {"/home/ubuntu/.ray/auth_token": "~/.ray/auth_token"}
    assert SKY["secrets"]["RAY_AUTH_TOKEN"] is None
    assert "--env RAY_AUTH_TOKEN " in SKY["run"]


def test_nothing_is_open_to_the_outside() -> None:
    assert HEAD["serviceType"] == "ClusterIP"
    assert "enableIngress" not in HEAD
    assert "ports" not in SKY["resources"]
    for name, template in TEMPLATES.items():
        assert "hostNetwork" not in template["spec"]
        assert not any("hostPort" in port for port in container(name).get("ports", []))


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_has_no_more_rights_than_it_needs(name: str) -> None:
    security = TEMPLATES[name]["spec"]["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] == 1000
    assert container(name)["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    if name != "head":  # its autoscaler asks Kubernetes for pods
        assert TEMPLATES[name]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_pod_asks_for_what_it_may_use(name: str) -> None:
    resources = container(name)["resources"]
    assert resources["requests"] == resources["limits"]
    assert {"cpu", "memory"} <= resources["limits"].keys()


@pytest.mark.parametrize("name", TEMPLATES)
def test_environments_refer_to_secrets_that_may_be_missing(name: str) -> None:
    for variable in container(name).get("env", []):
        assert variable["valueFrom"]["secretKeyRef"]["optional"] is True
    for source in container(name).get("envFrom", []):
        assert source["secretRef"]["optional"] is True


# ---- spot


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["groupName"])
def test_workers_prefer_spot_and_bear_its_taints(group: dict[str, Any]) -> None:
    spec = group["template"]["spec"]
    borne = {taint["key"] for taint in spec["tolerations"]}
    assert {"cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority"} <= borne
    preferred = spec["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert len(preferred) == 3
    if "nvidia.com/gpu" in container(group["groupName"])["resources"]["limits"]:
        assert "nvidia.com/gpu" in borne


def test_the_head_stays_off_spot() -> None:
    affinity = HEAD["template"]["spec"]["affinity"]["nodeAffinity"]
    required = affinity["requiredDuringSchedulingIgnoredDuringExecution"]
    (term,) = required["nodeSelectorTerms"]
    assert {each["operator"] for each in term["matchExpressions"]} == {"NotIn"}
    assert len(term["matchExpressions"]) == 3


def test_ports_are_rays_own_but_where_another_ray_has_them() -> None:
    from ray._private import ray_constants

    ports = {port["name"]: port["containerPort"] for port in container("head")["ports"]}
    assert ports["gcs-server"] == ray_constants.DEFAULT_PORT
    assert ports["dashboard"] == ray_constants.DEFAULT_DASHBOARD_PORT
    agent = f"--dashboard-agent-listen-port={ray_constants.DEFAULT_DASHBOARD_AGENT_LISTEN_PORT}"
    assert SKY["run"].count("--dashboard-agent-listen-port=") == SKY["run"].count("ray start ")
    assert agent not in SKY["run"]


def test_the_cluster_has_the_pinned_ray() -> None:
    constraints = (INFRA / "constraints.txt").read_text().splitlines()
    assert f"ray=={CLUSTER['spec']['rayVersion']}" in constraints
