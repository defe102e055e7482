"""Case reports → `notes/`, `rejected/` and `dataset/` of a run, with a teacher, on Ray Data.

The dataset's manifest comes last. Two runs with the same input, settings, seed and replies yield the same
bytes, whatever the number of workers.
"""

import asyncio
import json
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import ray

from asclepius_ray.artifacts import Folder, Manifest, write_manifest
from asclepius_ray.chat.client import check_endpoint
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.run_trouble import trouble_as_error
from asclepius_ray.errors import SynthesisError
from asclepius_ray.progress import Progress
from asclepius_ray.prompts.rendering import prompt_hash
from asclepius_ray.quality.checks import Reason
from asclepius_ray.quality.duplicates import EarlierNotes
from asclepius_ray.synthesis.batch_rounds import DeskAccount, buy_in_batches
from asclepius_ray.synthesis.card import CardSource, render_card
from asclepius_ray.synthesis.config import InputConfig, SynthesisConfig
from asclepius_ray.synthesis.dataset import SplitWriter, write_rejections
from asclepius_ray.synthesis.desk_actor import ask_desk, open_desk
from asclepius_ray.synthesis.ledger import Ledger
from asclepius_ray.synthesis.licences import licence_of_input
from asclepius_ray.synthesis.monitor import Monitor
from asclepius_ray.synthesis.question_pool import build_pool, find_pool, write_pool
from asclepius_ray.synthesis.reports import Reports, load_reports
from asclepius_ray.synthesis.steps import STEPS, Demands
from asclepius_ray.synthesis.walk import PENDING, RowResult, Walk
from asclepius_ray.synthesis.workers import Crew, order_blocks, read_rows, walk_reports
from asclepius_ray.tables.split import choose_validation_articles

JOURNAL_NAME = "journal/teacher"
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


@dataclass(frozen=True)
class Order:
    """What is to be made, and out of what; the same over all runs that make it."""

    input: InputConfig
    config: SynthesisConfig
    teacher: Endpoint
    seed: int
    made_from: dict[str, Any]


def synthesize(root: Folder, order: Order, progress: Progress, only_failed: bool = False) -> Manifest:
    """Makes the dataset and returns its manifest; on any error the journal stays, and nothing else does.

    `only_failed` asks anew for what failed before; every other answer comes from the journal. Raises an
    EndpointError where the teacher as a whole cannot be used, a BudgetError where the budget is reached, an
    InputError for an input that cannot be used, and a SynthesisError where too many rows failed or none
    came through.
    """
    started = time.monotonic()
    progress.begin("checking the teacher")
    asyncio.run(check_endpoint(order.teacher))
    progress.begin("reading the input")
    reports = load_reports(order.input, order.config.workers, order.config.pilot_rows)
    validation = choose_validation_articles(reports.articles, order.config.validation_share, order.seed)
    ledger = Ledger(reports.num_rows + len(reports.rejections), reports.rejections)
    progress.begin("loading the journal")
    with _whole_or_nothing(root) as outputs:
        with trouble_as_error(), open_desk(root.child(JOURNAL_NAME), order.teacher) as desk:
            if only_failed:
                ray.get(desk.forget_failures.remote())
            progress.begin("synthesize", reports.num_rows)
            with Monitor(root, desk, progress, reports.num_rows, ledger.num_input) as monitor:
                results = _walk_all(root, order, reports, desk, monitor)
                written = _write_rows(
                    results,
                    ledger,
                    outputs,
                    validation,
                    reports.sample_texts,
                    order.config.max_note_similarity,
                )
            bought: DeskSnapshot = asyncio.run(ask_desk(desk.snapshot.remote))
        ledger.check(order.config.max_failed_share)
        _check_both_splits(written)
        progress.begin("finishing the dataset")
        _finish_rejected(outputs.rejected, ledger, order.made_from)
        _finish_notes(outputs.notes, written, order.made_from)
        articles = {"train": len(reports.articles) - len(validation), "validation": len(validation)}
        details = {"articles": articles, "rows": written.num_examples, **_details(ledger, order.teacher)}
        name, licence = PurePosixPath(order.input.path).name, licence_of_input(order.input)
        source = CardSource(name, order.input.kind, order.seed, licence)
        outputs.dataset.write_bytes("README.md", render_card(source, ledger.counts(), details).encode())
        details["source"] = {"name": name, "kind": order.input.kind, "licence": asdict(licence)}
        details["seconds"] = round(time.monotonic() - started, 3)
        details["spent"] = _spent(bought)
        return write_manifest(outputs.dataset, "dataset", ledger.counts(), order.made_from, details)


def _walk_all(
    root: Folder, order: Order, reports: Reports, desk: Any, monitor: Monitor
) -> Iterator[RowResult]:
    """All results in input order; freezes the question pool as soon as the pilot round is done."""
    walk = Walk(
        order.teacher,
        order.seed,
        Demands.from_config(order.config),
        text_is_note=order.input.kind == "notes",
        pilot_rows=order.config.pilot_rows,
    )
    sends = order.teacher.transport == "requests"
    crew = Crew(walk, desk, root, order.config.cpus_per_worker, sends)

    def walk_once(monitor: Monitor | None) -> Generator[pa.Table, None, None]:
        with closing(walk_reports(reports, crew, order.config.workers)) as blocks:
            yield from _watch(blocks, root, order, reports.num_pilot_rows, monitor)

    if not crew.sends:
        account = DeskAccount(desk, order.teacher)
        buy_in_batches(lambda: walk_once(None), root, account, order.teacher, monitor.explain)
        monitor.explain("")
    with closing(walk_once(monitor)) as blocks:
        yield from read_rows(order_blocks(blocks, reports.first_rows))


def _watch(
    blocks: Iterable[pa.Table], root: Folder, order: Order, num_pilot_rows: int, monitor: Monitor | None
) -> Iterator[pa.Table]:
    """Passes the blocks on; freezes the question pool once all rows of the pilot round are in."""
    is_frozen = find_pool(root, order.made_from) is not None
    questions: list[tuple[int, str, str]] = []
    num_left = num_pilot_rows
    if not is_frozen and not num_left:
        write_pool(root, build_pool([]), order.made_from)
        is_frozen = True
    for block in blocks:
        if monitor is not None:
            monitor.count(block)
        if not is_frozen and block["row_index"][0].as_py() < order.config.pilot_rows:
            rows = block.select(["row_index", "task", "question", "state"]).to_pylist()
            num_left -= sum(row["state"] != PENDING for row in rows)
            questions += [(row["row_index"], row["task"], row["question"]) for row in rows if row["question"]]
            if not num_left:
                write_pool(root, build_pool(questions), order.made_from)
                is_frozen = True
        yield block


def _spent(bought: DeskSnapshot) -> dict[str, Any]:
    """What all runs on this root have bought together, for this dataset or not."""
    return {
        "calls": sum(step.attempts for step in bought.steps.values()),
        "tokens": bought.num_tokens,
        "cost_usd": bought.cost_usd,
        "unsettled_usd": bought.unsettled_usd if bought.has_price else None,
        "refusals": bought.num_refusals,
    }


@contextmanager
def _whole_or_nothing(root: Folder) -> Iterator[_Outputs]:
    """Empties the three folders, and empties them again if what follows does not come to its end."""
    outputs = _Outputs(root.child("rejected"), root.child("notes"), root.child("dataset"))
    outputs.clear()
    with ExitStack() as undo:
        undo.callback(outputs.clear)
        yield outputs
        undo.pop_all()


def _write_rows(
    results: Iterable[RowResult],
    ledger: Ledger,
    outputs: _Outputs,
    validation: Set[str],
    sample_texts: Mapping[int, str],
    max_note_similarity: float,
) -> _Written:
    """Enters every row into the ledger and writes the tables; a few rows are kept beside their reports."""
    shown: list[dict[str, Any]] = []
    with SplitWriter(outputs.notes, outputs.dataset, validation) as writer:
        for result in _reject_near_duplicates(results, EarlierNotes(max_note_similarity, ledger.num_input)):
            ledger.add(result)
            writer.add(result)
            report = sample_texts.get(result.row_index)
            if result.state == "ok" and report is not None and len(shown) < NUM_EXAMPLES:
                shown.append({"case_report": report, **asdict(result.example)})
    return _Written(writer.num_notes, writer.num_examples, shown)


def _reject_near_duplicates(results: Iterable[RowResult], earlier: EarlierNotes) -> Iterator[RowResult]:
    """Of notes that are nearly the same only the first in input order stays."""
    for result in results:
        if result.state != "ok" or earlier.add_if_new(result.note):
            yield result
        else:
            rejected = replace(result, state="rejected", stage=STEPS[0], reason=Reason.NEAR_DUPLICATE.value)
            yield replace(rejected, note="", question="", answer="")


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
    # The examples are for the report's page, and no part of what is made from the notes.
    tables = [name for name in folder.names() if name != EXAMPLES_NAME]
    write_manifest(folder, "notes", written.num_notes, made_from, files=tables)


def _details(ledger: Ledger, teacher: Endpoint) -> dict[str, Any]:
    return {
        "tasks": ledger.tasks,
        "usage": ledger.usage,
        "is_usage_estimated": ledger.is_usage_estimated,
        "cost_usd": ledger.cost_usd(teacher.price),
        "teacher": {"model": teacher.model, "is_offline": teacher.is_offline},
        "models": ledger.models,
        "price": teacher.price.model_dump() if teacher.price is not None else None,
        "prompts": {step: prompt_hash(step) for step in STEPS},
    }
