"""`asclepius cluster`, as a user calls it."""

from pathlib import Path

import pytest
import yaml
from committed import CLUSTER, PROJECT, RUN_FILE
from typer.testing import CliRunner

from asclepius_ray.cli import app

PROFILE = str(CLUSTER / "profiles" / "kubernetes.toml")


def _call(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["cluster", *arguments])
    return done.exit_code, " ".join(done.output.split())


def test_what_is_rendered_into_a_file_is_valid(tmp_path: Path, shared_data: Path) -> None:
    out = str(tmp_path / "job.yaml")
    run = str(PROJECT / RUN_FILE)
    assert _call("render", PROFILE, "--to", "rayjob", "--run", run, "--out", out)[0] == 0
    crds = str(shared_data / "kuberay-crds")
    code, said = _call("validate", out, str(CLUSTER / "storage.yaml"), "--profile", PROFILE, "--crds", crds)
    assert (code, said) == (0, "nothing is wrong with what was looked at")


def test_a_revision_stands_in_the_file_and_in_the_command_that_made_it(tmp_path: Path) -> None:
    out, run = tmp_path / "service.yaml", str(PROJECT / RUN_FILE)
    arguments = ("--to", "rayservice", "--run", run, "--revision", "2 epochs", "--out", str(out))
    assert _call("render", PROFILE, *arguments)[0] == 0
    text = out.read_text()
    assert text.splitlines()[0].endswith(" --revision '2 epochs'")
    assert "revision: 2 epochs" in text


def test_definitions_as_a_cluster_gives_them_are_looked_at(tmp_path: Path, shared_data: Path) -> None:
    definition = yaml.safe_load((shared_data / "kuberay-crds" / "ray.io_rayjobs.yaml").read_text())
    definition["metadata"] |= {"generation": 1, "uid": "c0ffee"}
    definition["status"] = {"storedVersions": ["v1"], "conditions": [{"type": "Established"}]}
    (tmp_path / "ray.io_rayjobs.yaml").write_text(yaml.safe_dump(definition))
    job = tmp_path / "job.yaml"
    job.write_text((CLUSTER / "rayjob.yaml").read_text().replace("submissionMode:", "submitMode:"))
    code, said = _call("validate", str(job), "--crds", str(tmp_path))
    assert code == 1
    assert "spec.submitMode" in said


def test_a_mistake_is_said_in_one_line_with_file_path_and_advice_and_the_exit_code_is_1(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "job.yaml"
    text = (CLUSTER / "rayjob.yaml").read_text()
    assert "terminationGracePeriodSeconds: 135" in text
    broken.write_text(
        text.replace("terminationGracePeriodSeconds: 135", "terminationGracePeriodSeconds: 30", 1)
    )
    code, said = _call("validate", str(broken))
    assert code == 1
    place = "spec.rayClusterSpec.headGroupSpec.template.spec.terminationGracePeriodSeconds"
    assert f"{broken}: {place}: head is killed after 30 s" in said
    assert "set 135 or more, or drain for less [grace-over-drain]" in said
    assert "1 problem(s)" in said


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"- a list",
        b"spec: {versions: 7}",
        b"spec: {versions: [{name: v2}]}",
        b"spec: {versions: [{name: v1, schema: {openAPIV3Schema: {}}}]}",
    ],
)
def test_a_definition_that_is_none_is_an_error_that_names_its_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ray.io_rayjobs.yaml").write_bytes(content)
    code, said = _call("validate", str(CLUSTER / "rayjob.yaml"), "--crds", str(tmp_path))
    assert code == 2
    assert "ray.io_rayjobs.yaml cannot be read as the definition of a RayJob" in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("render", PROFILE, "--to", "azure"), "--to 'azure' is not known; there are aws, gcp"),
        (("render", PROFILE, "--to", "raycluster", "--revision", "2"), "leave it out with --to raycluster"),
        (("render", "none.toml", "--to", "aws"), "there is no profile none.toml"),
        (("render", PROFILE, "--to", "storage", "--out", "/nowhere/x.yaml"), "--out /nowhere/x.yaml"),
        (("validate", "none.yaml"), "none.yaml cannot be read"),
        (("validate", PROFILE), "is not valid YAML"),
        (("validate", str(CLUSTER / "rayjob.yaml"), "--crds", "/nowhere"), "--crds /nowhere"),
    ],
)
def test_a_wrong_call_is_an_error_that_says_what_to_do(arguments: tuple[str, ...], complaint: str) -> None:
    code, said = _call(*arguments)
    assert code == 2
    assert complaint in said
