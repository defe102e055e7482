"""The files of cluster/ are what their profiles are rendered to, and break no rule."""

import re
from pathlib import Path

import pytest
import yaml
from committed import CLUSTER, FILES, KINDS, PROJECT, RUN_FILE, document, documents_of, profile_of
from ray.serve.schema import ServeDeploySchema
from typer.testing import CliRunner

from asclepius_ray.cli import app
from asclepius_ray.config import parse_section
from asclepius_ray.launch.cluster.validation.manifests import Document, RayResource
from asclepius_ray.launch.cluster.validation.started import RunText, find_run_text, parse_entrypoint
from asclepius_ray.launch.cluster.validation.validating import Knowledge, Report, validate
from asclepius_ray.run import parse_run
from asclepius_ray.serving.config import ServingConfig


@pytest.mark.parametrize("file", FILES)
def test_a_committed_file_is_what_its_profile_is_rendered_to(
    file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    committed = FILES[file]
    arguments = [f"cluster/profiles/{committed.profile}.toml", "--to", committed.target]
    arguments += ["--run", committed.run] if committed.run else []
    done = CliRunner().invoke(app, ["cluster", "render", *arguments])
    assert done.exit_code == 0, done.output
    command = " ".join(["asclepius cluster render", *arguments, "--out", f"cluster/{file}"])
    assert done.stdout == (CLUSTER / file).read_text(), f"render it anew: {command}"


WRITTEN_BY_HAND = "prometheus/"
"""What is the same for every profile, and tested where the alerts are."""


def test_every_file_of_the_cluster_is_one_that_is_rendered() -> None:
    names = {path.relative_to(CLUSTER).as_posix() for path in CLUSTER.rglob("*.yaml")}
    assert {name for name in names if not name.startswith(WRITTEN_BY_HAND)} == set(FILES)


def _report(file: str, crds: str = "") -> Report:
    run = (PROJECT / RUN_FILE).read_text()
    return validate(documents_of(file), Knowledge(profile_of(file), RunText(run, RUN_FILE), crds))


@pytest.mark.parametrize("file", FILES)
def test_a_committed_file_breaks_no_rule_and_all_but_kuberay_s_schemas_is_looked_at(file: str) -> None:
    report = _report(file)
    assert [str(finding) for finding in report.findings] == []
    assert [line for line in report.unchecked if "--crds" not in line] == []


@pytest.mark.parametrize("file", FILES)
def test_a_committed_file_fits_kuberay_s_schemas_and_all_of_it_is_looked_at(
    file: str, shared_data: Path
) -> None:
    report = _report(file, str(shared_data / "kuberay-crds"))
    assert [str(finding) for finding in report.findings] == []
    assert report.unchecked == []


def test_every_job_that_a_file_of_the_cluster_names_exists() -> None:
    named = {
        found
        for path in (*CLUSTER.rglob("*.yaml"), *CLUSTER.rglob("*.md"))
        for found in re.findall(r"jobs/[\w./-]+\.(?:py|toml)", path.read_text())
    }
    assert "jobs/pipeline.py" in named
    assert [name for name in named if not (PROJECT / name).is_file()] == []


def test_no_file_of_the_cluster_sends_a_folder_of_this_machine() -> None:
    for file in ("aws.yaml", "gcp.yaml"):
        mounted = document(file, "launcher")["file_mounts"]
        assert all(source.startswith("~/") for source in mounted.values())
    for file, kind in KINDS.items():
        assert "working_dir" not in str(document(file, kind))


def test_the_rayjob_reads_the_run_file_as_it_is_and_lives_on_the_volume() -> None:
    documents = documents_of("rayjob.yaml")
    (job,) = [RayResource(one) for one in documents if one.kind == "RayJob"]
    text = find_run_text(job, documents)
    assert text is not None
    assert text.text == (PROJECT / RUN_FILE).read_text()
    entrypoint = parse_entrypoint(job.spec["entrypoint"])
    assert entrypoint is not None
    run = parse_run(text.text, "the ConfigMap", list(entrypoint.overrides))
    assert run.root == "/data/llama3-8b"
    assert run.input.path == "/data/PMC-Patients.csv"


def test_the_rayservice_s_application_is_one_that_serve_and_this_package_take() -> None:
    from asclepius_ray.serving.application import build_application
    from asclepius_ray.serving.application_settings import ApplicationSettings

    configuration = yaml.safe_load(document("rayservice.yaml", "RayService")["spec"]["serveConfigV2"])
    (application,) = ServeDeploySchema.model_validate(configuration).applications
    assert application.import_path == f"{build_application.__module__}:{build_application.__name__}"
    assert ApplicationSettings.model_validate(application.args).serving.use_gpu


def test_a_cluster_that_stays_starts_its_head_alone_and_a_service_its_pods_for_its_replicas() -> None:
    for file in ("raycluster.yaml", "rayservice.yaml"):
        resource = RayResource(Document(file, document(file, KINDS[file])))
        assert {(group.value["replicas"], group.value["minReplicas"]) for group in resource.workers} == {
            (0, 0)
        }
    # Replicas without a node make the autoscaler start one.
    assert resource.cluster["enableInTreeAutoscaling"] is True
    (application,) = yaml.safe_load(resource.spec["serveConfigV2"])["applications"]
    fewest = parse_section(ServingConfig, application["args"]["serving"], "serving").replicas.fewest
    assert 1 <= fewest <= max(group.value["maxReplicas"] for group in resource.workers)


def test_every_budget_of_a_head_selects_the_head_of_its_own_resource_alone() -> None:
    for file, kind in KINDS.items():
        name = f"{document(file, kind)['metadata']['name']}-head"
        wanted = document(file, f"PodDisruptionBudget/{name}")["spec"]["selector"]["matchLabels"]
        for other, other_kind in KINDS.items():
            resource = RayResource(Document(other, document(other, other_kind)))
            selected = [wanted.items() <= group.labels.items() for group in resource.groups]
            assert selected == [other == file, *(False for _ in resource.workers)], (kind, other)


def test_ray_has_the_pinned_version() -> None:
    (pinned,) = re.findall(r"^ray==(\S+)$", (PROJECT / "constraints.txt").read_text(), re.MULTILINE)
    for file, kind in KINDS.items():
        resource = RayResource(Document(file, document(file, kind)))
        assert resource.cluster["rayVersion"] == pinned
