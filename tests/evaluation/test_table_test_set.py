"""A table of the user's own as the test set: by column mapping, every row an item or counted."""

import json
from pathlib import Path
from typing import Any

import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError, EvaluationError, InputError
from asclepius_ray.evaluation.config import EvaluationConfig
from asclepius_ray.evaluation.test_set import NO_TASK, check_test_set, read_test_set

ROWS: list[dict[str, Any]] = [
    {"text": "Fever of 39.", "ask": "How high?", "kind": "QA", "right": "39", "one": "39", "two": ""},
    {"text": "Fever of 39.", "ask": "Who?", "kind": "QA", "right": None, "one": None, "two": "She."},
    {"text": "", "ask": "Who?", "kind": "QA", "right": "", "one": "x", "two": "x"},
    {"text": "Cough.", "ask": " ", "kind": "QA", "right": "", "one": "x", "two": "x"},
    {"text": "Cough.", "ask": "Why?", "kind": None, "right": "", "one": "x", "two": 3},
]
SETTINGS: dict[str, Any] = {
    "models": ["one", "two"],
    "columns": {"note": "text", "question": "ask", "task": "kind", "reference": "right"},
    "answer_columns": {"one": "one", "two": "two"},
}


def write_table(folder: Path, lines: list[str]) -> str:
    table = folder / "table.jsonl"
    table.write_text("\n".join(lines))
    return str(table)


def config_of(table: str, **changes: Any) -> EvaluationConfig:
    return EvaluationConfig.model_validate(SETTINGS | {"test_set": table} | changes)


def test_every_row_is_an_item_or_counted(tmp_path: Path) -> None:
    lines = [*map(json.dumps, ROWS), "{broken"]
    found = read_test_set(Folder(str(tmp_path)), config_of(write_table(tmp_path, lines)))
    assert len(found.items) + sum(found.left_out.values()) == len(lines)
    assert found.left_out == {"empty_note": 1, "empty_question": 1, "unreadable_row": 1}
    assert [item.item_id for item in found.items] == ["row 1", "row 2", "row 5"]
    assert [item.reference for item in found.items] == ["39", "", ""]
    assert [item.task for item in found.items] == ["QA", "QA", NO_TASK]
    assert found.name == "table.jsonl"


def test_tasks_that_differ_in_capitals_alone_are_one_task(tmp_path: Path) -> None:
    rows = [
        ROWS[0] | {"kind": kind} for kind in ("Named Entities", "named entities", "NAMED entities", "Other")
    ]
    table = write_table(tmp_path, [json.dumps(row) for row in rows])
    items = read_test_set(Folder(str(tmp_path)), config_of(table)).items
    assert [item.task for item in items] == ["Named Entities"] * 3 + ["Other"]


def test_rows_of_one_note_are_one_cluster(tmp_path: Path) -> None:
    table = write_table(tmp_path, [json.dumps(row) for row in ROWS])
    items = read_test_set(Folder(str(tmp_path)), config_of(table)).items
    assert items[0].note_id == items[1].note_id != items[2].note_id


def test_a_cell_without_an_answer_is_none_and_an_empty_text_is_an_answer(tmp_path: Path) -> None:
    table = write_table(tmp_path, [json.dumps(row) for row in ROWS])
    given = read_test_set(Folder(str(tmp_path)), config_of(table)).given
    assert given == {"one": ["39", None, "x"], "two": ["", "She.", None]}


def test_a_blank_cell_of_a_csv_is_no_answer(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("text,ask,kind,right,one,two\nCough.,Why?,QA,,A cold.,\nFever.,Why?,QA,, ,Flu.\n")
    given = read_test_set(Folder(str(tmp_path)), config_of(str(table))).given
    assert given == {"one": ["A cold.", None], "two": [None, "Flu."]}


def test_no_two_items_have_one_id(tmp_path: Path) -> None:
    ids = ["a", "a", "a#2", "a#2", "a"]
    table = write_table(tmp_path, [json.dumps(ROWS[0] | {"id": item_id}) for item_id in ids])
    config = config_of(table, columns=SETTINGS["columns"] | {"item_id": "id"})
    found = [item.item_id for item in read_test_set(Folder(str(tmp_path)), config).items]
    assert len(set(found)) == len(ids)
    assert found[:2] == ["a", "a#2"]


def test_a_column_that_is_not_there_is_named_with_those_found(tmp_path: Path) -> None:
    table = write_table(tmp_path, [json.dumps(row) for row in ROWS])
    with pytest.raises(InputError, match=r"answer_columns\.two is the column 'three', but .*'text', 'ask'"):
        check_test_set(config_of(table, answer_columns={"one": "one", "two": "three"}))


def test_a_table_without_a_usable_row_is_refused_with_the_reasons(tmp_path: Path) -> None:
    table = write_table(tmp_path, [json.dumps(ROWS[2])])
    with pytest.raises(EvaluationError, match="empty_note 1"):
        read_test_set(Folder(str(tmp_path)), config_of(table))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"models": ["gpt"]}, "models names 'gpt', which is none of the run's own"),
        ({"models": ["trained", "trained"]}, "names a model twice"),
        ({"models": ["trained"], "endpoints": {"x": {"base_url": "http://h/v1"}}}, "'x' is described"),
        ({"models": ["../x"]}, "has letters, digits"),
        ({"models": ["trained"], "against": "untrained"}, "against is 'untrained'"),
        ({"models": ["trained", "untrained"], "orders": 3}, r"orders is 3, but 2 answer\(s\)"),
        ({"models": ["trained"], "protocol": "single", "orders": 2}, "orders is 2"),
        ({"models": ["trained"], "judges": {"judge": {}}}, r"that of the section \[judge\]"),
        ({"models": ["trained"], "columns": {"note": "x"}}, "columns is for a table of your own"),
        (
            {"models": ["a"], "answer_columns": {"a": "a"}, "test_set": "t.csv", "unanswerable": 3},
            "nobody can be asked",
        ),
    ],
)
def test_a_section_that_contradicts_itself_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_section(EvaluationConfig, values, "the section")
