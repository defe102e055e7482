"""`asclepius run evaluate` on a table: models at an address, in a folder and in the table, side by side."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_server import prompt_in, serving_chat
from command_here import run_here
from reciting_model import save_reciting_model

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.records import ANSWERS_NAME, ITEMS_NAME, Answer, Item, read_records

pytestmark = pytest.mark.whole

WORDS = [" The", " fever", " was", " high"]
RUN_FILE = """
name = "models"
root = "{root}"
[judge]
base_url = "offline"
[serving]
max_new_tokens = 16
[evaluation]
models = ["served", "asked", "given"]
test_set = "{table}"
max_new_tokens = 16
unanswerable = 2
real_notes = {real_notes}
[evaluation.endpoints.served]
model_path = "{model}"
[evaluation.endpoints.asked]
base_url = "{url}"
model = "someone"
api_key_env = ""
[evaluation.answer_columns]
given = "given"
[evaluation.columns]
reference = "reference"
"""
ROWS = [
    ("Fever of 39 degrees since Monday.", "How high was the fever?", "39 degrees", "39 degrees"),
    (
        "A fracture of the left femur after a fall.",
        "On which side was the femur broken?",
        "The left",
        "Left",
    ),
    ("Troponin was 2.4 ng/mL; aspirin was started.", "How high was the troponin?", "2.4 ng/mL", ""),
]


def write_run(folder: Path, url: str, real_notes: str = "false") -> Path:
    (folder / "table.jsonl").write_text(
        "\n".join(
            json.dumps(dict(zip(("note", "question", "reference", "given"), row, strict=True)))
            for row in ROWS
        )
    )
    run_file = folder / "run.toml"
    values = {"root": folder / "root", "table": folder / "table.jsonl", "model": folder / "model", "url": url}
    run_file.write_text(RUN_FILE.format(**values, real_notes=real_notes))
    return run_file


def test_models_of_every_kind_answer_the_same_questions_once(ray_cluster: str, tmp_path: Path) -> None:
    save_reciting_model(tmp_path / "model", WORDS, 2048)
    prompts: list[str] = []

    def answer(body: dict[str, Any]) -> str:
        prompts.append(prompt_in(body))
        return "39"

    with serving_chat(answer, "someone") as url:
        run_file = write_run(tmp_path, url)
        code, _, complaints = run_here("run", "evaluate", str(run_file))
        assert code == 0, complaints
        num_asked = len(prompts)
        code, _, complaints = run_here("run", "evaluate", str(run_file), "--redo", "evaluate")
        assert code == 0, complaints
    evaluation = Folder(str(tmp_path / "root")).child("evaluation")
    items = read_records(evaluation, ITEMS_NAME, Item)
    answers = read_records(evaluation, ANSWERS_NAME, Answer)
    assert [item.kind for item in items] == ["test"] * 3 + ["unanswerable"] * 2
    by_model: dict[str, list[Answer]] = {}
    for answer in answers:
        by_model.setdefault(answer.model, []).append(answer)
    assert {answer.text for answer in by_model["served"]} == {"".join(WORDS)}
    assert [answer.text for answer in by_model["given"]] == [row[3] for row in ROWS]
    assert [len(by_model[model]) for model in ("served", "asked", "given")] == [5, 5, 3]
    # Each question once, though the evaluation was made twice.
    assert num_asked == len(prompts) == len(set(prompts)) == 5
    scores: dict[str, Any] = json.loads(evaluation.read_bytes("scores.json"))
    assert {name: model["source"] for name, model in scores["models"].items()} == {
        "served": "folder",
        "asked": "endpoint",
        "given": "file",
    }
    assert scores["models"]["given"]["reference"]["exact"]["value"] == pytest.approx(2 / 3)
    assert scores["models"]["served"]["unanswerable"]["items"] == 2
    assert scores["models"]["given"]["unanswerable"] is None
    assert (tmp_path / "root" / "evaluation" / "report.html").exists()


def test_real_notes_of_a_table_go_to_no_address_that_is_not_trusted(ray_cluster: str, tmp_path: Path) -> None:
    save_reciting_model(tmp_path / "model", WORDS, 2048)
    run_file = write_run(tmp_path, "https://api.example.com/v1", real_notes="true")
    code, _, complaints = run_here("run", "evaluate", str(run_file))
    assert code == 2
    assert "real notes would be sent to the host api.example.com" in complaints
    assert not (tmp_path / "root" / "evaluation").exists()
