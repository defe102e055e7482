"""Reads root/evaluation's items and answers; writes a sheet for each rater, and the key."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.records import ANSWERS_NAME, ITEMS_NAME, Answer, Item, ItemKind, read_records
from asclepius_ray.evaluation.sheets.assignment import Candidate, Drawing, SheetItem, assign
from asclepius_ray.evaluation.sheets.content import Sheet, show_items
from asclepius_ray.evaluation.sheets.key import KEY_NAME, Key, make_key, read_key
from asclepius_ray.evaluation.sheets.page import render_page
from asclepius_ray.evaluation.sheets.table import LONGEST_CELL, render_table

_MOST_MODELS = 26
"""Labels are single letters."""
_SCORES_NAME = "scores.json"
Answers = Mapping[tuple[str, str], Answer]


@dataclass(frozen=True)
class SheetOrder:
    """What the user wants; no models = all that have answered."""

    drawing: Drawing
    models: tuple[str, ...]
    with_unanswerable: bool


@dataclass(frozen=True)
class Written:
    """What was written, for the user. missing: model → drawn items to which its answer did not come."""

    key: Key
    num_shared: int
    missing: dict[str, int]
    num_long_notes: int


def write_sheets(root: Folder, order: SheetOrder, out: Folder) -> Written:
    """Writes sheet-RATER.html, sheet-RATER.csv and key.json; the same order writes the same bytes.

    Raises a ConfigError that says what of the order cannot be met, or that `out` holds another key.
    """
    evaluation = root.child("evaluation")
    items, answers = _read_tables(evaluation)
    models = _choose_models(order.models, answers)
    candidates = _candidates(items, answers, models, order.with_unanswerable)
    _check_drawing(order.drawing, len(candidates))
    assignment = assign(candidates, order.drawing)
    drawn = {item.item_id: item for sheet_items in assignment.values() for item in sheet_items}
    key = make_key(assignment, order.drawing.seed, _texts(drawn, items, answers))
    _check_out(out, key)
    _check_apart(root, out)
    out.make()
    # First the key: sheets without one could never be read back.
    out.write_bytes(KEY_NAME, key.to_bytes())
    notes_are_real = _notes_are_real(evaluation)
    for rater, sheet_items in assignment.items():
        sheet = Sheet(key.sheet, rater, notes_are_real, show_items(sheet_items, items, answers))
        out.write_bytes(f"sheet-{rater}.html", render_page(sheet))
        out.write_bytes(f"sheet-{rater}.csv", render_table(sheet))
    absent = Counter(model for item in drawn.values() for model in models if model not in item.models)
    num_raters_of = Counter(item.item_id for sheet_items in assignment.values() for item in sheet_items)
    return Written(
        key=key,
        num_shared=sum(1 for count in num_raters_of.values() if count == len(assignment)),
        missing={model: absent[model] for model in models if absent[model]},
        num_long_notes=sum(1 for item_id in drawn if len(items[item_id].note) > LONGEST_CELL),
    )


def _read_tables(evaluation: Folder) -> tuple[dict[str, Item], Answers]:
    for name in (ITEMS_NAME, ANSWERS_NAME):
        if not evaluation.exists(name):
            raise ConfigError(
                f"{evaluation.shown} has no {name}; run `asclepius run evaluate RUN.toml` first, or give the "
                "folder of a run that was evaluated"
            )
    items = {item.item_id: item for item in read_records(evaluation, ITEMS_NAME, Item)}
    answers = read_records(evaluation, ANSWERS_NAME, Answer)
    return items, {(answer.item_id, answer.model): answer for answer in answers}


def _choose_models(wanted: Sequence[str], answers: Answers) -> tuple[str, ...]:
    known = sorted({model for _, model in answers})
    if unknown := [model for model in wanted if model not in known]:
        raise ConfigError(
            f"--models {','.join(unknown)}: no answer is of it; the models are {', '.join(known) or 'none'}"
        )
    models = tuple(sorted(set(wanted) or known))
    if len(models) > _MOST_MODELS:
        raise ConfigError(
            f"{len(models)} models are more than a sheet has labels for ({_MOST_MODELS}); choose some with "
            "--models"
        )
    return models


def _candidates(
    items: Mapping[str, Item], answers: Answers, models: Sequence[str], with_unanswerable: bool
) -> list[Candidate]:
    kinds = set(ItemKind) if with_unanswerable else {ItemKind.TEST}
    candidates = []
    for item in items.values():
        came = tuple(
            model
            for model in models
            if (answer := answers.get((item.item_id, model))) is not None and not answer.failure
        )
        if item.kind in kinds and came:
            candidates.append(Candidate(item.item_id, item.note_id, item.task, came))
    return candidates


def _check_drawing(drawing: Drawing, num_candidates: int) -> None:
    if not drawing.raters:
        raise ConfigError("--raters names nobody; write the names with commas between them: anna,ben")
    if wrong := [name for name in drawing.raters if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,39}", name)]:
        raise ConfigError(
            f"--raters {','.join(wrong)}: a rater's name is part of a file's; write letters, digits, - or _, "
            "a letter first, with commas between the names"
        )
    if len({name.casefold() for name in drawing.raters}) != len(drawing.raters):
        raise ConfigError(
            f"--raters {','.join(drawing.raters)}: a name stands there twice; give each its own"
        )
    if drawing.num_items > num_candidates:
        raise ConfigError(
            f"--items {drawing.num_items}: only {num_candidates} items have an answer that can be graded; "
            f"ask for at most so many"
        )


def _texts(drawn: Mapping[str, SheetItem], items: Mapping[str, Item], answers: Answers) -> dict[str, str]:
    """All that a rater sees of each item, for the sheet's id: other texts are another sheet."""
    return {
        item_id: json.dumps(
            [
                items[item_id].note,
                items[item_id].question,
                *(answers[item_id, model].text for model in sorted(item.models)),
            ]
        )
        for item_id, item in drawn.items()
    }


def _check_apart(root: Folder, out: Folder) -> None:
    """Refuses a folder that the next evaluation would clear, and the key with it."""
    if f"{out.uri}/".startswith(f"{root.child('evaluation').uri}/"):
        raise ConfigError(
            f"--out {out.shown} lies in the evaluation's own folder, which is emptied when it is made anew, "
            "and the key with it; choose another folder"
        )


def _check_out(out: Folder, key: Key) -> None:
    if not out.exists(KEY_NAME):
        return
    if read_key(out.read_bytes(KEY_NAME), out.child(KEY_NAME).shown).sheet != key.sheet:
        raise ConfigError(
            f"{out.shown} holds the {KEY_NAME} of another drawing, without which its sheets cannot be read "
            "back; choose another folder"
        )


def _notes_are_real(evaluation: Folder) -> bool | None:
    if not evaluation.exists(_SCORES_NAME):
        return None
    test_set = json.loads(evaluation.read_bytes(_SCORES_NAME)).get("test_set", {})
    found = test_set.get("real_notes") if isinstance(test_set, dict) else None
    return found if isinstance(found, bool) else None
