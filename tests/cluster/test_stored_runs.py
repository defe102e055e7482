"""A RayJob whose run file is in a bucket."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from committed import CLUSTER, PROJECT, RUN_FILE, changed, document, documents_of
from local_buckets import local_bucket
from typer.testing import CliRunner

from asclepius_ray.artifacts import Folder
from asclepius_ray.cli import app
from asclepius_ray.launch.cluster.validation.validating import Knowledge, validate
from asclepius_ray.launch.cluster.yaml_text import Json, load_documents

PROFILE = str(CLUSTER / "profiles" / "kubernetes.toml")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with local_bucket("stored-runs") as uri:
        text = (PROJECT / RUN_FILE).read_text() + '\n[judge.headers]\nX-Team = "clinical"\n'
        Folder(uri.format("")).write_bytes("llama3-8b.toml", text.encode())
        yield uri.format("llama3-8b.toml")


def _call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["cluster", *arguments])
    return done.exit_code, done.output


def _rendered(address: str, target: str) -> list[Json]:
    code, text = _call("render", PROFILE, "--to", target, "--run", address)
    assert code == 0, text
    return load_documents(text, "what is rendered")


def test_the_job_names_the_address_and_no_configmap_is_there(address: str) -> None:
    documents = _rendered(address, "rayjob")
    kinds = [one["kind"] for one in documents]
    assert "ConfigMap" not in kinds
    assert kinds[-1] == "RayJob"
    spec = documents[-1]["spec"]
    assert spec["entrypoint"] == (
        f"python /opt/asclepius-ray/jobs/pipeline.py '{address}' --set root=/data/llama3-8b "
        "--set input.path=/data/PMC-Patients.csv"
    )
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        assert [volume["name"] for volume in pod["volumes"] if "configMap" in volume] == []
        assert [mount["name"] for mount in pod["containers"][0]["volumeMounts"]] == ["data"]


def test_what_is_rendered_is_valid_and_says_that_the_run_was_not_looked_at(
    address: str, tmp_path: Path
) -> None:
    out = str(tmp_path / "job.yaml")
    assert _call("render", PROFILE, "--to", "rayjob", "--run", address, "--out", out)[0] == 0
    code, said = _call("validate", out, "--profile", PROFILE)
    assert (code, "give it with --run" in said) == (0, True), said
    code, said = _call("validate", out, "--profile", PROFILE, "--run", address)
    assert (code, "--run" in said) == (0, False), said


def test_a_service_of_such_a_run_is_the_same_as_of_the_file_here(address: str) -> None:
    service = _rendered(address, "rayservice")[-1]
    assert service == document("rayservice.yaml", "RayService")


def test_an_address_in_no_bucket_is_found_and_its_query_not_repeated() -> None:
    entrypoint = document("rayjob.yaml", "RayJob")["spec"]["entrypoint"]
    stored = entrypoint.replace("/etc/asclepius/run.toml", "'https://host/run.toml?sig=secret-value'")
    assert stored != entrypoint
    documents = changed(documents_of("rayjob.yaml"), "rayjob.yaml", "RayJob", [("spec/entrypoint", stored)])
    findings = validate(documents, Knowledge()).findings
    assert {"run-file-seen", "secrets-by-name"} <= {finding.rule for finding in findings}
    assert "secret-value" not in " ".join(map(str, findings))
