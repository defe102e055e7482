"""Case reports → `notes/`, `rejected/` and `dataset/` of a run, with a teacher, on Ray Data.

The dataset's manifest comes last. Two runs with the same input, settings, seed and replies yield the same
bytes, whatever the number of workers.
"""

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from asclepius_ray.artifacts import Folder, Manifest, write_manifest
from asclepius_ray.chat.client import check_endpoint
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.errors import SynthesisError
from asclepius_ray.progress import Progress
from asclepius_ray.prompts.rendering import prompt_hash
from asclepius_ray.synthesis.card import CardSource, render_card
from asclepius_ray.synthesis.config import InputConfig, SynthesisConfig
from asclepius_ray.synthesis.dataset import SplitWriter, write_rejections
from asclepius_ray.synthesis.ledger import Ledger
from asclepius_ray.synthesis.reports import load_reports
from asclepius_ray.synthesis.split import choose_validation_articles
from asclepius_ray.synthesis.steps import STEPS
from asclepius_ray.synthesis.walk import RowResult, Walk
from asclepius_ray.synthesis.workers import order_rows, walk_reports

NUM_EXAMPLES = 5
EXAMPLES_NAME = "examples.json"


@dataclass(frozen=True)
class _Outputs:
    """The three folders of the stage; the dataset's manifest is the last that is written."""

    rejected: Folder
    notes: Folder
    dataset: Folder

    def clear(self) -> None:
        for folder in (self.dataset, self.notes, self.rejected):
            folder.clear()


@dataclass(frozen=True)
class _Written:
    """What stands in the tables of notes and of the dataset."""

    num_notes: dict[str, int]
    """Split → rows."""
    num_examples: dict[str, int]
    """Split → rows."""
    shown: list[dict[str, Any]]
    """A few rows beside their case reports, for the report's page."""


def synthesize(  # noqa: PLR0913 - the stage's own settings beside what every stage is given
    root: Folder,
    input_config: InputConfig,
    config: SynthesisConfig,
    teacher: Endpoint,
    seed: int,
    progress: Progress,
    made_from: dict[str, Any],
) -> Manifest:
    """Makes the dataset and returns its manifest; on any error nothing of it stays.

    Raises an EndpointError where the teacher as a whole cannot be used, an InputError for an input that
    cannot, and a SynthesisError where too many rows failed or none came through.
    """
    started = time.monotonic()
    progress.begin("checking the teacher")
    asyncio.run(check_endpoint(teacher))
    progress.begin("reading the input")
    reports = load_reports(input_config, config.workers)
    validation = choose_validation_articles(reports.articles, config.validation_share, seed)
    ledger = Ledger(reports.num_rows + len(reports.rejections), reports.rejections)
    walk = Walk(teacher, seed, config.min_note_words, text_is_note=input_config.kind == "notes")
    with _whole_or_nothing(root) as outputs:
        progress.begin("synthesize", reports.num_rows)
        with closing(walk_reports(reports, walk, config.workers)) as blocks:
            results = order_rows(_count_rows(blocks, ledger, progress), reports.first_rows)
            written = _write_rows(results, outputs, validation, reports.sample_texts)
        ledger.check(config.max_failed_share)
        _check_both_splits(written)
        progress.begin("finishing the dataset")
        _finish_rejected(outputs.rejected, ledger, made_from)
        _finish_notes(outputs.notes, written, made_from)
        articles = {"train": len(reports.articles) - len(validation), "validation": len(validation)}
        details = {"articles": articles, "rows": written.num_examples, **_details(ledger, teacher)}
        source = CardSource(PurePosixPath(input_config.path).name, input_config.kind, seed)
        outputs.dataset.write_bytes("README.md", render_card(source, ledger.counts(), details).encode())
        details["seconds"] = round(time.monotonic() - started, 3)
        return write_manifest(outputs.dataset, "dataset", ledger.counts(), made_from, details)


@contextmanager
def _whole_or_nothing(root: Folder) -> Iterator[_Outputs]:
    """Empties the three folders, and empties them again if what follows does not come to its end."""
    outputs = _Outputs(root.child("rejected"), root.child("notes"), root.child("dataset"))
    outputs.clear()
    with ExitStack() as undo:
        undo.callback(outputs.clear)
        yield outputs
        undo.pop_all()


def _count_rows(
    blocks: Iterable[list[RowResult]], ledger: Ledger, progress: Progress
) -> Iterator[list[RowResult]]:
    """Enters every row into the ledger and shows how far it is, as soon as its block is done."""
    done = 0
    for block in blocks:
        for result in block:
            ledger.add(result)
        done += len(block)
        progress.update(done, detail=_describe(ledger))
        yield block


def _describe(ledger: Ledger) -> str:
    lost = ", ".join(f"{sum(ledger.by_reason(state).values())} {state}" for state in ("rejected", "failed"))
    return f"{ledger.num_tokens:,} tokens, {lost}"


def _write_rows(
    results: Iterable[RowResult], outputs: _Outputs, validation: Set[str], sample_texts: Mapping[int, str]
) -> _Written:
    """Writes the tables of notes and examples; a few rows are kept beside their case reports."""
    shown: list[dict[str, Any]] = []
    with SplitWriter(outputs.notes, outputs.dataset, validation) as writer:
        for result in results:
            writer.add(result)
            report = sample_texts.get(result.row_index)
            if result.state == "ok" and report is not None and len(shown) < NUM_EXAMPLES:
                shown.append({"case_report": report, **asdict(result.example)})
    return _Written(writer.num_notes, writer.num_examples, shown)


def _check_both_splits(written: _Written) -> None:
    num_ok = sum(written.num_examples.values())
    if not written.num_examples["train"]:
        raise SynthesisError(
            f"all {num_ok} rows that came through are of held-out articles, none is left to train on; use "
            "more rows (input.limit), or lower synthesis.validation_share"
        )
    if not written.num_examples["validation"]:
        raise SynthesisError(
            f"none of the {num_ok} rows that came through is of a held-out article, so nothing is left to "
            "validate on; use more rows (input.limit), or raise synthesis.validation_share"
        )


def _finish_rejected(folder: Folder, ledger: Ledger, made_from: dict[str, Any]) -> None:
    write_rejections(folder, ledger.rejections)
    counts = {state: ledger.by_reason(state) for state in ("rejected", "failed")}
    write_manifest(folder, "rejected", counts, made_from)


def _finish_notes(folder: Folder, written: _Written, made_from: dict[str, Any]) -> None:
    content = json.dumps(written.shown, ensure_ascii=False, indent=1) + "\n"
    folder.write_bytes(EXAMPLES_NAME, content.encode())
    write_manifest(folder, "notes", written.num_notes, made_from)


def _details(ledger: Ledger, teacher: Endpoint) -> dict[str, Any]:
    return {
        "tasks": ledger.tasks,
        "usage": ledger.usage,
        "is_usage_estimated": ledger.is_usage_estimated,
        "cost_usd": ledger.cost_usd(teacher.price),
        "teacher": {"model": teacher.model, "is_offline": teacher.is_offline},
        "prompts": {step: prompt_hash(step) for step in STEPS},
    }
