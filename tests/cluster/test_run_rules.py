"""A RayService and a job's keys held against the run that is given beside the files."""

import pytest
from committed import PROJECT, RUN_FILE, changed, documents_of
from seeds import JOB_HEAD, JOB_SPEC, SERVE_CONFIG

from asclepius_ray.launch.cluster.validation.manifests import Document
from asclepius_ray.launch.cluster.validation.started import RunText
from asclepius_ray.launch.cluster.validation.validating import Knowledge, Report, validate

RUN = (PROJECT / RUN_FILE).read_text()
OTHER = (PROJECT / "jobs/runs/asclepius-7b.toml").read_text()
ROOT = 'root = "runs/llama3-8b"'
assert ROOT in RUN


def _service_alone(run: str, config: str = SERVE_CONFIG) -> list[str]:
    """The rules that a RayService breaks without a job beside it, and where the service's is broken."""
    changes = [("spec/serveConfigV2", config)]
    documents = changed(documents_of("rayservice.yaml"), "rayservice.yaml", "RayService", changes)
    alone = [one for one in documents if one.file != "rayjob.yaml"]
    found = validate(alone, Knowledge(run=RunText(run, "the run file"))).findings
    return [f"{one.rule} {one.path}" for one in found]


MODEL = "service-serves-run spec.serveConfigV2.applications[0].args.model"


def test_a_service_of_another_run_than_the_one_that_is_given_is_found() -> None:
    assert _service_alone(OTHER) == [MODEL]
    assert _service_alone(RUN.replace(ROOT, 'root = "s3://runs/other"')) == [MODEL]
    assert _service_alone(RUN.replace(ROOT, 'root = "/data/other"')) == [MODEL]
    assert _service_alone(RUN.replace("[serving]", '[serving]\nmodel = "s3://models/other"')) == [MODEL]
    assert _service_alone(RUN, SERVE_CONFIG.replace("llama3-8b", "other")) == [MODEL]


def _serving(model: str, name: str = "llama3-8b") -> str:
    served = SERVE_CONFIG.replace("/data/llama3-8b/model", model)
    return served.replace("name: llama3-8b", f"name: {name}")


@pytest.mark.parametrize(
    ("run", "config"),
    [
        (RUN, SERVE_CONFIG),
        (RUN, _serving("s3://runs/llama3-8b/model?scheme=http")),
        (RUN, _serving("s3://runs/second/model")),
        (RUN, _serving("/data/llama3-8b/model", "ward")),
        (RUN.replace(ROOT, 'root = "s3://runs/a"'), _serving("s3://runs/a/model")),
        (RUN.replace("[serving]", '[serving]\nmodel = "models/a"'), _serving("/data/a", "ward")),
    ],
    ids=["as rendered", "bucket", "another root", "another name", "a root in a bucket", "a model of its own"],
)
def test_a_service_of_the_run_that_is_given_is_no_mistake(run: str, config: str) -> None:
    assert _service_alone(run, config) == []


def _job_with_a_whole_secret(source: str) -> Report:
    documents: list[Document] = documents_of("rayjob.yaml")
    for group in (JOB_HEAD, *(f"{JOB_SPEC}/workerGroupSpecs/{number}" for number in (0, 1))):
        container = f"{group}/template/spec/containers/0"
        variables = [
            variable for variable in _at(documents, f"{container}/env") if "valueFrom" not in variable
        ]
        changes = [
            (f"{container}/env", variables),
            (f"{container}/envFrom", [{source: {"name": "asclepius-keys"}}]),
        ]
        documents = changed(documents, "rayjob.yaml", "RayJob", changes)
    return validate(documents, Knowledge(run=RunText(RUN, RUN_FILE)))


def _at(documents: list[Document], path: str) -> list[dict[str, object]]:
    (place,) = [one.value for one in documents if one.kind == "RayJob"]
    for part in path.split("/"):
        place = place[int(part)] if isinstance(place, list) else place[part]
    assert isinstance(place, list)
    return place


def test_a_secret_that_is_taken_whole_may_hold_every_key_and_what_it_should_hold_is_said() -> None:
    report = _job_with_a_whole_secret("secretRef")
    assert [str(finding) for finding in report.findings] == []
    (head, *_) = [line for line in report.unchecked if line.startswith("keys of")]
    assert "the secret asclepius-keys holds OPENAI_API_KEY" in head


def test_a_configmap_that_is_taken_whole_is_no_secret() -> None:
    assert {one.rule for one in _job_with_a_whole_secret("configMapRef").findings} == {"keys-present"}
