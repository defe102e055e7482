"""The queues of cluster/queues/README.md are those that the jobs beside it name, and have room for them."""

import re

import pytest
import yaml
from committed import CLUSTER, document

from asclepius_ray.launch.cluster.validation.manifests import Document, Group, RayResource
from asclepius_ray.launch.cluster.yaml_text import Json, load_documents

UNITS = {"cpu": "cpu", "memory": "memory", "nvidia.com/gpu": "nvidia.com/gpu", "vcore": "cpu"}
README = (CLUSTER / "queues" / "README.md").read_text()
EXAMPLES = [
    found
    for text in re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    for found in load_documents(text, "it")
]


def _example(kind: str) -> Json:
    (found,) = [one for one in EXAMPLES if one["kind"] == kind]
    return found


def _job(system: str) -> RayResource:
    file = f"queues/{system}.yaml"
    return RayResource(Document(file, document(file, "RayJob")))


def _asked(job: RayResource) -> dict[str, int]:
    """What all nodes of a job ask for at the most; memory in GiB."""
    total = dict.fromkeys(("cpu", "memory", "nvidia.com/gpu"), 0)
    for group in job.groups:
        for name, number in _of_one_node(group).items():
            total[name] += number * group.most
    return total


def _of_one_node(group: Group) -> dict[str, int]:
    requests = group.ray_container["resources"]["requests"]
    return {name: int(str(amount).removesuffix("Gi")) for name, amount in requests.items()}


def _has_room(quota: dict[str, object], job: RayResource) -> bool:
    room = {UNITS[name]: int(str(amount).removesuffix("Gi")) for name, amount in quota.items()}
    asked = _asked(job)
    assert asked["nvidia.com/gpu"] == 8
    assert asked["cpu"] > 32
    return set(room) == set(asked) and all(room[name] >= number for name, number in asked.items())


def test_kueue_s_local_queue_is_the_job_s_and_its_cluster_queue_has_room() -> None:
    job, local, queue = _job("kueue"), _example("LocalQueue"), _example("ClusterQueue")
    labels = job.document.value["metadata"]["labels"]
    assert labels == {"kueue.x-k8s.io/queue-name": local["metadata"]["name"]}
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    (group,) = queue["spec"]["resourceGroups"]
    (flavor,) = group["flavors"]
    assert flavor["name"] == _example("ResourceFlavor")["metadata"]["name"]
    quota = {one["name"]: one["nominalQuota"] for one in flavor["resources"]}
    assert group["coveredResources"] == list(quota)
    assert _has_room(quota, job)


def test_volcano_s_queue_and_priority_are_the_job_s_and_the_queue_has_room() -> None:
    job, queue = _job("volcano"), _example("Queue")
    labels = job.document.value["metadata"]["labels"]
    assert labels["volcano.sh/queue-name"] == queue["metadata"]["name"]
    assert labels["ray.io/priority-class-name"] == _example("PriorityClass")["metadata"]["name"]
    assert _has_room(queue["spec"]["capability"], job)


def test_yunikorn_s_queue_is_the_job_s_and_has_room() -> None:
    job = _job("yunikorn")
    configuration = yaml.safe_load(_example("ConfigMap")["data"]["queues.yaml"])
    (root,) = configuration["partitions"][0]["queues"]
    (queue,) = root["queues"]
    labels = job.document.value["metadata"]["labels"]
    assert labels["yunikorn.apache.org/queue"] == f"{root['name']}.{queue['name']}"
    assert labels["ray.io/gang-scheduling-enabled"] == "true"
    assert _has_room(queue["resources"]["max"], job)


@pytest.mark.parametrize("resource", ["cpu", "memory", "nvidia.com/gpu"])
def test_a_queue_that_is_too_small_is_seen(resource: str) -> None:
    capability = _example("Queue")["spec"]["capability"]
    assert not _has_room({**capability, resource: 7}, _job("volcano"))
