"""What Kubernetes and the KubeRay operator refuse, checked without either of them.

The schema is that of the custom resource, as strict as `kubectl --validate=strict`. The rules are the
operator's own: the API server takes what the operator later rejects.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator

Json = dict[str, Any]
CLUSTER_KEYS = {"RayJob": "rayClusterSpec", "RayService": "rayClusterConfig"}
UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
MAX_NAME_CHARACTERS = 47
RESOURCE_PARAMETERS = ("num-cpus", "num-gpus", "memory", "resources")


def load_schema(folder: Path, kind: str) -> Json:
    """The resource's schema for v1, made strict; of the metadata Kubernetes itself takes care."""
    path = folder / f"ray.io_{kind.lower()}s.yaml"
    definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    (version,) = [found for found in definition["spec"]["versions"] if found["name"] == "v1"]
    schema: Json = version["schema"]["openAPIV3Schema"]
    schema["properties"]["metadata"] = {"type": "object"}
    _make_strict(schema)
    return schema


def schema_errors(manifest: Json, schema: Json) -> list[str]:
    """One line for each place that does not fit."""
    _apply_defaults(manifest, schema)
    errors = Draft7Validator(schema).iter_errors(manifest)
    return sorted(f"{'.'.join(map(str, error.absolute_path))}: {error.message}" for error in errors)


def broken_rules(manifest: Json) -> list[str]:
    """The operator's own refusals."""
    kind, spec = manifest["kind"], manifest["spec"]
    found = list(_job_rules(spec) if kind == "RayJob" else _service_rules(spec))
    name = manifest["metadata"]["name"]
    if len(name) > MAX_NAME_CHARACTERS or not name.replace("-", "a").isalnum() or not name[0].isalpha():
        found.append(f"metadata.name {name!r} is not a DNS label of {MAX_NAME_CHARACTERS} characters")
    if CLUSTER_KEYS[kind] in spec:
        found += list(_cluster_rules(spec[CLUSTER_KEYS[kind]]))
    return found


def groups_of(cluster: Json) -> list[Json]:
    """The head's group and the workers', each with a pod template."""
    return [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]


def environment_of(group: Json) -> dict[str, Any]:
    """The Ray container's variables: a value, or where it comes from."""
    (container,) = _pod(group)["containers"][:1] or [{}]
    variables = container.get("env", [])
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in variables}


def _job_rules(spec: Json) -> Iterator[str]:
    shuts_down = spec.get("shutdownAfterJobFinishes", False)
    deletion = spec.get("deletionStrategy", {})
    mode, cluster = spec.get("submissionMode", "K8sJobMode"), spec.get("rayClusterSpec")
    is_sidecar = mode == "SidecarMode"
    head_restarts = cluster and _pod(cluster["headGroupSpec"]).get("restartPolicy", "Never") != "Never"
    other_deletion = shuts_down or {"onSuccess", "onFailure"} & set(deletion)
    deadlines = [spec.get(key, 1) for key in ("activeDeadlineSeconds", "preRunningDeadlineSeconds")]
    yield from _complaints(
        {
            "exactly one of rayClusterSpec and clusterSelector": (cluster is None)
            == ("clusterSelector" not in spec),
            "ttlSecondsAfterFinished needs shutdownAfterJobFinishes": spec.get("ttlSecondsAfterFinished", 0)
            > 0
            and not shuts_down,
            "deletionRules exclude shutdownAfterJobFinishes, onSuccess and onFailure": "deletionRules"
            in deletion
            and other_deletion,
            "backoffLimit does not go with clusterSelector or InteractiveMode": spec.get("backoffLimit")
            and ("clusterSelector" in spec or mode == "InteractiveMode"),
            "suspend needs shutdownAfterJobFinishes": spec.get("suspend") and not shuts_down,
            "deadlines are positive": min(deadlines) <= 0,
            "SidecarMode has no submitter of its own": is_sidecar
            and {"submitterPodTemplate", "submitterConfig"} & set(spec),
            "SidecarMode needs the head's restartPolicy Never": is_sidecar and head_restarts,
        }
    )


def _service_rules(spec: Json) -> Iterator[str]:
    head = spec["rayClusterConfig"]["headGroupSpec"]
    yield from _complaints(
        {
            "headService.metadata.name cannot be set": "name"
            in head.get("headService", {}).get("metadata", {}),
            f"upgradeStrategy.type is one of {UPGRADES}": spec.get("upgradeStrategy", {}).get("type", "None")
            not in UPGRADES,
        }
    )


def _cluster_rules(cluster: Json) -> Iterator[str]:
    autoscales = cluster.get("enableInTreeAutoscaling", False)
    yield from _complaints(
        {
            "authOptions.mode must be written as token": cluster.get("authOptions", {}).get("mode")
            != "token",
            "token authentication needs Ray 2.52": tuple(map(int, cluster["rayVersion"].split(".")))
            < (2, 52, 0),
        }
    )
    for group in groups_of(cluster):
        name, parameters = group.get("groupName", "head"), group.get("rayStartParams", {})
        own_resources = group.get("resources") and set(RESOURCE_PARAMETERS) & set(parameters)
        found = {
            "a Ray container is required": not _pod(group).get("containers"),
            "labels do not go into rayStartParams": "labels" in parameters,
            "resources stand in rayStartParams or in resources, not in both": own_resources,
        }
        found |= _autoscaled_rules(group) if autoscales else {}
        found |= _worker_rules(group, autoscales) if name != "head" else {}
        yield from (f"{name}: {line}" for line in _complaints(found))


def _autoscaled_rules(group: Json) -> dict[str, object]:
    return {
        "autoscaler v2 needs restartPolicy Never": _pod(group).get("restartPolicy", "Never") != "Never",
        "the autoscaler and suspend do not go together": group.get("suspend"),
        "idleTimeoutSeconds is not negative": group.get("idleTimeoutSeconds", 0) < 0,
        "the autoscaler's version stands in autoscalerOptions alone": "RAY_enable_autoscaler_v2"
        in environment_of(group),
    }


def _worker_rules(group: Json, autoscales: bool) -> dict[str, object]:
    without_limits = not autoscales and not {"minReplicas", "maxReplicas"} <= set(group)
    return {
        "without an autoscaler minReplicas and maxReplicas are required": without_limits,
        "minReplicas is above maxReplicas": group.get("minReplicas", 0)
        > group.get("maxReplicas", group.get("minReplicas", 0)),
    }


def _complaints(broken: dict[str, object]) -> list[str]:
    return [rule for rule, is_broken in broken.items() if is_broken]


def _pod(group: Json) -> Json:
    spec: Json = group["template"]["spec"]
    return spec


def _make_strict(node: object) -> None:
    if isinstance(node, list):
        for child in node:
            _make_strict(child)
    if not isinstance(node, dict):
        return
    if node.get("x-kubernetes-int-or-string"):
        node.pop("type", None)
        node["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if isinstance(node.get("properties"), dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    for child in node.values():
        _make_strict(child)


def _apply_defaults(value: object, schema: Json) -> None:
    if isinstance(value, list):
        for item in value:
            _apply_defaults(item, schema.get("items", {}))
    if not isinstance(value, dict):
        return
    for name, inner in schema.get("properties", {}).items():
        if value.get(name) is None and "default" in inner:
            value[name] = inner["default"]
        elif name in value and value[name] is None:
            del value[name]
        elif name in value:
            _apply_defaults(value[name], inner)
