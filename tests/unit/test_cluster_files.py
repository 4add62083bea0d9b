"""The files in cluster/: against schemas, against one another, and against what the code and the docs say.

KubeRay's manifests are checked against KubeRay's own schemas (`tests/schemas/kuberay.json`, see
`tools/vendor_kuberay.py`), the launcher's YAML against the schema that Ray ships. No cluster is started here.
"""

from __future__ import annotations

import ast
import copy
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from s3t_ray.config.load import load_config
from s3t_ray.plan.resources import bundles, room
from s3t_ray.serve.access.whole_bodies import CALLBACK, CALLBACK_PATH
from s3t_ray.serve.service_settings import ServiceSettings

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
MANIFESTS = ("raycluster", "rayjob", "rayservice", "rayservice-redis")
SERVICES = ("rayservice", "rayservice-redis")
LAUNCHERS = ("aws", "gcp")


@cache
def kuberay_schema(kind: str) -> Any:
    vendored = json.loads((ROOT / "tests" / "schemas" / "kuberay.json").read_text())
    return {**vendored["kinds"][kind], "$defs": vendored["$defs"]}


def validate(document: Any) -> None:
    jsonschema.validate(document, kuberay_schema(document["kind"]), jsonschema.Draft202012Validator)


@cache
def launcher_schema() -> Any:
    ray = find_spec("ray")
    assert ray is not None and ray.origin is not None
    return json.loads((Path(ray.origin).parent / "autoscaler" / "ray-schema.json").read_text())


def manifest(name: str) -> Any:
    return yaml.safe_load((CLUSTER / "kuberay" / f"{name}.yaml").read_text())


def ray_cluster(document: Any) -> Any:
    spec = document["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


def pods(document: Any) -> list[Any]:
    cluster = ray_cluster(document)
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def containers(document: Any) -> Iterator[tuple[Any, Any]]:
    for pod in pods(document):
        for container in (*pod.get("initContainers", ()), *pod["containers"]):
            yield pod, container


@pytest.mark.parametrize("kind", ["RayCluster", "RayJob", "RayService"])
def test_the_schemas_are_schemas(kind: str) -> None:
    jsonschema.Draft202012Validator.check_schema(kuberay_schema(kind))


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_fits_kuberays_own_schema(name: str) -> None:
    document = manifest(name)
    assert document["apiVersion"] == "ray.io/v1"
    validate(document)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_asks_for_the_token_and_names_the_image_it_runs(name: str) -> None:
    document = manifest(name)
    assert ray_cluster(document)["authOptions"] == {"mode": "token"}
    for _, container in containers(document):
        assert re.fullmatch(r"[a-z0-9./-]+:[a-z0-9.]+", container["image"]), "an image without a tag changes by itself"


def _misspell(document: Any) -> None:
    cluster = ray_cluster(document)
    cluster["headGroupSpecs"] = cluster.pop("headGroupSpec")


def _unknown_mode(document: Any) -> None:
    ray_cluster(document)["authOptions"]["mode"] = "tokens"


def _number_parameter(document: Any) -> None:
    ray_cluster(document)["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def _misspell_in_a_container(document: Any) -> None:
    container = pods(document)[-1]["containers"][0]
    container["volumeMount"] = container.pop("volumeMounts")


def _no_head(document: Any) -> None:
    del ray_cluster(document)["headGroupSpec"]


@pytest.mark.parametrize("name", MANIFESTS)
@pytest.mark.parametrize("spoil", [_misspell, _unknown_mode, _number_parameter, _misspell_in_a_container, _no_head])
def test_a_spoiled_manifest_does_not(name: str, spoil: Callable[[Any], None]) -> None:
    document = copy.deepcopy(manifest(name))
    spoil(document)
    with pytest.raises(jsonschema.ValidationError):
        validate(document)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_mounts_what_it_declares_and_holds_no_secret(name: str) -> None:
    document = manifest(name)
    for pod, container in containers(document):
        declared = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= declared
        for variable in container.get("env", ()):
            secret = any(word in variable["name"] for word in ("TOKEN", "PASSWORD", "SECRET", "KEY"))
            assert ("valueFrom" in variable) == secret, variable["name"]
    assert len({container["image"] for _, container in containers(document)}) == 1


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_node_of_a_manifest_has_the_same_world(name: str) -> None:
    head, *workers = pods(manifest(name))
    for worker in workers:
        for field in ("env", "envFrom"):
            assert worker["containers"][0][field] == head["containers"][0][field]
        for field in ("serviceAccountName", "securityContext"):
            assert worker[field] == head[field]
    for mount in ({"name": "shared", "mountPath": "/shared"}, {"name": "scratch", "mountPath": "/scratch"}):
        assert all(mount in pod["containers"][0]["volumeMounts"] for pod in (head, *workers))


def groups(document: Any) -> dict[str, Any]:
    """Each group by its name, the head's under "head"."""
    cluster = ray_cluster(document)
    return {"head": cluster["headGroupSpec"]} | {group["groupName"]: group for group in cluster["workerGroupSpecs"]}


@pytest.mark.parametrize(
    ("name", "holder"),
    [("raycluster", "head"), ("rayjob", "head"), ("rayservice", "http"), ("rayservice-redis", "http")],
)
def test_the_master_key_is_only_where_somebody_needs_it(name: str, holder: str) -> None:
    """Training workers never do: who resolves ids or signs runs with the scheduler, or takes deletions by HTTP."""
    mounted = {
        group
        for group, spec in groups(manifest(name)).items()
        if "s3t-keys" in json.dumps(spec["template"]) or "/keys" in json.dumps(spec["template"])
    }
    assert mounted == {holder}


@pytest.mark.parametrize("name", MANIFESTS)
def test_scratch_has_a_volume_and_every_container_says_what_it_writes_beside_it(name: str) -> None:
    for pod, container in containers(manifest(name)):
        assert "ephemeral-storage" in container["resources"]["requests"]
        if container in pod["containers"]:
            environment = {variable["name"]: variable.get("value") for variable in container["env"]}
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            (volume,) = [v for v in pod["volumes"] if v["name"] == mounts[environment["TMPDIR"]]]
            claim = volume["ephemeral"]["volumeClaimTemplate"]["spec"]
            assert int(claim["resources"]["requests"]["storage"].removesuffix("Gi")) >= 10
            assert environment["RAY_TMPDIR"] == "/tmp", "the operator's sidecar reads Ray's logs there"


def autoscaler_groups(name: str) -> dict[str, Any]:
    """What Ray's own autoscaler for KubeRay makes of a manifest: resources of a node of each group."""
    producer: Any = import_module("ray.autoscaler._private.kuberay.autoscaling_config")
    cluster = {"metadata": {"name": "s3t", "namespace": "default"}, "spec": ray_cluster(manifest(name))}
    types = producer._derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    return {group: kind["resources"] for group, kind in types.items()}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_run_that_names_its_kind_of_gpu_gets_a_node(name: str) -> None:
    config = load_config("llama-2-13b", ("workers.accelerator=A100", "workers.gpus_per_rank=1", "workers.groups=1"))
    assert "accelerator_type:A100" in bundles(config)[0]
    found = autoscaler_groups(name)
    assert room(config, [found["gpu"]]) == 1, "its autoscaler would not know that a node of this group helps"
    assert room(config, [resources for group, resources in found.items() if group != "gpu"]) == 0


@pytest.mark.parametrize("name", SERVICES)
def test_no_replica_lands_on_the_head_or_two_on_one_node(name: str) -> None:
    schema: Any = import_module("ray.serve.schema")
    deployed = schema.ServeDeploySchema.model_validate(yaml.safe_load(manifest(name)["spec"]["serveConfigV2"]))
    found = {one.name: one for each in deployed.applications for one in each.deployments}
    assert found.keys() == deployments()
    holders = autoscaler_groups(name)
    for deployment in found.values():
        options = deployment.ray_actor_options
        needed = {"CPU": options.num_cpus, **options.resources}
        fits = {g for g, has in holders.items() if all(has.get(r, 0) >= amount > 0 for r, amount in needed.items())}
        assert fits == {"http"}
    assert found["ModelService"].max_replicas_per_node == 1


def deployments() -> set[str]:
    """Names of the deployments of our application: Serve refuses a config that names another."""
    source = ast.parse((ROOT / "s3t_ray" / "serve" / "app.py").read_text())
    calls = [n for n in ast.walk(source) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "options"]
    names = [word.value for call in calls for word in call.keywords if word.arg == "name"]
    return {str(ast.literal_eval(name)) for name in names}


def test_the_service_with_redis_is_the_other_one_and_redis() -> None:
    plain, redis = manifest("rayservice"), manifest("rayservice-redis")
    options = redis["spec"]["rayClusterConfig"].pop("gcsFaultToleranceOptions")
    assert options["redisAddress"] and "valueFrom" in options["redisPassword"]
    for pod in pods(redis):
        (container,) = pod["containers"]
        added = [v for v in container["env"] if v["name"] == "RAY_gcs_rpc_server_reconnect_timeout_s"]
        assert len(added) == 1
        container["env"] = [v for v in container["env"] if v not in added]
    assert redis == plain


@pytest.mark.parametrize("name", MANIFESTS)
def test_what_a_manifest_needs_is_explained(name: str) -> None:
    text = (ROOT / "docs" / "cluster.md").read_text()
    document = manifest(name)
    named = {
        v["persistentVolumeClaim"]["claimName"]
        for p in pods(document)
        for v in p["volumes"]
        if len(v) == 2 and "persistentVolumeClaim" in v
    }
    named |= {v["secret"]["secretName"] for p in pods(document) for v in p["volumes"] if "secret" in v}
    named |= {v["configMap"]["name"] for p in pods(document) for v in p["volumes"] if "configMap" in v}
    named |= {source["secretRef"]["name"] for _, c in containers(document) for source in c.get("envFrom", ())}
    named |= {
        v["valueFrom"]["secretKeyRef"]["name"]
        for _, c in containers(document)
        for v in c.get("env", ())
        if "valueFrom" in v
    }
    assert len(named) >= 4
    if "gcsFaultToleranceOptions" in ray_cluster(document):
        named.add(
            ray_cluster(document)["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]["name"]
        )
    assert {name for name in named if name not in text} == set()


def test_the_versions_are_those_of_the_constraints() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert {ray_cluster(manifest(name))["rayVersion"] for name in MANIFESTS} == {pins["ray"]}


def test_who_asks_for_nodes_gets_them_up_to_a_bound() -> None:
    for name in MANIFESTS:
        spec = ray_cluster(manifest(name))
        group = groups(manifest(name))["gpu"]
        assert 0 < group["maxReplicas"] <= 4
        if name in SERVICES:
            assert "enableInTreeAutoscaling" not in spec, "healing does not wait for a node"
            assert group["minReplicas"] == group["replicas"] == group["maxReplicas"]
        else:
            assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["idleTimeoutSeconds"] > 0
            assert group["minReplicas"] == group["replicas"] == 0
    for name in LAUNCHERS:
        document = yaml.safe_load((CLUSTER / "ray-up" / f"{name}.yaml").read_text())
        workers = document["available_node_types"]["gpu"]
        assert (workers["min_workers"], workers["max_workers"]) == (0, document["max_workers"])
        assert document["idle_timeout_minutes"] > 0


def test_the_job_runs_a_script_of_ours() -> None:
    command, script, *_ = manifest("rayjob")["spec"]["entrypoint"].split()
    assert command == "python" and script.startswith("/app/")
    assert (ROOT / script.removeprefix("/app/")).is_file()


def test_the_service_deploys_an_application_of_ours() -> None:
    serving = yaml.safe_load(manifest("rayservice")["spec"]["serveConfigV2"])
    assert {each["route_prefix"] for each in serving["applications"]} == {"/", "/v1", "/v1/deletions"}
    for application in serving["applications"]:
        assert callable(getattr(import_module("s3t_ray.serve.app"), application["import_path"].partition(":")[2]))
        assert ServiceSettings.model_validate(application["args"]).replicas == 2
    head = pods(manifest("rayservice"))[0]["containers"][0]
    assert {"S3T_SERVE_TOKEN", "S3T_DELETE_TOKEN"} <= {variable["name"] for variable in head["env"]}
    assert serving["http_options"]["port"] in {port["containerPort"] for port in head["ports"]}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_launcher_file_fits_rays_own_schema(name: str) -> None:
    document = yaml.safe_load((CLUSTER / "ray-up" / f"{name}.yaml").read_text())
    jsonschema.validate(document, launcher_schema())
    assert document["head_node_type"] in document["available_node_types"]
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token" in " ".join(document[commands])
    assert not [path for path in document["file_mounts"] if "keys" in path], "file_mounts reach every node"
    assert "*.keys/**" in document["rsync_exclude"], "nor do keys that lie in the project's folder"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "head_node": "head"}, launcher_schema())


def test_where_ray_starts_its_proxies_collect_bodies() -> None:
    told = f"{CALLBACK}={CALLBACK_PATH}"
    for name, times in (("Dockerfile", 1), ("slurm.sh", 1), ("ray-up/aws.yaml", 2), ("ray-up/gcp.yaml", 2)):
        assert (CLUSTER / name).read_text().count(told) == times, name
    assert told in (ROOT / "docs" / "cluster.md").read_text()


def test_the_slurm_script_is_a_script() -> None:
    subprocess.run(["bash", "-n", CLUSTER / "slurm.sh"], check=True, timeout=60)


def test_the_image_gets_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    allowed = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" in lines
    copied = {
        word.removeprefix("./")
        for line in (CLUSTER / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY")
        for word in line.split()[1:-1]
    }
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
