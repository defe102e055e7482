"""What a job package holds."""

import os
import zipfile
from pathlib import Path

import pytest

from asclepius_ray.errors import SubmitError
from asclepius_ray.launch.package import build_package, find_project, has_jobs

RUN = 'name = "small"\nroot = "s3://bucket/run"\n'


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "elsewhere.toml"
    path.write_text(RUN)
    return path


def _names(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return set(opened.namelist())


def test_the_package_holds_the_code_the_jobs_and_the_run_file_and_nothing_else(
    project: Path, run_file: Path, tmp_path: Path
) -> None:
    left_out = [
        ".git/config",
        ".venv/bin/python",
        "runs/quickstart/run.json",
        "data/reports.csv",
        "tests/test_all.py",
        "asclepius_ray/__pycache__/run.cpython-311.pyc",
        "jobs/.ipynb_checkpoints/train.py",
        "jobs/environment/pyvenv.cfg",
        "jobs/environment/lib/torch.py",
        "jobs/my-run/run.json",
        "jobs/my-run/dataset/train-0.parquet",
        "jobs/keys.env",
        "jobs/runs/real_notes.csv",
    ]
    kept = ["jobs/runs/reports.csv", "jobs/runs/other.toml", "asclepius_ray/prompts/note.txt"]
    for name in [*left_out, *kept]:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("content")
    source = project / "jobs" / "runs" / "reports.csv"
    package = build_package(project, run_file, tmp_path / "package.zip", [source])
    assert _names(package.path) == {
        "run.toml",
        "pyproject.toml",
        "constraints.txt",
        "asclepius_ray/__init__.py",
        "jobs/pipeline.py",
        "jobs/train.py",
        *kept,
    }
    assert package.num_files == len(_names(package.path))
    assert package.size_bytes == package.path.stat().st_size
    with zipfile.ZipFile(package.path) as archive:
        assert archive.read("run.toml").decode() == RUN


def test_the_same_files_give_the_same_bytes(project: Path, run_file: Path, tmp_path: Path) -> None:
    first = build_package(project, run_file, tmp_path / "first.zip").path.read_bytes()
    for path in project.rglob("*.py"):
        os.utime(path, (1, 1))
    assert build_package(project, run_file, tmp_path / "second.zip").path.read_bytes() == first


def test_a_package_above_the_limit_is_refused_and_its_biggest_file_named(
    project: Path, run_file: Path, tmp_path: Path
) -> None:
    (project / "jobs" / "reports.bin").write_bytes(os.urandom(20_100_000))
    (project / "jobs" / "small.bin").write_bytes(b"small")
    with pytest.raises(SubmitError, match=r"biggest files are jobs/reports\.bin \(20\.10 MB\)"):
        build_package(project, run_file, tmp_path / "package.zip", [project / "jobs"])


def test_files_beyond_hope_are_refused_before_they_are_compressed(
    project: Path, run_file: Path, tmp_path: Path
) -> None:
    with (project / "jobs" / "huge.csv").open("wb") as sparse:
        sparse.truncate(10**12)
    with pytest.raises(SubmitError, match=r"jobs/huge\.csv \(1000000\.00 MB\)"):
        build_package(project, run_file, tmp_path / "package.zip", [project / "jobs" / "huge.csv"])
    assert not (tmp_path / "package.zip").exists()


def test_an_installed_package_without_its_tree_sends_its_code_alone(run_file: Path, tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    for name in ("asclepius_ray/__init__.py", "torch/__init__.py", "jobs/foreign.py"):
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (installed / name).write_text("")
    package = build_package(installed, run_file, tmp_path / "package.zip")
    assert _names(package.path) == {"run.toml", "asclepius_ray/__init__.py"}
    assert not has_jobs(installed)


def test_this_project_is_a_small_package_with_all_five_jobs(run_file: Path, tmp_path: Path) -> None:
    package = build_package(find_project(), run_file, tmp_path / "package.zip")
    names = _names(package.path)
    jobs = {f"jobs/{name}.py" for name in ("synthesize", "train", "evaluate", "serve", "pipeline")}
    assert jobs <= names
    assert {"asclepius_ray/run.py", "asclepius_ray/prompts/note.txt", "pyproject.toml"} <= names
    assert package.size_bytes < 1_000_000
