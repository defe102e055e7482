"""`asclepius evaluate sheet` and `agreement`, end to end on three real models' answers to real notes."""

import csv
import io
import json
import zlib
from pathlib import Path

import pytest
from camel_study import CAMEL_MODELS
from invented_study import write_saved
from typer.testing import CliRunner

from asclepius_ray.artifacts import Folder
from asclepius_ray.cli import app
from asclepius_ray.evaluation.records import (
    ANSWERS_NAME,
    GRADES_NAME,
    Answer,
    Grade,
    Verdict,
    read_records,
    write_records,
)
from asclepius_ray.evaluation.sheets.key import Key, read_key

QUALITY = {"gpt-3.5": 4, "clinical-alpaca": 3, "alpaca": 2}


def command(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["evaluate", *arguments])
    return result.exit_code, result.output


def draw_sheets(root: Folder, out: Path, *more: str) -> Key:
    options = ["--raters", "anna,ben,chris", "--items", "120", "--overlap", "0.25", "--out", str(out)]
    code, said = command("sheet", root.uri, *options, "--seed", "7", *more)
    assert code == 0, said
    assert "30 items go to every rater" in said
    assert "sheet-anna.html and sheet-anna.csv: 60 items, 180 answers" in said
    return read_key((out / "key.json").read_bytes(), "key.json")


def quirk(text: str) -> int:
    """-1, 0 or 1 by the text alone: what graders differ in."""
    return zlib.crc32(text.encode()) % 3 - 1


def fill_table(file: Path, key: Key, texts: dict[tuple[str, str], str]) -> None:
    lines = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))
    for row in lines:
        answer = key.answer_behind(row["rater"], row["item"], row["label"])
        assert answer is not None
        row["grade"] = str(graded(*answer, texts[answer]))
    with file.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)


def graded(item_id: str, model: str, text: str) -> int:
    return min(4, max(1, QUALITY[model] + quirk(item_id + text)))


def test_sheets_are_drawn_filled_and_compared_with_a_judge(camel: Folder, tmp_path: Path) -> None:
    evaluation = camel.child("evaluation")
    answers = read_records(evaluation, ANSWERS_NAME, Answer)
    texts = {(answer.item_id, answer.model): answer.text for answer in answers}
    grades = [
        Grade(item_id, model, "rules", order, 0, graded(item_id, model, f"{order}{text}"), Verdict.JUDGED)
        for (item_id, model), text in texts.items()
        for order in range(2)
    ]
    write_records(evaluation, GRADES_NAME, grades, Grade)
    out = tmp_path / "out"
    key = draw_sheets(camel, out)
    for file in out.glob("sheet-*"):
        assert [model for model in CAMEL_MODELS if model in file.read_text(encoding="utf-8")] == []

    anna = write_saved(tmp_path, key, "anna", lambda *answer: graded(*answer, texts[answer]))
    ben = write_saved(tmp_path, key, "ben", lambda *answer: graded(*answer, "ben" + texts[answer]))
    chris = out / "sheet-chris.csv"
    fill_table(chris, key, texts)
    files = [str(file) for file in (anna, ben, chris)]
    code, said = command("agreement", camel.uri, *files, "--key", str(out / "key.json"))
    assert code == 0, said
    assert "chris: 180 of 180 answers graded" in said
    figures = json.loads((tmp_path / "camel" / "evaluation" / "agreement.json").read_text())
    scores = {model: figures["models"][model]["value"] for model in CAMEL_MODELS}
    assert scores["gpt-3.5"] > scores["clinical-alpaca"] > scores["alpaca"]
    for model in CAMEL_MODELS:
        figure = figures["models"][model]
        assert f"{model}: {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}], n = 120" in said
    assert figures["notes"] == 50
    assert figures["answers"] == 360
    kappas = {tuple(pair["raters"]): pair["weighted_kappa"] for pair in figures["among_raters"]["pairs"]}
    assert kappas["anna", "chris"]["value"] == pytest.approx(1)
    assert kappas["anna", "ben"]["n"] == 90
    assert 0 < kappas["anna", "ben"]["low"] < kappas["anna", "ben"]["high"] < 1
    mean = figures["with_judges"]["rules"]["mean_of_raters"]
    assert mean["alpha"]["n"] == mean["weighted_kappa"]["n"] == 360
    assert mean["alpha"]["low"] > 0.2
    assert (tmp_path / "camel" / "evaluation" / "agreement.tex").is_file()


def test_the_same_command_draws_the_same_sheets(camel: Folder, tmp_path: Path) -> None:
    draw_sheets(camel, tmp_path / "one")
    draw_sheets(camel, tmp_path / "two")
    one, two = (
        {file.name: file.read_bytes() for file in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert len(one) == 7
    assert one == two


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--items", "501"], "only 500 items have an answer that can be graded"),
        (["--models", "gpt-4"], "no answer is of it; the models are alpaca, clinical-alpaca, gpt-3.5"),
        (["--raters", "anna b"], "a rater's name is part of a file's"),
    ],
)
def test_an_order_that_cannot_be_met_is_refused_and_nothing_written(
    camel: Folder, tmp_path: Path, arguments: list[str], said: str
) -> None:
    options = {"--raters": "anna,ben", "--items": "20", "--overlap": "0.5", "--out": str(tmp_path / "out")}
    options |= {arguments[0]: arguments[1]}
    code, output = command("sheet", camel.uri, *(part for pair in options.items() for part in pair))
    assert code == 2
    assert said in output
    assert not (tmp_path / "out").exists()


def test_a_root_without_an_evaluation_is_refused(tmp_path: Path) -> None:
    options = ["--raters", "anna", "--items", "2", "--overlap", "0", "--out", str(tmp_path / "out")]
    code, said = command("sheet", str(tmp_path), *options)
    assert code == 2
    assert "has no items.parquet; run `asclepius run evaluate RUN.toml` first" in said
