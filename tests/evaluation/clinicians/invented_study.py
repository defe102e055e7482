"""A small invented evaluation: items, answers and grades that a test can foresee."""

import itertools
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.records import (
    ANSWERS_NAME,
    GRADES_NAME,
    ITEMS_NAME,
    Answer,
    Grade,
    Item,
    ItemKind,
    Verdict,
    write_records,
)
from asclepius_ray.evaluation.sheets.assignment import Drawing
from asclepius_ray.evaluation.sheets.key import Key
from asclepius_ray.evaluation.sheets.writing import SheetOrder, Written, write_sheets

MODELS = ("quillmark-13b", "tarnfield", "vossberg")
TASKS = ("Summarization", "Question Answering", "Paraphrasing")
NUM_NOTES, ITEMS_OF_A_NOTE = 12, 3
FAILED = ("patient-7-0", "tarnfield")
UNANSWERABLE = "patient-1-u"
FORMULAS = ("=1+1", "+49 30 1234", "-5 mg daily", "@SUM(A1)", "\t=1+1", "  =1+1")
MARKUP = "<script>document.title='broken'</script><b>bold</b> & \"quoted\""
RATERS = ("anna", "ben", "chris")


def item_of(note: int, number: int) -> Item:
    return Item(
        item_id=f"patient-{note}-{number}",
        note_id=f"patient-{note}",
        kind=ItemKind.TEST,
        task=TASKS[number % len(TASKS)],
        note=f"Note {note}: a patient had {100 + note} mg.\nSecond line; {MARKUP}",
        question=f"Question {number} about note {note}?",
        reference="",
        asked_note="",
    )


def write_study(root: Folder, with_judge: bool = True) -> None:
    """Writes the tables; one answer failed, one item is unanswerable, some answers look like formulas."""
    items = [item_of(note, number) for note in range(NUM_NOTES) for number in range(ITEMS_OF_A_NOTE)]
    odd = item_of(1, 0)
    items.append(Item(**{**vars(odd), "item_id": UNANSWERABLE, "kind": ItemKind.UNANSWERABLE}))
    starts = itertools.cycle(FORMULAS)
    answers = [
        Answer(item.item_id, model, "", "", "timeout")
        if (item.item_id, model) == FAILED
        else Answer(
            item.item_id, model, f"{next(starts)} text {place} of {item.question} {MARKUP}", "stop", ""
        )
        for item in items
        for place, model in enumerate(MODELS)
    ]
    evaluation = root.child("evaluation")
    evaluation.make()
    write_records(evaluation, ITEMS_NAME, items, Item)
    write_records(evaluation, ANSWERS_NAME, answers, Answer)
    if with_judge:
        write_records(evaluation, GRADES_NAME, judge_grades(answers), Grade)


def judge_grades(answers: Sequence[Answer]) -> list[Grade]:
    """Two orders, which differ by one for every third answer; the failed one has no grade."""
    return [
        Grade(
            answer.item_id,
            answer.model,
            "judge-j",
            order,
            0,
            None if answer.failure else min(4, 1 + (index + order * (index % 3 == 0)) % 4),
            Verdict.ANSWER_FAILED if answer.failure else Verdict.JUDGED,
        )
        for index, answer in enumerate(answers)
        for order in range(2)
    ]


def draw(
    root: Folder,
    out: Path,
    raters: Sequence[str] = RATERS,
    num_items: int = 24,
    overlap: float = 0.25,
    seed: int = 7,
) -> Written:
    return write_sheets(
        root, SheetOrder(Drawing(tuple(raters), num_items, overlap, seed), (), False), Folder(str(out))
    )


def saved_page(key: Key, rater: str, grade: Callable[[str, str], int | None]) -> dict[str, Any]:
    """What the page of a rater saves; `grade` says the grade of (item id, model)."""
    return {
        "form": "asclepius grades 1",
        "sheet": key.sheet,
        "rater": rater,
        "saved": "2026-11-29T06:00:00Z",
        "grades": [
            {"item": code, "label": label, "grade": grade(*answer), "comment": ""}
            for (code, label), answer in key.answers_of(rater).items()
        ],
    }


def write_saved(folder: Path, key: Key, rater: str, grade: Callable[[str, str], int | None]) -> Path:
    file = folder / f"grades-{rater}.json"
    file.write_text(json.dumps(saved_page(key, rater, grade)))
    return file


def foreseen_grade(item_id: str, model: str) -> int:
    """A grade that depends on item and model, and takes each value."""
    numbers = [int(number) for number in re.findall(r"\d+", item_id)]
    return 1 + (sum(numbers) + MODELS.index(model)) % 4
