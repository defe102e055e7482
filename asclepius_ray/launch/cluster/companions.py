"""What stands beside a Ray resource: the volume, the run file, the disruption budgets. Pure."""

from asclepius_ray.launch.cluster.pods import labels_of
from asclepius_ray.launch.cluster.storage_sections import VolumeSection
from asclepius_ray.launch.cluster.yaml_text import Json

RUN_FILE_KEY = "run.toml"


def volume_claim(volume: VolumeSection) -> Json:
    """The claim of the volume that holds all runs; a file of its own, so that no job takes it along."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": volume.claim},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": volume.storage_class,
            "resources": {"requests": {"storage": f"{volume.size_gib}Gi"}},
        },
    }


def run_config(name: str, run_text: str) -> Json:
    """The run file for the pods to mount, byte for byte."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name},
        "data": {RUN_FILE_KEY: run_text},
    }


def head_budget(resource: str) -> Json:
    """Keeps the head, with the driver and the cluster's state: a node that is drained waits for it."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": f"{resource}-head"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": labels_of(resource, "head")}},
    }


def serving_budget(resource: str, fewest: int) -> Json:
    """Keeps the fewest pods that serve less one, and at least one; what came for the load may all go.

    Kubernetes counts a budget of maxUnavailable against a number of replicas that it cannot read of KubeRay's
    resources, and would then let go of none: so it is the number that stays.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": f"{resource}-serving"},
        "spec": {
            "minAvailable": max(1, fewest - 1),
            "selector": {"matchLabels": labels_of(resource, "worker")},
        },
    }
