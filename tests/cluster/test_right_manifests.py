"""What is as right as the committed files, and written otherwise, is no mistake."""

import pytest
from committed import changed, documents_of
from seeds import HEAD_POD, JOB_SPEC, WORKER_POD

from asclepius_ray.launch.cluster.validation.reading import amount
from asclepius_ray.launch.cluster.validation.validating import Knowledge, validate

REQUESTS = f"{WORKER_POD}/containers/0/resources/requests"
PODS = [HEAD_POD, *(f"{JOB_SPEC}/workerGroupSpecs/{place}/template/spec" for place in (0, 1))]
NFS = {"nfs": {"server": "10.0.0.2", "path": "/runs"}}
CSI = {"csi": {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": {"bucketName": "runs"}}}


@pytest.mark.parametrize(
    "changes",
    [
        [(f"{REQUESTS}/cpu", 32)],
        [(f"{REQUESTS}/cpu", "32000m"), (f"{REQUESTS}/memory", "524288Mi")],
        [(REQUESTS, {})],
        [(f"{HEAD_POD}/nodeSelector", {"cloud.google.com/gke-spot": "false"})],
        [(f"{HEAD_POD}/tolerations", [{"key": "spot", "operator": "Equal", "value": "false"}])],
        [(f"{pod}/volumes/0", {"name": "data", **NFS}) for pod in PODS],
        [(f"{pod}/volumes/0", {"name": "data", **CSI}) for pod in PODS],
    ],
    ids=["number", "units", "limits alone", "no spot node", "no spot taint", "nfs", "csi"],
)
def test_what_is_right_in_other_words_is_no_mistake(changes: list[tuple[str, object]]) -> None:
    documents = changed(documents_of("rayjob.yaml"), "rayjob.yaml", "RayJob", changes)
    assert [str(finding) for finding in validate(documents, Knowledge()).findings] == []


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("500m", 0.5),
        ("100m", 0.1),
        (8, 8),
        ("2k", 2000),
        ("1Ki", 1024),
        ("1.5Gi", 1.5 * 1024**3),
        ("1e3", 1000),
        ("1E", 1e18),
        ("12E6", 12e6),
        ("", 0),
        ("many", 0),
        ("inf", 0),
        ("nan", 0),
        (None, 0),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(written: object, number: float) -> None:
    assert amount(written) == number
