"""Reads what an evaluation has left in root/evaluation: its scores, and its tables where they are there.

The columns are those of the evaluation's records. A real note, and what was said of it, is not even read.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError

SCORES_NAME, AGREEMENT_NAME = "scores.json", "agreement.json"
PURGED_NAME = "purged.json"
"""Its being there means that no text of this evaluation is shown any more."""
EXAMPLES_PER_GRADE = 3
_KEYS = {
    *("run", "seed", "written_unix", "seconds", "test_set", "protocol", "prompts", "judges", "models"),
    *("comparisons", "wins", "positions", "judges_compared", "answer_loss", "realism"),
}
Places = dict[str, dict[str, Counter[int]]]
"""Judge → model → place among the answers, from 0 → how many of its grades were given there."""


@dataclass(frozen=True)
class GradedExample:
    """One answer with the grade that one judge gave it in one order."""

    grade: int
    model: str
    judge: str
    place: int
    task: str
    note: str
    question: str
    answer: str
    reason: str


def read_scores(evaluation: Folder) -> dict[str, Any]:
    """The figures of an evaluation; an ArtifactError where there are none, or of an older form."""
    if not evaluation.exists(SCORES_NAME):
        raise ArtifactError(f"{evaluation.shown} holds no {SCORES_NAME}: nothing was evaluated there yet")
    try:
        scores = json.loads(evaluation.read_bytes(SCORES_NAME))
    except ValueError:
        scores = None
    if not isinstance(scores, dict):
        raise ArtifactError(
            f"{evaluation.shown}/{SCORES_NAME} is not readable JSON; redo the evaluation (--redo evaluate)"
        )
    if missing := _KEYS - scores.keys():
        raise ArtifactError(
            f"{evaluation.shown}/{SCORES_NAME} has no {', '.join(sorted(missing))}: another version wrote "
            "it; redo the evaluation (--redo evaluate)"
        )
    return scores


def has_real_notes(scores: Mapping[str, Any]) -> bool:
    """Whether the test set holds real notes; one that does not say so counts as if it did."""
    return scores["test_set"].get("real_notes") is not False


def is_purged(evaluation: Folder) -> bool:
    """Whether `asclepius purge` has taken the texts off the pages."""
    return evaluation.exists(PURGED_NAME)


def read_agreement(evaluation: Folder) -> dict[str, Any] | None:
    """What clinicians' sheets have said; None where none were read."""
    if not evaluation.exists(AGREEMENT_NAME):
        return None
    try:
        found = json.loads(evaluation.read_bytes(AGREEMENT_NAME))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"raters", "models", "among_raters", "with_judges"} <= found.keys():
        raise ArtifactError(
            f"{evaluation.shown}/{AGREEMENT_NAME} cannot be read; write it anew with `asclepius evaluate "
            "agreement`, or remove it"
        )
    return found


UNANSWERABLE_MARK = "|unanswerable|"
"""In the ids of items that the evaluation made itself; no score is made of them."""


def read_places(evaluation: Folder) -> Places:
    """How often each model was graded in each place over the test items; {} without a table of grades."""
    places: Places = {}
    columns = ("item_id", "model", "judge", "place", "verdict")
    for grade in _read_rows(evaluation, "grades.parquet", columns):
        if grade["verdict"] == "judged" and UNANSWERABLE_MARK not in grade["item_id"]:
            places.setdefault(grade["judge"], {}).setdefault(grade["model"], Counter())[grade["place"]] += 1
    return places


def draw_examples(evaluation: Folder, scores: dict[str, Any]) -> list[GradedExample]:
    """A few answers at each grade, best first, drawn by the run's seed.

    None where the notes are real, or the texts were purged.
    """
    if has_real_notes(scores) or is_purged(evaluation):
        return []
    grades = _read_rows(
        evaluation, "grades.parquet", ("item_id", "model", "judge", "order", "place", "grade", "reason")
    )
    drawn = [
        row
        for grade in (4, 3, 2, 1)
        for row in _draw([row for row in grades if row["grade"] == grade], scores)
    ]
    items = {
        row["item_id"]: row
        for row in _read_rows(evaluation, "items.parquet", ("item_id", "task", "note", "question"))
    }
    answers = {
        (row["item_id"], row["model"]): row["text"]
        for row in _read_rows(evaluation, "answers.parquet", ("item_id", "model", "text"))
    }
    return [
        _example(row, items[row["item_id"]], answers[row["item_id"], row["model"]])
        for row in drawn
        if row["item_id"] in items and (row["item_id"], row["model"]) in answers
    ]


def _draw(rows: Sequence[dict[str, Any]], scores: dict[str, Any]) -> list[dict[str, Any]]:
    """Of different items, and as far as there are any of different models."""
    remaining = sorted(rows, key=lambda row: _lot(row, scores["seed"]))
    drawn: list[dict[str, Any]] = []
    while remaining and len(drawn) < EXAMPLES_PER_GRADE:
        seen = Counter(row["model"] for row in drawn)
        chosen = min(remaining, key=lambda row: seen[row["model"]])
        drawn.append(chosen)
        remaining = [row for row in remaining if row["item_id"] != chosen["item_id"]]
    return drawn


def _lot(row: dict[str, Any], seed: int) -> bytes:
    ticket = json.dumps([seed, row["item_id"], row["model"], row["judge"], row["order"]])
    return hashlib.sha256(ticket.encode()).digest()


def _example(row: dict[str, Any], item: dict[str, Any], answer: str) -> GradedExample:
    return GradedExample(
        grade=row["grade"],
        model=row["model"],
        judge=row["judge"],
        place=row["place"],
        task=item["task"],
        note=item["note"],
        question=item["question"],
        answer=answer,
        reason=row["reason"] or "",
    )


def _read_rows(evaluation: Folder, name: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    if not evaluation.exists(name):
        return []
    filesystem, path = evaluation.filesystem()
    table = pyarrow.parquet.read_table(f"{path}/{name}", filesystem=filesystem, columns=list(columns))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
