"""The job train on a dataset from elsewhere, as a user runs it: one command on a root without a synthesis."""

import csv
import json
from pathlib import Path

import pytest
from artefacts import note_of
from command_here import run_here

from asclepius_ray.artifacts import Folder, read_manifest

pytestmark = pytest.mark.whole

NUM_ROWS, PATIENTS = 24, 8
SETTINGS = (
    "tokens.sequence_length=256",
    "evaluation.max_new_tokens=16",
    "training.validation_share=0.25",
    "training.tiny={vocabulary_size=360, hidden_size=48, layers=2, heads=4}",
    "training.phases=[{kind='notes', epochs=1, learning_rate=2e-3}, "
    "{kind='instructions', epochs=1, learning_rate=2e-3}]",
)


def write_dataset(path: Path) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient_id", "note", "question", "answer", "task"])
        for number in range(NUM_ROWS):
            note = note_of(number % PATIENTS)
            answer = note.rsplit(": ", 1)[1]
            writer.writerow([number % PATIENTS, note, f"Question {number}?", answer, "Question Answering"])
        writer.writerow([99, "", "Question?", "Answer.", "Question Answering"])
    return path


class Run:
    """One root and its dataset."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "root"
        self.dataset = write_dataset(folder / "dataset.csv")

    def train(self, *more: str) -> tuple[int, str]:
        settings = (f"root={self.root}", f"training.dataset={self.dataset}", *SETTINGS)
        sets = [part for setting in settings for part in ("--set", setting)]
        code, said, complaints = run_here("run", "train", "jobs/runs/quickstart.toml", *sets, *more)
        return code, said + complaints


@pytest.fixture(scope="module")
def finished(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    run = Run(tmp_path_factory.mktemp("foreign"))
    code, text = run.train()
    assert code == 0, text
    return run, text


def test_a_dataset_from_elsewhere_is_trained_on_in_a_root_without_a_synthesis(
    finished: tuple[Run, str],
) -> None:
    run, text = finished
    root = Folder(str(run.root))
    assert not root.exists("dataset")
    assert (run.root / "model" / "model.safetensors").is_file()
    assert (run.root / "report.html").is_file()
    counts = read_manifest(root.child("imported_dataset")).counts
    assert counts == {"input": NUM_ROWS + 1, "ok": NUM_ROWS, "rejected": {"empty_note": 1}}
    assert f"{NUM_ROWS} of {NUM_ROWS + 1} rows" in text
    assert "empty_note 1" in text
    phases = read_manifest(root.child("training")).details["phases"]
    assert [phase["phase"] for phase in phases] == ["notes", "instructions"]
    assert all(phase["validation_loss_after"] for phase in phases)


def test_both_phases_read_the_rows_of_that_dataset(finished: tuple[Run, str]) -> None:
    counts = read_manifest(Folder(str(finished[0].root)).child("tokens")).counts
    rows = {name: found["rows"] for name, found in counts.items()}
    assert rows == {
        "notes/train": 6,
        "notes/validation": 2,
        "instructions/train": 18,
        "instructions/validation": 6,
    }


def test_the_store_names_the_tokenizer_the_template_and_the_prompt(finished: tuple[Run, str]) -> None:
    made_from = read_manifest(Folder(str(finished[0].root)).child("tokens")).made_from
    for name in ("imported_dataset", "tokenizer", "chat_template", "instruction_prompt"):
        assert len(made_from[name]) == 64, name
    assert (made_from["sequence_length"], made_from["overlong"]) == (256, "shorten")


def test_what_counts_is_the_content_and_not_the_place(finished: tuple[Run, str]) -> None:
    run, _ = finished
    run.dataset = run.dataset.rename(run.dataset.with_name("moved.csv"))
    code, text = run.train()
    assert code == 0, text
    assert "finished already, skipped" in text
    content = run.dataset.read_text()
    run.dataset.write_text(content + '7,"Another note.","Question?","Answer.",Summarization\n')
    code, text = run.train()
    assert code == 3, text
    assert "training_dataset.content" in text
    run.dataset.write_text(content)
    assert json.loads((run.root / "run.json").read_text())["training"]["dataset"].endswith("moved.csv")
