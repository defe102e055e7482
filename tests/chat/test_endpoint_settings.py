"""What a run file may say of an endpoint, and that a refusal repeats no secret."""

from pathlib import Path

import pytest

from asclepius_ray.errors import ConfigError
from asclepius_ray.run import load_run

SECRET = "hunter2-4711"


def refusal(tmp_path: Path, table: str) -> str:
    path = tmp_path / "run.toml"
    path.write_text(f'name = "x"\nroot = "runs/x"\n{table}\n')
    with pytest.raises(ConfigError) as caught:
        load_run(str(path))
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("section", ["teacher", "judge"])
@pytest.mark.parametrize(
    "address", ["http://user:{}@host/v1", "https://{}@host:8000/v1", "user:{}@host/v1", "http://u:{}@[bad"]
)
def test_an_address_with_a_password_is_refused_and_not_repeated(
    tmp_path: Path, section: str, address: str
) -> None:
    message = refusal(tmp_path, f'[{section}]\nbase_url = "{address.format(SECRET)}"')
    assert SECRET not in message
    assert section in message
    assert "base_url" in message


@pytest.mark.parametrize("value", [f"sk-{SECRET}", f"{SECRET}=", f"$KEY_{SECRET}", "OPENAI API KEY", "1KEY"])
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(tmp_path: Path, value: str) -> None:
    message = refusal(tmp_path, f'[teacher]\napi_key_env = "{value}"')
    assert value not in message
    assert "teacher.api_key_env" in message
    assert "environment variable" in message


@pytest.mark.parametrize("value", ["", "OPENAI_API_KEY", "_key2"])
def test_a_variable_or_none_is_accepted(tmp_path: Path, value: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f'name = "x"\nroot = "runs/x"\n[judge]\napi_key_env = "{value}"\n')
    assert load_run(str(path)).judge.api_key_env == value


@pytest.mark.parametrize("section", ["judge", "evaluation.judges.second", "evaluation.endpoints.other"])
def test_a_setting_that_the_evaluation_would_ignore_is_refused_by_name(tmp_path: Path, section: str) -> None:
    models = '[evaluation]\nmodels = ["trained", "other"]\n' if section.endswith("other") else ""
    message = refusal(tmp_path, f"{models}[{section}.batch]\nmax_requests = 5")
    assert f"{section}: batches are for the teacher alone" in message
    path = tmp_path / "run.toml"
    path.write_text('name = "x"\nroot = "runs/x"\n[teacher.batch]\nmax_requests = 5\n')
    assert load_run(str(path)).teacher.batch.max_requests == 5


def test_sampling_of_a_step_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    message = refusal(tmp_path, "[teacher.sampling.notes]\ntemperature = 0.5")
    assert "teacher.sampling.notes" in message
    for step in ("note", "question", "answer", "judge"):
        assert f"'{step}'" in message
