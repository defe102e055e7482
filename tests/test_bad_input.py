"""Every wrong input: one message that names the value, a non-zero exit, nothing half-written, no trace."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.lease import acquire

PROJECT = Path(__file__).resolve().parents[1]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
REPORTS = PROJECT / "jobs" / "runs" / "quickstart_reports.csv"
COLUMNS = "patient_id,patient_uid,PMID,file_path,title,patient,age,gender,relevant_articles,similar_patients"


@dataclass(frozen=True)
class Ended:
    code: int
    text: str


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def run(
    root: Path,
    *overrides: str,
    job: str = "pipeline",
    redo: str = "",
    environment: dict[str, str] | None = None,
) -> Ended:
    """`asclepius run` on the quickstart's run file; none of these runs gets a cluster."""
    sets = [part for override in (f"root={root}", *overrides) for part in ("--set", override)]
    anew = ["--redo", redo] if redo else []
    home = {"PATH": "/usr/bin:/bin", "HOME": str(root.parent), "RAY_ADDRESS": "127.0.0.1:1"}
    ended = subprocess.run(
        [ASCLEPIUS, "run", job, "jobs/runs/quickstart.toml", *sets, *anew],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        env=home | (environment or {}),
    )
    text = ended.stdout + ended.stderr
    assert "Traceback" not in text, text
    return Ended(ended.returncode, text)


def artifacts(root: Path) -> list[str]:
    """What a later run could take for a result."""
    return sorted(
        str(file.relative_to(root))
        for file in root.rglob("*")
        if file.name not in {"run.json", "lease", ".lease-lock"} and file.is_file()
    )


def input_file(tmp_path: Path, content: str) -> str:
    file = tmp_path / "reports.csv"
    file.write_text(content)
    return f"input.path={file}"


def test_a_local_cluster_that_cannot_start_is_told_of(root: Path) -> None:
    # Ray's sockets lie in this folder, and a socket's path has at most 107 bytes.
    folder = root.parent / ("x" * 107)
    folder.mkdir()
    ended = run(root, environment={"RAY_ADDRESS": "", "RAY_TMPDIR": str(folder)})
    assert ended.code == 1
    assert "Ray could not start a cluster on this machine" in ended.text
    assert "107 bytes" in ended.text


def test_an_unknown_key_is_named(root: Path) -> None:
    ended = run(root, "training.worker=3")
    assert (ended.code, "training.worker:" in ended.text) == (2, True)
    assert not root.exists()


def test_an_unknown_job_is_named(root: Path) -> None:
    ended = run(root, job="pipelin")
    assert (ended.code, "'pipelin'" in ended.text) == (2, True)


def test_an_unknown_stage_of_redo_is_named(root: Path) -> None:
    ended = run(root, redo="trian")
    assert (ended.code, "'trian'" in ended.text) == (2, True)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "nowhere.csv"),
        ("", "empty"),
        (COLUMNS + "\n", "no row"),
        ("id,body\n1,text\n", "body"),
    ],
    ids=["missing file", "empty file", "header alone", "wrong columns"],
)
def test_an_input_that_cannot_be_used_is_refused(
    tmp_path: Path, root: Path, content: str | None, named: str
) -> None:
    path = "input.path=nowhere.csv" if content is None else input_file(tmp_path, content)
    ended = run(root, path)
    assert ended.code == 2, ended.text
    assert named in ended.text
    assert artifacts(root) == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "nowhere.csv"),
        ("", "empty"),
        ("patient_id,note,question,answer\n", "no row"),
        ("patient_id,note,body\n1,text,more\n", "body"),
    ],
    ids=["missing file", "empty file", "header alone", "wrong columns"],
)
def test_a_dataset_that_cannot_be_trained_on_is_refused(
    tmp_path: Path, root: Path, content: str | None, named: str
) -> None:
    file = tmp_path / ("nowhere.csv" if content is None else "dataset.csv")
    if content is not None:
        file.write_text(content)
    ended = run(root, f"training.dataset={file}", job="train")
    assert ended.code == 2, ended.text
    assert named in ended.text
    assert "training.dataset" in ended.text
    assert artifacts(root) == []


def test_an_unreachable_teacher_is_named_before_anything_is_made(root: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = run(root, f"teacher.base_url=http://127.0.0.1:{port}/v1", "teacher.model=m")
    assert ended.code == 5, ended.text
    assert f"127.0.0.1:{port}" in ended.text
    assert artifacts(root) == []


@pytest.fixture(scope="module")
def guarded_teacher() -> Iterator[str]:
    with OfflineTeacher(api_key="the-right-key") as teacher:
        yield teacher.base_url


def test_a_wrong_key_is_refused_and_never_repeated(root: Path, guarded_teacher: str) -> None:
    ended = run(
        root,
        f"teacher.base_url={guarded_teacher}",
        "teacher.model=m",
        environment={"OPENAI_API_KEY": "the-wrong-key"},
    )
    assert ended.code == 5, ended.text
    assert "key" in ended.text
    assert "the-wrong-key" not in ended.text
    assert artifacts(root) == []


def test_a_teacher_without_its_key_names_the_variable(root: Path) -> None:
    ended = run(root, "teacher.base_url=https://teacher.example/v1", "teacher.model=m")
    assert (ended.code, "OPENAI_API_KEY" in ended.text) == (2, True)


def test_a_teacher_that_is_not_set_is_asked_for(root: Path) -> None:
    ended = run(root, 'teacher.base_url=""')
    assert (ended.code, "teacher.base_url" in ended.text) == (2, True)


def test_real_notes_go_to_no_host_that_is_not_trusted(root: Path) -> None:
    address = ("teacher.base_url=https://teacher.example/v1", "teacher.model=m", "input.kind=notes")
    ended = run(root, *address, environment={"OPENAI_API_KEY": "k"})
    assert (ended.code, "teacher.example" in ended.text, "trusted_hosts" in ended.text) == (2, True, True)


@pytest.mark.parametrize("name", ["no/such-model", "./no/such/folder"])
def test_an_unknown_base_model_is_named_before_anything_is_made(root: Path, name: str) -> None:
    ended = run(root, f"training.base_model={name}", environment={"HF_HUB_OFFLINE": "1"})
    assert ended.code in {1, 2}, ended.text
    assert name in ended.text
    assert artifacts(root) == []


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    ended = run(tmp_path / "file" / "root")
    assert (ended.code, str(tmp_path / "file" / "root") in ended.text) == (2, True)


def test_a_second_run_on_the_same_root_is_refused_while_the_first_lives(root: Path) -> None:
    root.mkdir()
    held = acquire(Folder(str(root)), "pipeline:other")
    try:
        ended = run(root)
    finally:
        held.release(0)
    assert ended.code == 4, ended.text
    assert "in use by process" in ended.text


def finished_dataset(root: Path, **changes: object) -> None:
    manifest = {
        "format_version": 1,
        "artifact": "dataset",
        "counts": {},
        "files": {},
        "made_from": {"seed": 1},
        "details": {},
        "packages": {},
    }
    (root / "dataset").mkdir(parents=True)
    (root / "dataset" / "manifest.json").write_text(json.dumps(manifest | changes))


def test_a_finished_stage_with_other_settings_says_which_and_asks_for_redo(root: Path) -> None:
    finished_dataset(root)
    ended = run(root)
    assert ended.code == 3, ended.text
    assert "seed: was 1, is 7" in ended.text
    assert "--redo synthesize" in ended.text


def test_real_notes_of_a_finished_dataset_go_to_no_judge_that_is_not_trusted(root: Path) -> None:
    finished_dataset(root, made_from={"input": {"kind": "notes"}})
    judge = ("judge.base_url=https://judge.example/v1", "judge.model=m")
    ended = run(root, *judge, job="evaluate", environment={"OPENAI_API_KEY": "k"})
    assert (ended.code, "judge.example" in ended.text, "trusted_hosts" in ended.text) == (2, True, True)


def test_redo_removes_nothing_for_a_run_that_cannot_begin(root: Path) -> None:
    finished_dataset(root)
    unreachable = ("teacher.base_url=http://127.0.0.1:1/v1", "teacher.model=m")
    assert run(root, *unreachable, redo="synthesize").code == 5
    assert (root / "dataset" / "manifest.json").is_file()


def test_redo_of_a_stage_that_the_job_does_not_have_is_refused(root: Path) -> None:
    for job in ("synthesize", "serve"):
        ended = run(root, job=job, redo="train")
        assert (ended.code, "'train'" in ended.text) == (2, True)


def test_a_job_whose_input_is_missing_names_the_job_that_makes_it(root: Path) -> None:
    for job, needed in (("train", "synthesize"), ("serve", "train")):
        ended = run(root, job=job)
        assert (ended.code, f"run the job {needed}" in ended.text) == (1, True), ended.text


def test_an_address_that_is_no_cluster_is_named(root: Path) -> None:
    address = "http://127.0.0.1:8265"
    ended = run(root, job="synthesize", environment={"RAY_ADDRESS": address})
    assert (ended.code, f"RAY_ADDRESS={address}" in ended.text) == (2, True), ended.text


def test_an_artefact_of_another_format_version_is_refused(root: Path) -> None:
    finished_dataset(root, format_version=2)
    ended = run(root)
    assert ended.code == 1, ended.text
    assert "format version 2" in ended.text


def test_status_and_report_of_what_is_no_run_say_so(tmp_path: Path) -> None:
    for command in ("status", "report"):
        ended = subprocess.run(
            [ASCLEPIUS, command, str(tmp_path)], capture_output=True, text=True, timeout=60
        )
        assert ended.returncode == 2
        assert str(tmp_path) in ended.stderr
