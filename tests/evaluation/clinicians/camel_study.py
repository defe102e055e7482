"""500 items over 50 real discharge summaries, with the answers of three real models, as tables."""

import hashlib
import json
from pathlib import Path

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.records import ANSWERS_NAME, ITEMS_NAME, Answer, Item, ItemKind, write_records

CAMEL = Path(__file__).resolve().parents[4] / "shared" / "data" / "mtsamples" / "camel_eval_500.jsonl"
CAMEL_MODELS = ("gpt-3.5", "alpaca", "clinical-alpaca")


def write_camel(root: Folder) -> None:
    rows = [json.loads(line) for line in CAMEL.read_text(encoding="utf-8").splitlines()]
    items = [
        Item(
            item_id=f"camel-{number}",
            note_id=hashlib.sha256(row["input"].encode()).hexdigest()[:12],
            kind=ItemKind.TEST,
            task=row["type"],
            note=row["input"],
            question=row["instruction"],
            reference="",
            asked_note=row["input"],
        )
        for number, row in enumerate(rows)
    ]
    answers = [
        Answer(item.item_id, model, row[model], "stop", "")
        for item, row in zip(items, rows, strict=True)
        for model in CAMEL_MODELS
    ]
    evaluation = root.child("evaluation")
    evaluation.make()
    write_records(evaluation, ITEMS_NAME, items, Item)
    write_records(evaluation, ANSWERS_NAME, answers, Answer)
