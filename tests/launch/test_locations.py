"""Which paths of a run file hold on the cluster too."""

from pathlib import Path

import pytest

from asclepius_ray.config import parse_section
from asclepius_ray.errors import SubmitError
from asclepius_ray.launch.locations import (
    Place,
    check_shared,
    expected_variables,
    place_on_cluster,
    sources_of,
)
from asclepius_ray.run import Run

PROJECT = Path("/project")
SPREAD = "the cluster has 3 nodes"
REPORTS = PROJECT / "jobs" / "runs" / "reports.csv"


def _run(root: str = "s3://bucket/run", **sections: object) -> Run:
    return parse_section(Run, {"name": "small", "root": root, **sections}, "the run file")


def _places(job: str, run: Run, spread: str = "", shared: tuple[str, ...] = ()) -> list[Place]:
    return place_on_cluster(job, run, spread, frozenset([REPORTS]), PROJECT, shared)


@pytest.mark.parametrize("root", ["runs/here", "/scratch/run", "file:///scratch/run"])
def test_a_local_root_is_refused_on_several_nodes(root: str) -> None:
    with pytest.raises(SubmitError, match=rf"root = '{root}' is a local path, and {SPREAD}"):
        _places("pipeline", _run(root), spread=SPREAD)


@pytest.mark.parametrize("path", ["reports.csv", "/scratch/reports.csv"])
def test_a_local_input_is_refused_on_several_nodes_where_the_job_reads_it(path: str) -> None:
    run = _run(input={"path": path})
    with pytest.raises(SubmitError, match=r"input\.path = .* is a local path"):
        _places("synthesize", run, spread=SPREAD)
    assert _places("train", run, spread=SPREAD) == []


def test_what_lies_in_a_folder_that_all_nodes_mount_holds_there() -> None:
    run = _run("/mnt/runs/first", input={"path": "/mnt/reports.csv"})
    assert _places("pipeline", run, SPREAD, shared=("/scratch", "/mnt")) == []
    with pytest.raises(SubmitError, match=r"input\.path = '/mnt/reports.csv' is a local path"):
        _places("pipeline", run, SPREAD, shared=("/mnt/runs",))


@pytest.mark.parametrize("root", ["/mnt/../scratch/run", "/mnt-old/run"])
def test_a_path_that_only_looks_as_if_it_lay_there_is_refused(root: str) -> None:
    with pytest.raises(SubmitError, match="is a local path"):
        _places("train", _run(root), SPREAD, shared=("/mnt",))


def test_a_shared_folder_is_named_as_the_nodes_have_it() -> None:
    check_shared(["/mnt/runs"])
    with pytest.raises(SubmitError, match="--shared 'runs' is no absolute path"):
        check_shared(["runs"])


def test_an_input_that_travels_in_the_package_holds_on_several_nodes_as_the_driver_alone_reads_it() -> None:
    run = _run(input={"path": str(REPORTS)}, training={"dataset": str(REPORTS)})
    assert _places("synthesize", run, SPREAD) == [Place("input.path", "jobs/runs/reports.csv")]
    with pytest.raises(SubmitError, match=r"training\.dataset = .* is a local path"):
        _places("train", run, SPREAD)


def test_places_in_a_bucket_stay_as_they_are_on_any_number_of_nodes() -> None:
    run = _run(input={"path": "gs://bucket/reports.csv"})
    assert _places("pipeline", run, spread=SPREAD) == _places("pipeline", run) == []


def test_on_one_node_a_relative_path_is_made_absolute_and_an_absolute_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    places = _places("pipeline", _run("runs/here", input={"path": "/scratch/reports.csv"}))
    assert places == [Place("root", f"{tmp_path}/runs/here")]


def test_on_one_node_an_input_that_travels_in_the_package_is_named_by_its_place_there() -> None:
    run = _run(input={"path": str(REPORTS)})
    assert _places("pipeline", run) == [Place("input.path", "jobs/runs/reports.csv")]


def test_a_base_model_folder_is_moved_and_a_name_of_the_hub_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").mkdir()
    folder = _run(training={"base_model": "my-model"})
    assert _places("train", folder) == [Place("training.base_model", f"{tmp_path}/my-model")]
    assert _places("train", _run(training={"base_model": "owner/model"}), spread=SPREAD) == []
    with pytest.raises(SubmitError, match=r"training\.base_model = 'my-model' is a local path"):
        _places("train", folder, spread=SPREAD)


def test_further_models_and_adapters_are_moved_by_the_settings_that_name_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("second", "lora"):
        (tmp_path / name).mkdir()
    run = _run(serving={"models": {"two": "second"}, "adapters": {"ward": "lora", "far": "s3://bucket/x"}})
    assert _places("serve", run) == [
        Place("serving.models.two", f"{tmp_path}/second"),
        Place("serving.adapters.ward", f"{tmp_path}/lora"),
    ]


def test_a_folder_of_the_teachers_model_is_moved_where_the_job_asks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teacher").mkdir()
    folder = _run(teacher={"model_path": "teacher"})
    assert _places("synthesize", folder) == [Place("teacher.model_path", f"{tmp_path}/teacher")]
    assert _places("train", folder) == []
    assert _places("synthesize", _run(teacher={"model_path": "owner/model"}), SPREAD) == []
    with pytest.raises(SubmitError, match=r"teacher\.model_path = 'teacher' is a local path"):
        _places("synthesize", folder, spread=SPREAD)


@pytest.mark.parametrize("setting", ["keys", "audit", "tls_certificate", "tls_key"])
def test_what_a_server_reads_and_writes_beside_its_models_means_the_same_in_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.chdir(tmp_path)
    relative = _run(serving={setting: "here"})
    assert _places("serve", relative) == [Place(f"serving.{setting}", f"{tmp_path}/here")]
    assert _places("pipeline", relative, SPREAD) == []
    with pytest.raises(SubmitError, match=rf"serving\.{setting} = 'here' is a local path"):
        _places("serve", relative, SPREAD)
    assert _places("serve", _run(serving={setting: "/mnt/here"}), SPREAD, shared=("/mnt",)) == []


def test_an_absolute_path_of_each_nodes_own_holds_on_several_and_a_file_of_keys_is_one_for_all() -> None:
    own = {"audit": "/var/log/asclepius", "tls_certificate": "/etc/tls/c.pem", "tls_key": "/etc/tls/k.pem"}
    assert _places("serve", _run(serving=own), SPREAD) == []
    with pytest.raises(SubmitError, match=r"serving\.keys = '/etc/keys.json' is a local path"):
        _places("serve", _run(serving={"keys": "/etc/keys.json"}), SPREAD)


def test_only_the_keys_that_a_job_reads_are_expected_on_the_cluster() -> None:
    run = _run(
        teacher={"base_url": "https://teacher.example/v1", "api_key_env": "TEACHER_KEY"},
        judge={"base_url": "https://judge.example/v1", "api_key_env": "JUDGE_KEY"},
        training={"base_model": "owner/model"},
        serving={"api_key_env": "SERVING_KEY"},
    )
    assert set(expected_variables("synthesize", run)) == {"TEACHER_KEY"}
    assert set(expected_variables("evaluate", run)) == {"JUDGE_KEY"}
    assert set(expected_variables("train", run)) == {"HF_TOKEN"}
    assert set(expected_variables("serve", run)) == {"SERVING_KEY"}
    everything = {"TEACHER_KEY", "JUDGE_KEY", "HF_TOKEN", "SERVING_KEY"}
    assert set(expected_variables("pipeline", run)) == everything
    offline = _run(teacher={"base_url": "offline"}, serving={"api_key_env": ""})
    assert expected_variables("pipeline", offline) == {}


def test_the_tables_that_a_job_reads_travel_and_its_root_and_keys_do_not() -> None:
    run = _run(
        "/project/runs/small",
        input={"path": str(REPORTS)},
        evaluation={"test_set": "/project/jobs/test.csv"},
        serving={"keys": "/project/jobs/keys.json", "tls_key": "/project/jobs/tls.pem"},
    )
    assert sources_of("pipeline", run) == [REPORTS, PROJECT / "jobs" / "test.csv"]
    assert sources_of("serve", run) == []
