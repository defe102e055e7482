"""Reads filled sheets with their key → writes root/evaluation/agreement.json and agreement.tex."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import InputError
from asclepius_ray.evaluation.records import GRADES_NAME, ITEMS_NAME, Grade, Item, read_records
from asclepius_ray.evaluation.sheets.key import Key, read_key
from asclepius_ray.evaluation.sheets.reading import collect_grades, read_entries
from asclepius_ray.evaluation.sheets.results import render_latex
from asclepius_ray.evaluation.sheets.study import Study, describe_study, judge_scores

AGREEMENT_NAME, LATEX_NAME = "agreement.json", "agreement.tex"


def compare_sheets(root: Folder, files: Sequence[Path], key_file: Path) -> dict[str, Any]:
    """Writes the figures of the filled sheets and returns them.

    Raises an InputError that says which file and place cannot be counted, or that the key is of another run.
    """
    evaluation = root.child("evaluation")
    key = read_key(_read(key_file), str(key_file))
    entries = {str(file): read_entries(_read(file), str(file)) for file in files}
    grades = collect_grades(entries, key)
    with_grades = evaluation.exists(GRADES_NAME)
    judges = judge_scores(read_records(evaluation, GRADES_NAME, Grade)) if with_grades else {}
    figures = describe_study(Study(key, grades, judges, _notes_of(evaluation, key)))
    # By its hash alone: a file's name may say more of its place than it should.
    figures["sha256"] = {
        "key": sha256(_read(key_file)).hexdigest(),
        "sheets": [sha256(_read(file)).hexdigest() for file in files],
    }
    content = json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False)
    evaluation.write_bytes(AGREEMENT_NAME, f"{content}\n".encode())
    evaluation.write_bytes(LATEX_NAME, render_latex(figures).encode())
    return figures


def _read(file: Path) -> bytes:
    if not file.is_file():
        raise InputError(f"there is no file {file}; give a file that a rater has filled, and the key")
    return file.read_bytes()


def _notes_of(evaluation: Folder, key: Key) -> dict[str, str]:
    if not evaluation.exists(ITEMS_NAME):
        raise InputError(
            f"{evaluation.shown} has no {ITEMS_NAME}; give the run for which the sheets were drawn"
        )
    note_of = {item.item_id: item.note_id for item in read_records(evaluation, ITEMS_NAME, Item)}
    drawn = {item.item_id for items in key.assignment.values() for item in items}
    if unknown := drawn - note_of.keys():
        raise InputError(
            f"{evaluation.shown} lacks {len(unknown)} of the {len(drawn)} items of the key; give the run for "
            "which the sheets were drawn"
        )
    return note_of
