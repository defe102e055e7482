"""The guide, cluster/README.md: what it says to type works, and what it names is there.

What Ray on one machine is enough for runs in tests/drills/test_guide_on_one_machine.py.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from committed import CLUSTER, PROJECT
from guide import (
    ELSEWHERE,
    LANGUAGES,
    ON_ONE_MACHINE,
    TEXT,
    WITHOUT_RAY,
    Command,
    blocks,
    commands,
    commands_of,
    languages,
    prose,
)
from guide_commands import complaints
from ray.dashboard.utils import ray_address_to_api_server_url
from report.evaluation_scores import sound_scores, write_evaluation
from typer.testing import CliRunner

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.cli import app
from asclepius_ray.launch.cluster.kuberay import RunFile
from asclepius_ray.launch.cluster.profile import Profile
from asclepius_ray.launch.cluster.rendering import render
from asclepius_ray.launch.cluster.validation.manifests import Document
from asclepius_ray.launch.cluster.validation.started import RunText
from asclepius_ray.launch.cluster.validation.validating import RULES, Knowledge, validate
from asclepius_ray.run import load_run
from asclepius_ray.synthesis.stage import JOURNAL_NAME

RUN_FILE = "jobs/runs/asclepius-7b.toml"
DEFINITIONS = PROJECT.parent / "shared" / "data" / "kuberay-crds"
"""KubeRay's, which not everybody has."""
QUICKSTART = "runs/quickstart"
DASHBOARD = "http://127.0.0.1:8265"
WITHOUT_DEFINITIONS = (
    "not looked at: KubeRay's own schemas: give the folder of its definitions with --crds "
    if not DEFINITIONS.is_dir()
    else ""
)


def _is_run(command: Command) -> bool:
    return command.begins_as_one_of(WITHOUT_RAY)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files as the guide's commands find them, with the folder of a finished run."""
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copytree(CLUSTER, folder / "cluster")
    (folder / "jobs").symlink_to(PROJECT / "jobs")
    if DEFINITIONS.is_dir():
        (folder / "kuberay-crds").symlink_to(DEFINITIONS)
    _finish_run(Folder(str(folder / QUICKSTART)))
    return folder


def _finish_run(root: Folder) -> None:
    root.make()
    root.write_bytes("run.json", b'{"name": "quickstart"}')
    root.child(JOURNAL_NAME).write_bytes("00000001.segment", b"an answer")
    write_manifest(root.child("notes"), "notes", {"train": 3}, {"seed": 7})
    counts = {"input": 3, "ok": 3, "rejected": {}, "failed": {}}
    details = {"tasks": {}, "usage": {}, "teacher": {"model": "m", "is_offline": True}, "rows": {}}
    write_manifest(root.child("dataset"), "dataset", counts, {"input": {"kind": "case_reports"}}, details)
    write_evaluation(root, sound_scores())
    write_manifest(root.child("evaluation"), "evaluation", {}, {})


@pytest.fixture(scope="module")
def said(checkout: Path) -> dict[str, str]:
    """What the commands that were run have said, all in the guide's order, one after the other."""
    found: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(checkout)
        for command in filter(_is_run, commands()):
            words = _as_given(command, found)
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, f"{command}: {done.output}"
            found[str(command)] = " ".join(done.output.split())
    return found


def _as_given(command: Command, said_before: dict[str, str]) -> list[str]:
    """The words with the id of the key that was made, and without a folder that is not at hand."""
    words = list(command.words)
    if "KEY_ID" in words:
        listed = next(said for given, said in said_before.items() if "keys list" in given)
        words[words.index("KEY_ID")] = re.search(r"state (\S+)", listed)[1]  # type: ignore[index]
    if "--crds" in words and not DEFINITIONS.is_dir():
        place = words.index("--crds")
        del words[place : place + 2]
    return words


def _one(said: dict[str, str], *words: str) -> Iterator[str]:
    found = [text for given, text in said.items() if all(word in given for word in words)]
    assert found, words
    return iter(found)


def test_commands_that_need_no_cluster_do_what_the_guide_says(said: dict[str, str], checkout: Path) -> None:
    assert "synthesize finished" in next(_one(said, "status"))
    for text in _one(said, "cluster", "validate"):
        # All is looked at where KubeRay's definitions are at hand.
        assert text.removeprefix(WITHOUT_DEFINITIONS) == "nothing is wrong with what was looked at"
    assert all((checkout / name).is_file() for name in ("job.yaml", "service.yaml"))
    assert (checkout / "cluster/aws.yaml").read_text() != ""
    assert "is revoked" in next(_one(said, "revoke"))
    assert (checkout / QUICKSTART / "report.html").is_file()
    assert "1 files with texts removed" in next(_one(said, "purge"))
    assert not (checkout / QUICKSTART / JOURNAL_NAME / "00000001.segment").exists()


def test_a_dry_submission_sends_nothing_and_names_bucket_and_keys(
    ray_cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    (dry,) = [command for command in commands() if "--dry-run" in command.words]
    dashboard = ray_address_to_api_server_url(ray_cluster)
    words = [word.replace(DASHBOARD, dashboard) for word in dry.words[1:]]
    assert DASHBOARD in dry.words
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "OPENAI_API_KEY is read from the environment of the cluster's nodes" in text
    assert "--set root=s3://BUCKET/asclepius-7b" in text
    assert "nothing was sent (--dry-run)" in text


def test_what_is_submitted_is_what_was_tried_dry() -> None:
    (dry,) = [command for command in commands() if "--dry-run" in command.words]
    assert Command(tuple(word for word in dry.words if word != "--dry-run")) in commands()


def test_every_command_that_is_not_run_is_one_that_its_program_takes(
    said: dict[str, str], checkout: Path
) -> None:
    others = [command for command in commands() if not _is_run(command)]
    assert {command.program for command in others} >= {"ray", "kubectl", "aws", "gcloud", "helm"}
    found = [complaint for command in others for complaint in complaints(command, checkout)]
    assert found == []


@pytest.mark.parametrize(
    "line",
    [
        "terraform apply",
        "kubectl rollout restart deployment/asclepius",
        "kubectl apply -f cluster/nothing.yaml",
        "kubectl delete rayjob another",
        "kubectl port-forward service/another 8000:8000",
        "kubectl logs -l ray.io/node-type=driver",
        "kubectl wait --for=condition=Ready --timeout=30m raycluster/asclepius",
        "kubectl wait --for=condition=HeadPodReady --timeout=30m raycluster/another",
        "kubectl create serviceaccount another",
        "kubectl create configmap asclepius-pipeline-run",
        "kubectl port-forward --namespace storage service/another 9000:9000",
        "kubectl get crd rayjobs.ray.io -o yaml > kuberay-crds/rayjobs.yaml",
        "kubectl get crd rayjob.ray.io -o yaml > kuberay-crds/ray.io_rayjob.yaml",
        "kubectl cp PMC-Patients.csv pod:/tmp/PMC-Patients.csv",
        "kubectl exec pod -- asclepius keys create runs/quickstart --name ward-3",
        "kubectl exec pod -- asclepius keys make /data/run --name ward-3",
        "ray up cluster/azure.yaml",
        "ray up cluster/aws.yaml --now",
        "ray fly cluster/aws.yaml",
        "aws iam create-role --role-name another",
        "aws s3 mb s3://BUCKET --region eu-west-9",
        "gcloud iam service-accounts create another",
        "gcloud storage buckets add-iam-policy-binding gs://BUCKET --member principal://default/sa/another",
        "gcloud storage rm gs://BUCKET",
        "helm install kuberay-operator kuberay/kuberay-operator --version 1.4.0",
        "make everything",
        "export RAY_AUTHENTICATION=token",
        "mkdir definitions",
        "set -a; . keys.env; set +a",
        "asclepius submit pipeline jobs/runs/asclepius-7b.toml --to http://127.0.0.1:8265",
        "asclepius submit everything jobs/runs/asclepius-7b.toml --address http://127.0.0.1:8265",
        "asclepius run pipeline jobs/runs/quickstart.toml --set training.epoch=3",
        "asclepius deploy",
    ],
)
def test_a_command_that_is_wrong_or_unknown_is_complained_of(line: str, checkout: Path) -> None:
    (command,) = commands_of(line)
    assert complaints(command, checkout)


def _is_placed(command: Command) -> bool:
    """Whether it is known what runs it, or why nothing does."""
    return [command.begins_as_one_of(names) for names in (WITHOUT_RAY, ON_ONE_MACHINE, ELSEWHERE)].count(
        True
    ) == 1


def test_every_command_that_one_machine_can_run_is_run_here_or_in_the_drill() -> None:
    assert [str(command) for command in commands() if not _is_placed(command)] == []


@pytest.mark.parametrize(
    "line",
    [
        "ray status",
        "ray memory",
        "ray exec cluster/aws.yaml uptime",
        "make bench",
        "export RAY_AUTH_TOKEN=a-token",
        "asclepius teacher --port 9000",
        "asclepius submit synthesize jobs/runs/quickstart.toml --address http://127.0.0.1:8265",
    ],
)
def test_a_new_command_is_complained_of_until_something_runs_it(line: str, checkout: Path) -> None:
    (command,) = commands_of(line)
    assert complaints(command, checkout) == []
    assert not _is_placed(command)


def test_every_block_says_what_it_is() -> None:
    assert languages() == set(LANGUAGES)
    assert len(commands()) > 40


def _profile_with(fragment: str) -> Profile:
    """Kubernetes' profile with what a block of the guide says in place of its own."""
    values = tomllib.loads((CLUSTER / "profiles" / "kubernetes.toml").read_text())
    return Profile.model_validate({**values, **tomllib.loads(fragment)})


@pytest.mark.parametrize("fragment", blocks("toml"), ids=lambda text: " ".join(text.split()[:4]))
def test_every_piece_of_a_profile_makes_a_job_that_breaks_no_rule(fragment: str) -> None:
    profile = _profile_with(fragment)
    text = (PROJECT / RUN_FILE).read_text()
    file = RunFile(text, load_run(str(PROJECT / RUN_FILE)))
    documents = [Document("job.yaml", one) for one in render(profile, "rayjob", file, ray.__version__)]
    crds = str(DEFINITIONS) if DEFINITIONS.is_dir() else ""
    report = validate(documents, Knowledge(profile, RunText(text, RUN_FILE), crds))
    assert [str(finding) for finding in report.findings] == []
    if profile.storage.bucket:
        (job,) = [one.value for one in documents if one.kind == "RayJob"]
        assert "input.path=s3://BUCKET/runs/PMC-Patients.csv" in job["spec"]["entrypoint"]


def test_every_test_that_the_guide_names_exists() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", TEXT))
    assert len(named) > 20
    missing = [
        f"{file}::{name}"
        for file, name in named
        if not re.search(rf"^(async )?def {name}\(", (PROJECT / file).read_text(), re.MULTILINE)
    ]
    assert missing == []


def test_every_file_that_the_guide_names_exists() -> None:
    named = set(re.findall(r"`((?:cluster|jobs|tests)/[\w./-]+)`", prose()))
    assert "cluster/aws-role/" in named
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_every_rule_that_the_guide_names_exists() -> None:
    named = {
        name for found in re.findall(r"\[([a-z-]+(?:, [a-z-]+)*)\] \|", TEXT) for name in found.split(", ")
    }
    assert len(named) > 8
    assert named <= set(RULES)


def test_the_base_models_are_those_of_the_run_files() -> None:
    rows = re.findall(r"^\| `(jobs/runs/[\w-]+\.toml)` \| `([\w./-]+)` \|", TEXT, re.MULTILINE)
    assert len(rows) == 3
    for run_file, base_model in rows:
        assert load_run(str(PROJECT / run_file)).training.base_model == base_model
