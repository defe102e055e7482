"""An invented evaluation, one of three real models' answers to real notes, and a browser."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from invented_study import write_study
from playwright.sync_api import Browser, sync_playwright

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.records import (
    ANSWERS_NAME,
    ITEMS_NAME,
    Answer,
    Item,
    ItemKind,
    write_records,
)

CAMEL = Path(__file__).resolve().parents[4] / "shared" / "data" / "mtsamples" / "camel_eval_500.jsonl"
CAMEL_MODELS = ("gpt-3.5", "alpaca", "clinical-alpaca")
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


@pytest.fixture
def study(tmp_path: Path) -> Folder:
    root = Folder(str(tmp_path / "run"))
    write_study(root)
    return root


@pytest.fixture
def camel(tmp_path: Path) -> Folder:
    """500 items over 50 real discharge summaries with the answers of three real models."""
    if not CAMEL.is_file():
        pytest.skip(f"the real answers of {CAMEL.name} are not beside the project")
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
    root = Folder(str(tmp_path / "camel"))
    evaluation = root.child("evaluation")
    evaluation.make()
    write_records(evaluation, ITEMS_NAME, items, Item)
    write_records(evaluation, ANSWERS_NAME, answers, Answer)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield started
        started.close()
