"""Packing: every document once, rows nearly full, fast, and another order makes other rows."""

import csv
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from asclepius_ray.chat.offline.note import write_note
from asclepius_ray.chat.offline.question import ask_question
from asclepius_ray.chat.offline.rules import answer_question
from asclepius_ray.prompts.rendering import task_prompt
from asclepius_ray.records import Task
from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.packing import Packing, pack_in_order, plan_rows
from asclepius_ray.tokens.rendering import TokenizedExample, render_example, render_note
from asclepius_ray.tokens.tokenizer import train_tokenizer

PAPERS_DOCUMENTS = 158_114


def draw_lengths(count: int, longest: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, longest + 1, count).astype(np.int32)


def shuffled(lengths: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(lengths)).astype(np.int32)


def rows_of(packing: Packing) -> list[tuple[int, ...]]:
    return [tuple(packing.row(number).tolist()) for number in range(len(packing))]


def real_share(packing: Packing, lengths: np.ndarray, sequence_length: int) -> float:
    return float(lengths.sum()) / (len(packing) * sequence_length)


@pytest.mark.parametrize("count", [0, 1, 7, 500])
def test_packing_loses_no_document_and_overfills_no_row(count: int) -> None:
    lengths = draw_lengths(count, 64, seed=count)
    packing = pack_in_order(lengths, 64)
    rows = rows_of(packing)
    assert sorted(number for row in rows for number in row) == list(range(count))
    assert all(0 < lengths[list(row)].sum() <= 64 for row in rows)
    assert packing.sums(lengths).tolist() == [lengths[list(row)].sum() for row in rows]
    assert len(rows) <= 1.2 * lengths.sum() / 64 + 1
    assert rows_of(pack_in_order(lengths, 64)) == rows


def test_rows_are_filled_to_the_end_where_the_lengths_allow_it() -> None:
    lengths = np.array([7, 3, 4, 6, 5, 3, 2, 10], dtype=np.int32)
    packing = pack_in_order(lengths, 10)
    assert packing.sums(lengths).tolist() == [10] * 4


def test_another_order_packs_other_documents_together_in_as_many_rows() -> None:
    lengths = draw_lengths(300, 64) % 8 + 1
    plan = plan_rows(lengths, 64)
    packings = [plan.filled(lengths, shuffled(lengths, seed)) for seed in (1, 1, 2)]
    together = [{frozenset(row) for row in rows_of(packing)} for packing in packings]
    assert together[0] == together[1]
    assert len(together[0] & together[2]) < len(together[0]) / 4
    for packing in packings:
        assert sorted(packing.documents.tolist()) == list(range(300))
        assert lengths[packing.documents].tolist() == plan.lengths.tolist()


def test_reordered_rows_are_the_same_rows() -> None:
    lengths = draw_lengths(200, 64)
    packing = pack_in_order(lengths, 64)
    order = np.random.default_rng(1).permutation(len(packing)).astype(np.int32)
    assert rows_of(packing.reordered(order)) == [rows_of(packing)[number] for number in order]
    assert rows_of(packing.reordered(order)) != rows_of(packing)


@pytest.mark.parametrize("wrong", [0, 65])
def test_a_document_that_fits_no_row_cannot_be_packed(wrong: int) -> None:
    lengths = np.array([3, wrong], dtype=np.int32)
    with pytest.raises(ValueError, match=f"document 1 has {wrong} tokens"):
        plan_rows(lengths, 64)


# Mean and spread of the tokens of notes and of examples, by tokenizers that cut finely or coarsely.
@pytest.mark.parametrize(("mean", "spread"), [(450, 120), (560, 150), (640, 120), (900, 250)])
def test_the_papers_dataset_is_packed_in_seconds_and_nearly_full(mean: int, spread: int) -> None:
    drawn = np.random.default_rng(7).normal(mean, spread, PAPERS_DOCUMENTS)
    lengths = drawn.clip(60, 2048).astype(np.int32)
    started = time.process_time()
    packing = plan_rows(lengths, 2048).filled(lengths, shuffled(lengths, 1))
    assert time.process_time() - started < 20
    assert real_share(packing, lengths, 2048) >= 0.98
    assert np.array_equal(np.sort(packing.documents), np.arange(PAPERS_DOCUMENTS))


@pytest.fixture(scope="module")
def real_documents(shared_data: Path) -> dict[str, list[TokenizedExample]]:
    """Both kinds of documents made from real case reports, by the offline teacher's rules."""
    with (shared_data / "pmc_patients" / "v1_first_500.csv").open(newline="", encoding="utf-8") as stream:
        reports = [row["patient"].replace("\\n", "\n") for row in csv.DictReader(stream)]
    notes = [write_note(report) for report in reports]
    tokenizer = train_tokenizer(notes, 2048)
    ensure_chat_template(tokenizer)
    examples = [example_of(tokenizer, note, number) for number, note in enumerate(notes)]
    return {
        "notes": [piece for note in notes for piece in render_note(tokenizer, note, 2048)],
        "instructions": [example for example in examples if example],
    }


def example_of(tokenizer: PreTrainedTokenizerBase, note: str, number: int) -> TokenizedExample | None:
    task = list(Task)[number % len(Task)]
    question = ask_question(note, task.value, task_prompt(task).seed_questions[:3])
    return render_example(tokenizer, note, question, answer_question(note, question), 2048)


@pytest.mark.parametrize("kind", ["notes", "instructions"])
def test_98_percent_of_the_positions_are_real_tokens_of_real_notes(
    real_documents: dict[str, list[TokenizedExample]], kind: str
) -> None:
    documents = real_documents[kind]
    assert len(documents) >= 500
    lengths = np.array([len(document.input_ids) for document in documents], dtype=np.int32)
    packing = plan_rows(lengths, 2048).filled(lengths, shuffled(lengths, 1))
    assert real_share(packing, lengths, 2048) >= 0.98
    packed = Counter(token for number in packing.documents for token in documents[number].input_ids)
    assert packed == Counter(token for document in documents for token in document.input_ids)
