import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asclepius_ray.errors import ConfigError
from asclepius_ray.run import load_run, resolved_json

PROJECT = Path(__file__).resolve().parents[1]
RUN_FILES = sorted((PROJECT / "jobs" / "runs").glob("*.toml"))
QUICKSTART = str(PROJECT / "jobs" / "runs" / "quickstart.toml")


@pytest.mark.parametrize("run_file", RUN_FILES, ids=lambda file: file.stem)
def test_every_run_file_of_the_project_is_valid(run_file: Path) -> None:
    assert load_run(str(run_file)).name == run_file.stem


def test_the_papers_settings_stand_in_its_run_files() -> None:
    training = load_run(str(PROJECT / "jobs" / "runs" / "asclepius-7b.toml")).training
    assert training.global_batch == 128
    assert [
        (phase.kind, phase.epochs, phase.learning_rate, phase.warmup_ratio) for phase in training.phases
    ] == [
        ("notes", 1, 2e-5, 0.03),
        ("instructions", 3, 2e-5, 0.03),
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokens.sequence_lenght=12", "tokens.sequence_lenght: there is no such setting"),
        ("trainig.workers=2", "trainig: there is no such setting"),
        ("teacher.sampling.note.temprature=1", "teacher.sampling.note.temprature: there is no such setting"),
        ("training.workers=many", "training.workers: .*found 'many'"),
        ("seed", "not of the form section.key=value"),
        ("name.first=x", "name is not a section"),
        ("training.zero_stage=4", "training.zero_stage"),
        ("judge.sampling.note.temperature=1", "judge.sampling.note: it has no such step, but judge"),
        ("evaluation.max_new_tokens=600", "evaluation.max_new_tokens is 600, more than half"),
    ],
)
def test_a_wrong_setting_is_named_with_its_full_path(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run(QUICKSTART, [override])


@pytest.mark.parametrize(
    "setting",
    [
        "root",
        "input.path",
        "training.dataset",
        "training.base_model",
        "serving.model",
        "teacher.model_path",
        "judge.model_path",
    ],
)
def test_an_address_that_holds_a_key_is_refused_without_showing_it(setting: str) -> None:
    for secret in ("secret-value", "7secret-value/of/parts"):
        with pytest.raises(ConfigError, match=setting) as caught:
            load_run(QUICKSTART, [f"{setting}=s3://AKIA0:{secret}@bucket/x"])
        assert "secret-value" not in str(caught.value)


@pytest.mark.parametrize("address", ["s3://bucket/a@b", "hdfs://host:9000/a@b", "s3://b/x?mail=a@b", "/a@b"])
def test_an_at_sign_elsewhere_in_an_address_is_no_key(address: str) -> None:
    assert load_run(QUICKSTART, [f"training.base_model={address}"]).training.base_model == address


@pytest.mark.parametrize("place", ["/home/someone/models/llama", "~/models/llama", "s3://ward-7/a/llama"])
def test_a_fingerprint_tells_places_of_models_apart_and_holds_none(place: str) -> None:
    settings = ("training.base_model", "teacher.model_path")
    found = [
        [run.training.fingerprint()["base_model"], run.teacher.fingerprint()["model_path"]]
        for folder in (place, f"{place}/../other/llama")
        for run in [load_run(QUICKSTART, [f"{setting}={folder}" for setting in settings])]
    ]
    assert all(name.startswith("llama-") and "/" not in name for names in found for name in names)
    assert found[0] != found[1]
    run = load_run(QUICKSTART, ["training.base_model=huggyllama/llama-7b"])
    assert run.training.fingerprint()["base_model"] == "huggyllama/llama-7b"


def test_help_answers_within_a_second() -> None:
    times = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([Path(sys.executable).parent / "asclepius", "--help"], check=True, capture_output=True)
        times.append(time.monotonic() - started)
    assert min(times) < 1.0


def test_a_header_of_the_wrong_type_is_refused_without_its_value() -> None:
    with pytest.raises(ConfigError) as caught:
        load_run(QUICKSTART, ["teacher.headers={Authorization=[987654321]}"])
    assert "teacher.headers.Authorization" in str(caught.value)
    assert "987654321" not in str(caught.value)


def test_an_override_is_read_as_toml_else_as_a_string() -> None:
    run = load_run(
        QUICKSTART, ["input.limit=3", "root=/tmp/some folder", 'name="x"', "evaluation.models=['trained']"]
    )
    assert (run.input.limit, run.root, run.name, run.evaluation.models) == (
        3,
        "/tmp/some folder",
        "x",
        ("trained",),
    )


def test_the_resolved_copy_holds_every_setting_and_no_header_value() -> None:
    run = load_run(QUICKSTART, ["teacher.headers={X-Key='secret-value'}"])
    text = resolved_json(run)
    assert "secret-value" not in text
    assert json.loads(text)["teacher"]["headers"] == ["X-Key"]
    assert json.loads(text)["training"]["max_gradient_norm"] == 1.0


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no run file"), (b"a = [", "not valid TOML"), (b"\xff\xfe", "cannot be read")],
    ids=["missing", "broken", "not text"],
)
def test_an_unreadable_run_file_is_one_clear_message(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "run.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        load_run(str(file))


def test_operational_settings_are_no_part_of_a_fingerprint() -> None:
    base = load_run(QUICKSTART)
    other = load_run(
        QUICKSTART,
        ["training.workers=5", "synthesis.workers=9", "teacher.max_in_flight=1", "training.zero_stage=0"],
    )
    changed = load_run(QUICKSTART, ["training.global_batch=16"])
    assert base.training.fingerprint() == other.training.fingerprint()
    assert base.synthesis.fingerprint() == other.synthesis.fingerprint()
    assert base.teacher.fingerprint() == other.teacher.fingerprint()
    assert base.training.fingerprint() != changed.training.fingerprint()


def test_reading_a_run_file_and_help_need_neither_ray_nor_torch() -> None:
    code = (
        "import sys; from asclepius_ray.cli import app; from asclepius_ray.run import load_run; "
        f"load_run({QUICKSTART!r}); "
        "app(['--help'], standalone_mode=False); "
        "print([name for name in ('ray', 'torch', 'deepspeed', 'openai') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "[]"
