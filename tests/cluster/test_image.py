"""The image's Dockerfile is true to the project; no image is built here."""

import subprocess
import sys
from dataclasses import replace

import pytest
from image_checks import CHECKS, IMAGE, Files, context, instructions


@pytest.fixture(scope="module")
def files() -> Files:
    return Files()


@pytest.mark.parametrize("check", CHECKS)
def test_the_dockerfile_and_what_lies_beside_it_hold(check: str, files: Files) -> None:
    assert list(CHECKS[check](files)) == []


MISTAKES = [
    ("lint", "dockerfile", "USER 0\nRUN mkdir", "USER 0\nRUN cd / && mkdir", "DL3003"),
    ("lint", "dockerfile", "USER 0", "# hadolint ignore=DL3002\nUSER 0", "a warning is ignored"),
    ("shell", "dockerfile", "&& rm /tmp/requirements.txt", "&& (rm /tmp/requirements.txt", "syntax error"),
    ("base", "dockerfile", "ray:2.60.0-py311", "ray:2.59.0-py311", "the base is rayproject/ray:2.59.0"),
    ("base", "dockerfile", "-py311-", "-py312-", "py311"),
    ("base", "dockerfile", "-cu130", "-cu128", "cu130"),
    ("base", "requirements", "nvidia-cuda-runtime==13.0", "nvidia-cuda-runtime==12.8", "cu128"),
    ("base", "dockerfile", "FROM ${BASE_IMAGE}", "FROM rayproject/ray:2.60.0-py311-cu130", "be chosen"),
    ("versions", "requirements", "\ntorch==2.13.0", "\ntorch==2.12.0", "torch is 2.12.0, and 2.13.0"),
    ("versions", "requirements", "\nray==2.60.0", "\nray==2.60.1", "ray is 2.60.1"),
    ("versions", "requirements", "\nvllm==0.29.0", "\nvllm==0.30.0", "tested is 0.29.0"),
    ("versions", "requirements", "grpcio-reflection, numpy", "numpy", "do not name grpcio-reflection"),
    ("is_whole", "requirements", "\ndatasketch==", "\n# datasketch==", "datasketch is asked for"),
    ("is_whole", "requirements", "\nboto3==", "\n# boto3==", "boto3 is asked for"),
    ("is_whole", "requirements", "\ntriton==", "\ntorchcodec==1.0\ntriton==", "torchcodec is in the list"),
    ("copies", "dockerfile", "constraints.txt LICENSE", "constraint.txt LICENSE", "constraint.txt is copied"),
    ("copies", "ignored", "!jobs\n", "", "jobs is copied"),
    ("size", "ignored", "!jobs", "!jobs\n!tests", "is in the context, and nothing copies it"),
    ("private", "ignored", "!jobs", "!jobs\n!runs", "runs/quickstart/journal/0.jsonl"),
    ("private", "ignored", "**/__pycache__\n", "", "run.cpython-311.pyc"),
    ("private", "ignored", "\n*\n", "\n", "cluster/keys.env"),
    ("secrets", "dockerfile", "ARG PIP_INDEX_URL\n", "ARG PIP_TOKEN=x\n", "ARG PIP_TOKEN="),
    ("secrets", "dockerfile", "ARG PIP_INDEX_URL\n", "ARG PIP_INDEX_URL=https://inner/simple\n", "inner"),
    ("pods", "dockerfile", "\nUSER 1000:100", "\nUSER 1001:100", "its user is 1001:100"),
    ("pods", "dockerfile", "WORKDIR /opt/asclepius-ray", "WORKDIR /opt/asclepius", "/opt/asclepius,"),
    ("pods", "dockerfile", "jobs jobs", "jobs pages", "jobs/ is not in the folder"),
    ("pods", "dockerfile", "--chown=1000:100 jobs", "--chown=0:0 jobs", "belongs to another"),
]


@pytest.mark.parametrize(("check", "name", "old", "new", "complaint"), MISTAKES)
def test_a_check_finds_its_mistake(
    check: str, name: str, old: str, new: str, complaint: str, files: Files
) -> None:
    found = list(CHECKS[check](files.changed(name, old, new)))
    assert any(complaint in line for line in found), found


def test_every_check_has_a_mistake_and_the_context_is_not_empty(files: Files) -> None:
    assert {check for check, *_ in MISTAKES} == set(CHECKS)
    assert len(context(files)) > 100
    assert len([word for word, _ in instructions(files.dockerfile) if word == "RUN"]) >= 4


def test_a_context_that_is_too_large_is_found(files: Files) -> None:
    (found,) = CHECKS["size"](replace(files, tracked=files.tracked * 10))
    assert found.startswith("the context has")


def test_the_build_ends_where_a_version_differs_or_a_module_is_missing() -> None:
    code = (
        "import check_image as it; from importlib.metadata import version; "
        "right = f'pytest=={version(\"pytest\")}'; "
        "print(list(it.wrong_versions(['# a', right, 'pytest==0.1', 'no-such-package==1']))); "
        "print(list(it.import_errors(['json', 'no_such_module'])))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=IMAGE, capture_output=True, text=True, check=True
    )
    versions, imports = ended.stdout.splitlines()
    assert "no-such-package is missing, and not 1" in versions
    assert versions.count("pytest is ") == 1
    assert "no_such_module cannot be imported" in imports
    assert "json" not in imports
