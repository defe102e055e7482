"""A dataset from elsewhere: every format, both ways to split it, every way in which it cannot be used."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError, InputError
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.dataset_import import import_dataset
from asclepius_ray.training.dataset_source import check_dataset, dataset_identity

SEED, SHARE = 7, 0.25


def row(patient: int, question: str = "Which drug?", note: str = "") -> dict[str, Any]:
    return {
        "patient_id": patient,
        "note": note or f'Patient {patient} took "aspirin",\nand felt well.',
        "question": question,
        "answer": f"Aspirin {patient}.",
        "task": "Question Answering",
    }


ROWS = [row(number // 2, f"Question {number}?") for number in range(24)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    else:
        with path.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def imported(path: Path, target: Path, seed: int = SEED) -> tuple[dict[str, Any], dict[str, Any]]:
    return import_dataset(str(path), Folder(str(target)), SHARE, seed)


def rows_of(target: Path, folder: str, split: str) -> list[dict[str, Any]]:
    return [
        each
        for file in sorted((target / folder).glob(f"{split}-*"))
        for each in pq.read_table(file).to_pylist()
    ]


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as failed:
        check_dataset(str(path))
    return str(failed.value)


@pytest.mark.parametrize("name", ["x.parquet", "x.csv", "x.jsonl"])
def test_every_format_gives_the_same_rows_split_by_patient(tmp_path: Path, name: str) -> None:
    path, target = write(tmp_path / name, ROWS), tmp_path / "target"
    check_dataset(str(path))
    counts, details = imported(path, target)
    assert counts == {"input": 24, "ok": 24, "rejected": {}}
    assert details["rows"] == {"train": 18, "validation": 6}
    sides = {split: rows_of(target, "dataset", split) for split in ("train", "validation")}
    patients = {split: {each["patient_id"] for each in rows} for split, rows in sides.items()}
    assert not patients["train"] & patients["validation"]
    wanted = sorted(ROWS, key=lambda each: each["question"])
    found = sorted([*sides["train"], *sides["validation"]], key=lambda each: each["question"])
    assert [{name: each[name] for name in ROWS[0]} for each in found] == wanted
    assert [each["question"] for each in sides["train"]] == [
        each["question"] for each in ROWS if each["patient_id"] in patients["train"]
    ]


def test_the_split_is_drawn_from_the_seed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", ROWS)
    held_out = []
    for number, seed in enumerate((SEED, SEED, SEED + 1)):
        imported(path, tmp_path / str(number), seed)
        held_out.append(rows_of(tmp_path / str(number), "dataset", "validation"))
    assert held_out[0] == held_out[1] != held_out[2]


def test_patients_of_one_article_are_on_one_side(tmp_path: Path) -> None:
    rows = [{**row(number), "patient_uid": f"{number // 3}-{number % 3 + 1}"} for number in range(24)]
    target = tmp_path / "target"
    imported(write(tmp_path / "x.jsonl", rows), target)
    articles = [
        {each["patient_uid"].split("-")[0] for each in rows_of(target, "dataset", split)}
        for split in ("train", "validation")
    ]
    assert [len(each) for each in articles] == [6, 2]
    assert not articles[0] & articles[1]


def test_files_named_for_their_split_are_the_split(tmp_path: Path) -> None:
    folder, target = tmp_path / "in", tmp_path / "target"
    write(folder / "train-00000-of-00002.parquet", ROWS[:10])
    write(folder / "train-00001-of-00002.parquet", ROWS[10:20])
    write(folder / "validation.csv", ROWS[20:])
    write(folder / "test-00000-of-00001.parquet", ROWS[:3])
    counts, details = imported(folder, target)
    assert counts["input"] == 24
    assert (details["split"], details["tables_left_out"]) == ("by its files", 1)
    found = [rows_of(target, "dataset", split) for split in ("train", "validation")]
    assert [[each["question"] for each in rows] for rows in found] == [
        [each["question"] for each in ROWS[:20]],
        [each["question"] for each in ROWS[20:]],
    ]


def test_a_folder_with_train_files_alone_is_split_by_patient(tmp_path: Path) -> None:
    write(tmp_path / "in" / "train-0.csv", ROWS)
    write(tmp_path / "in" / "test-0.csv", ROWS)
    counts, details = imported(tmp_path / "in", tmp_path / "target")
    assert (counts["input"], details["rows"]["validation"], details["split"]) == (24, 6, "by patient")


def test_a_note_of_several_rows_is_one_note_to_learn(tmp_path: Path) -> None:
    _, details = imported(write(tmp_path / "x.csv", ROWS), tmp_path / "target")
    assert details["notes"] == {"train": 9, "validation": 3}
    notes = [
        each["note"]
        for split in ("train", "validation")
        for each in rows_of(tmp_path / "target", "notes", split)
    ]
    assert sorted(notes) == sorted({each["note"] for each in ROWS})


def test_a_row_that_cannot_be_used_is_counted_by_its_reason(tmp_path: Path) -> None:
    bad = [
        {**row(90), "note": "  "},
        {**row(91), "question": None},
        {**row(92), "answer": ""},
        {**row(93), "patient_id": None},
        {**row(94), "answer": 5},
    ]
    path = write(tmp_path / "x.jsonl", [*ROWS, *bad])
    with path.open("a") as stream:
        stream.write('{"patient_id": 95, "note": "cut')
    counts, _ = imported(path, tmp_path / "target")
    reasons = ("empty_answer", "empty_note", "empty_question", "missing_patient_id")
    assert counts == {
        "input": 30,
        "ok": 24,
        "rejected": {**dict.fromkeys(reasons, 1), "unreadable_row": 2},
    }


def test_a_key_of_letters_is_a_patient_too(tmp_path: Path) -> None:
    rows = [{**row(number), "patient_id": f"P{number:02}"} for number in range(8)]
    target = tmp_path / "target"
    imported(write(tmp_path / "x.csv", rows), target)
    found = [each for split in ("train", "validation") for each in rows_of(target, "dataset", split)]
    assert sorted(each["patient_uid"] for each in found) == [each["patient_id"] for each in rows]


# ---- what is wrong with the dataset as a whole ----


@pytest.mark.parametrize("name", ["missing.csv", "x.xlsx", "empty.csv", "nothing"])
def test_a_path_without_a_table_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "x.xlsx").write_bytes(b"PK")
    (tmp_path / "nothing").mkdir()
    message = refusal(tmp_path / name)
    assert name in message
    assert message.startswith("training.dataset")


@pytest.mark.parametrize(("name", "content"), [("x.jsonl", "\n"), ("x.csv", ",".join(ROWS[0]) + "\n")])
def test_a_table_without_rows_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    assert f"{name} has no rows" in refusal(tmp_path / name)


@pytest.mark.parametrize("missing", ["note", "question", "answer", "patient_id"])
def test_other_columns_are_refused_with_those_found_and_expected(tmp_path: Path, missing: str) -> None:
    rows = [{f"my_{name}" if name == missing else name: value for name, value in row(1).items()}]
    message = refusal(write(tmp_path / "x.csv", rows))
    for part in ("x.csv", f"'my_{missing}'", "`note`", "`question`", "`answer`", "`patient_id`"):
        assert part in message


def test_other_columns_in_a_file_of_the_folder_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train-0.csv", ROWS)
    write(tmp_path / "validation-0.csv", [{"id": 1, "text": "Some note."}])
    message = refusal(tmp_path)
    assert "validation-0.csv" in message
    assert "Some note" not in message


def test_a_folder_without_train_files_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "validation-0.csv", ROWS)
    write(tmp_path / "other.csv", ROWS)
    assert "without a train file" in refusal(tmp_path)


def test_a_dataset_without_a_usable_row_is_refused_with_the_reasons(tmp_path: Path) -> None:
    write(tmp_path / "train-0.csv", [{**each, "note": ""} for each in ROWS])
    write(tmp_path / "validation-0.csv", ROWS)
    with pytest.raises(InputError, match=r"train-0\.csv .*can be used \(empty_note 24\)"):
        imported(tmp_path, tmp_path.parent / f"{tmp_path.name}-target")


def test_a_dataset_of_one_patient_cannot_be_split(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 article\(s\) or patient\(s\)"):
        imported(write(tmp_path / "x.csv", ROWS[:2]), tmp_path / "target")


def test_the_identity_follows_the_content_and_the_split_and_not_the_place(tmp_path: Path) -> None:
    one = write(tmp_path / "one" / "x.csv", ROWS)
    other = write(tmp_path / "other" / "y.csv", ROWS)
    changed = write(tmp_path / "changed" / "x.csv", ROWS[:-1])
    found = [dataset_identity(str(path)) for path in (one, one.parent, other, changed)]
    assert found[0] == found[1] == found[2] != found[3]
    write(tmp_path / "split" / "train-0.csv", ROWS)
    write(tmp_path / "split" / "validation-0.csv", ROWS[:4])
    write(tmp_path / "pool" / "a.csv", ROWS)
    write(tmp_path / "pool" / "b.csv", ROWS[:4])
    assert dataset_identity(str(tmp_path / "split")) != dataset_identity(str(tmp_path / "pool"))


def publish_dataset(folder: Path) -> dict[str, Any]:
    """A dataset with the manifest that this program writes beside it; what it tells of its origin."""
    write(folder / "train-00000.parquet", ROWS[:18])
    write(folder / "validation-00000.parquet", ROWS[18:])
    origin = {"source": {"name": "reports.csv", "kind": "notes"}, "teacher": {"model": "some-teacher"}}
    write_manifest(Folder(str(folder)), "dataset", {"ok": 24}, {}, {**origin, "spent": {}})
    return origin


def test_the_origin_of_a_dataset_is_what_its_own_manifest_tells(tmp_path: Path) -> None:
    origin = publish_dataset(tmp_path / "in")
    _, details = imported(tmp_path / "in", tmp_path / "target")
    assert {name: details[name] for name in origin} == origin
    assert (details["tables_left_out"], details["rows"]) == (0, {"train": 18, "validation": 6})


@pytest.mark.parametrize("change", ["another table", "a changed table", "no manifest", "another's manifest"])
def test_of_a_dataset_that_no_manifest_vouches_for_nothing_is_known(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "in"
    origin = publish_dataset(folder)
    if change == "another table":
        write(folder / "train-00001.parquet", ROWS[:4])
    elif change == "a changed table":
        write(folder / "train-00000.parquet", ROWS[:17])
    elif change == "no manifest":
        (folder / "manifest.json").unlink()
    else:
        (folder / "manifest.json").write_text(json.dumps({"details": origin}))
    _, details = imported(folder, tmp_path / "target")
    assert not origin.keys() & details.keys()
    assert details["rows"]["train"] >= 17


def test_a_share_to_hold_out_of_no_dataset_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"synthesis\.validation_share"):
        parse_section(TrainingConfig, {"validation_share": 0.1}, "the test")
    assert parse_section(TrainingConfig, {"validation_share": 0.1, "dataset": "x.csv"}, "the test").dataset
