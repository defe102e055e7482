"""Sheets that clinicians have filled are read back, kept, and shown on the evaluation's page."""

import csv
import hashlib
import json
import sys
from pathlib import Path

import pytest
from evaluation_scores import sound_scores
from read_page import ReadPage
from typer.testing import CliRunner

from asclepius_ray.artifacts import Folder
from asclepius_ray.cli import app
from asclepius_ray.errors import ArtifactError
from asclepius_ray.report.evaluation_page import write_evaluation_page

sys.path.append(str(Path(__file__).parents[1] / "evaluation" / "clinicians"))
from invented_study import MODELS, draw, foreseen_grade, write_saved, write_study


def read_sheets(root: Folder, folder: Path) -> list[Path]:
    """Writes what three raters have saved, and reads it with the command."""
    write_study(root)
    root.child("evaluation").write_bytes("scores.json", json.dumps(sound_scores()).encode())
    key = draw(root, folder / "sheets").key
    files = [
        write_saved(folder, key, "anna", foreseen_grade),
        write_saved(folder, key, "ben", lambda *answer: 5 - foreseen_grade(*answer)),
        write_saved(folder, key, "chris", foreseen_grade),
    ]
    key_file = str(folder / "sheets" / "key.json")
    result = CliRunner().invoke(app, ["evaluate", "agreement", root.uri, *map(str, files), "--key", key_file])
    assert result.exit_code == 0, result.output
    assert "shown on" in result.output
    return files


def test_scores_and_agreement_of_the_clinicians_stand_on_the_page_and_in_the_table(
    root: Folder, tmp_path: Path
) -> None:
    files = read_sheets(root, tmp_path)
    evaluation = root.child("evaluation")
    figures = json.loads(evaluation.read_bytes("agreement.json"))
    assert figures["sha256"]["sheets"] == [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    page = ReadPage(evaluation.read_bytes("report.html").decode())
    assert page.open == []
    for model in MODELS:
        figure = figures["models"][model]
        shown = f"{model} {figure['value']:.2f} {figure['low']:.2f} to {figure['high']:.2f} {figure['n']}"
        assert shown in page.text
    alpha = figures["among_raters"]["alpha"]
    assert f"all raters alpha {alpha['value']:.3f}".replace("-", "\u2212") in page.text
    assert "anna and chris weighted kappa 1.000" in page.text
    assert "the raters' mean with the judge judge-j weighted kappa" in page.text
    rows = list(csv.DictReader(evaluation.read_bytes("scores.csv").decode().splitlines()))
    means = {row["model"]: float(row["value"]) for row in rows if row["measure"] == "clinicians_mean_grade"}
    assert means == {model: figures["models"][model]["value"] for model in MODELS}
    (among,) = [row for row in rows if row["measure"] == "clinicians_alpha"]
    assert float(among["value"]) == alpha["value"]
    # Written anew, the page has them still.
    write_evaluation_page(root)
    assert (
        "anna and chris weighted kappa 1.000" in ReadPage(evaluation.read_bytes("report.html").decode()).text
    )


def test_without_sheets_the_page_says_how_they_are_made(root: Folder, tmp_path: Path) -> None:
    read_sheets(root, tmp_path)
    root.child("evaluation").delete("agreement.json")
    write_evaluation_page(root)
    text = ReadPage(root.child("evaluation").read_bytes("report.html").decode()).text
    assert "No clinician's grades have been read" in text
    assert "anna" not in text


@pytest.mark.parametrize("content", [b"[]", b"{", b"{}"])
def test_figures_of_the_sheets_that_cannot_be_read_are_told(
    root: Folder, tmp_path: Path, content: bytes
) -> None:
    read_sheets(root, tmp_path)
    root.child("evaluation").write_bytes("agreement.json", content)
    with pytest.raises(ArtifactError, match=r"agreement\.json cannot be read"):
        write_evaluation_page(root)
