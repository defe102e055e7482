"""`asclepius doctor` as a user says it, on a real Ray: a run that is well, and faults seeded into it."""

import csv
import json
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from artefacts import note_of, save_foreign_model, write_inputs
from doctor_command import RUN_FILE, examine, examine_at, line_of, sets

from asclepius_ray.artifacts import Folder

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def healthy(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, list[str], Path]:
    """The quickstart's run file, two steps of training included."""
    root = tmp_path_factory.mktemp("healthy") / "root"
    code, lines = examine_at(ray_cluster, RUN_FILE, *sets(root=root))
    return code, lines, root


def test_the_quickstart_is_found_well_and_two_steps_of_it_are_trained(
    healthy: tuple[int, list[str], Path],
) -> None:
    code, lines, _ = healthy
    assert code == 0, lines
    levels = {line.split()[0] for line in lines if line[:8].strip() in ("ok", "warning", "problem")}
    assert levels == {"ok"}, lines
    for subject in (
        "input",
        "teacher",
        "judge",
        "base model",
        "template",
        "resources",
        "storage",
        "memory",
        "disk",
    ):
        line_of(lines, subject)
    assert "a step of the run takes about" in line_of(lines, "dry run")
    assert lines[-1] == "nothing stands in the way of this run"


def test_nothing_that_was_tried_out_is_left_in_the_root(healthy: tuple[int, list[str], Path]) -> None:
    _, _, root = healthy
    assert {entry.name for entry in root.iterdir()} <= {"lease", ".lease-lock"}


def write_large_model(folder: Path) -> None:
    """A model of 7 billion weights, which are not there to be read."""
    save_foreign_model(folder)
    config = LlamaConfig(
        vocab_size=32000,
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
    )
    config.save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"not read")


def write_model_with_useless_template(folder: Path) -> None:
    save_foreign_model(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}Answer:"
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def faulty(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What the command says of run files with several faults each."""
    folder = tmp_path_factory.mktemp("faulty")
    (folder / "no-model").mkdir()
    write_large_model(folder / "large")
    save_foreign_model(folder / "short", positions=256)
    write_model_with_useless_template(folder / "template")
    (folder / "file").write_text("")
    notes = Folder(str(folder / "notes-root"))
    write_inputs(notes)
    said = {}
    for name, settings in {
        "sources": {
            "root": folder / "root-1",
            "input__path": folder / "nowhere.csv",
            "teacher__base_url": "http://127.0.0.1:9/v1",
            "teacher__model": "some-teacher",
            "judge__base_url": "https://judge.invalid/v1",
            "judge__model": "some-judge",
            "judge__api_key_env": "NO_SUCH_KEY_IS_SET",
            "training__base_model": folder / "no-model",
            "training__workers": 64,
        },
        "model": {
            "root": folder / "root-2",
            "training__base_model": folder / "large",
            "tokens__sequence_length": 512,
        },
        "template": {
            "root": folder / "file" / "root",
            "training__base_model": folder / "template",
            "tokens__sequence_length": 512,
        },
        "root": {"root": folder / "file" / "root", "training__base_model": folder / "short"},
        "answers": {
            "root": notes.uri,
            "tokens__sequence_length": 64,
            "evaluation__max_new_tokens": 16,
            "training__use_gpu": "true",
        },
    }.items():
        code, said[name] = examine(RUN_FILE, *sets(**settings))
        assert code == 1, said[name]
    return said


@pytest.mark.parametrize(
    ("run", "subject", "words"),
    [
        ("sources", "input", "does not exist"),
        ("sources", "teacher", "127.0.0.1:9"),
        ("sources", "judge", "NO_SUCH_KEY_IS_SET"),
        ("sources", "base model", "holds no config.json"),
        ("sources", "resources", "64 training workers need a CPU each"),
        ("template", "base model", "chat template"),
        ("model", "memory", "too little for 2 workers"),
        ("root", "base model", "longer than the 256 positions"),
        ("root", "cluster", "cannot be written"),
        ("answers", "template", "no token to learn from"),
        ("answers", "resources", "need a GPU each"),
    ],
)
def test_a_seeded_fault_is_found(faulty: dict[str, list[str]], run: str, subject: str, words: str) -> None:
    found = line_of(faulty[run], subject)
    assert found.startswith("problem")
    assert words in found


def test_a_dry_run_is_not_begun_where_it_would_meet_what_was_found(faulty: dict[str, list[str]]) -> None:
    assert line_of(faulty["model"], "dry run").startswith("warning")


@pytest.mark.long
def test_what_the_checks_cannot_see_the_dry_run_meets(ray_cluster: str, tmp_path: Path) -> None:
    save_foreign_model(tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["lm_head.weight"][0, 0] = torch.nan
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    settings = sets(
        root=tmp_path / "root", training__base_model=tmp_path / "model", tokens__sequence_length=512
    )
    code, lines = examine(RUN_FILE, *settings)
    assert code == 1
    found = line_of(lines, "dry run")
    assert found.startswith("problem")
    assert "weights are damaged" in found
    assert not (tmp_path / "root" / ".doctor").exists()


@pytest.mark.long
def test_a_dataset_from_elsewhere_is_looked_at_and_two_steps_are_trained(
    ray_cluster: str, tmp_path: Path
) -> None:
    """Its rows may be real notes, and none is shown; notes that are too long stop no dry run."""
    source = tmp_path / "rows.csv"
    texts = [("patient_id", "note", "question", "answer")]
    texts += [(f"{number}", note_of(number), "Which drug?", "Iron.") for number in range(20)]
    with source.open("w", newline="") as stream:
        csv.writer(stream).writerows(texts)
    settings = sets(root=tmp_path / "root", training__dataset=source, tokens__overlong="reject")
    code, lines = examine(RUN_FILE, *settings)
    assert code == 0, lines
    assert line_of(lines, "dataset").startswith("ok")
    assert "the first 20 rows" in line_of(lines, "template")
    assert line_of(lines, "dry run").startswith("ok")
    assert not [line for line in lines if "Discharge" in line]
    source.write_text("patient_id,note\n1,Some note.\n")
    code, lines = examine(RUN_FILE, "--no-dry-run", *settings)
    assert code == 1
    assert "`question`" in line_of(lines, "dataset")


def test_a_wrong_run_file_is_a_problem_that_names_the_key(tmp_path: Path) -> None:
    code, lines = examine_at("", RUN_FILE, *sets(tokens__sequence_lenght=512))
    assert code == 1
    assert lines[0].startswith("problem  run file")
    assert "tokens.sequence_lenght: there is no such setting" in "\n".join(lines)


def test_a_cluster_that_is_not_there_is_a_problem_and_not_waited_for(tmp_path: Path) -> None:
    started = time.monotonic()
    code, lines = examine_at("127.0.0.1:9", RUN_FILE, *sets(root=tmp_path / "root"))
    assert code == 1
    assert "there is no Ray cluster at" in line_of(lines, "cluster")
    # Ray itself gives up after more than three minutes.
    assert time.monotonic() - started < 60


def test_no_text_of_a_real_note_is_printed(ray_cluster: str, tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    write_inputs(root)
    settings = sets(root=root.uri, input__kind="notes")
    code, lines = examine(RUN_FILE, "--no-dry-run", *settings)
    assert code == 0, lines
    assert any(line.startswith("row ") for line in lines)
    assert not [line for line in lines if "Discharge" in line or "patient" in line]
    code, lines = examine(RUN_FILE, "--no-dry-run", "--show-text", *settings)
    assert any("Discharge Summary" in line for line in lines)
    assert json.dumps(lines).count("[[") == 2
