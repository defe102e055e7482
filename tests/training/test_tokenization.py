"""Rows → the token store: every row kept or counted by reason, one store whatever the order of the work."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from artefacts import note_of
from transformers import PreTrainedTokenizerBase

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.errors import TrainingError
from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.tokens.rendering import prompt_ids, render_example, render_note
from asclepius_ray.tokens.store import open_documents
from asclepius_ray.tokens.tokenizer import train_tokenizer
from asclepius_ray.training import tokenization
from asclepius_ray.training.tokenization import (
    Dropped,
    plan_pieces,
    require_few_dropped,
    tokenize_rows,
    tokenize_sources,
    tokenizer_sha256,
)

LENGTH = 256
QUESTION, ANSWER = "Which drug does the patient take home?", "Aspirin, once a day."
SHORT, LONG = note_of(1), "\n".join(note_of(number) for number in range(40))
ROWS = {
    "fits": {"note": SHORT, "question": QUESTION, "answer": ANSWER},
    "long note": {"note": LONG, "question": QUESTION, "answer": ANSWER},
    "long answer": {"note": SHORT, "question": QUESTION, "answer": ANSWER * 60},
    "empty answer": {"note": SHORT, "question": QUESTION, "answer": " \n"},
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    found = train_tokenizer((note_of(number) for number in range(20)), 400)
    ensure_chat_template(found)
    return found


@pytest.mark.parametrize("overlong", ["shorten", "reject"])
def test_every_example_is_kept_whole_or_counted(tokenizer: PreTrainedTokenizerBase, overlong: str) -> None:
    tokens = TokensConfig(sequence_length=LENGTH, overlong=overlong)
    documents, counts = tokenize_rows(tokenizer, "instructions", ROWS.values(), tokens)
    shorten = overlong == "shorten"
    assert counts["rows"] == 4
    assert counts["documents"] == len(documents) == (2 if shorten else 1)
    assert counts["shortened"] == (1 if shorten else 0)
    dropped = {reason: counts[reason] for reason in Dropped}
    assert dropped == {"answer_too_long": 1, "too_long": 0 if shorten else 1, "empty": 1}
    assert counts["rows"] == counts["documents"] + sum(dropped.values())
    for document in documents:
        paid = [token for token, target in zip(document.input_ids, document.loss_mask, strict=True) if target]
        assert tokenizer.decode(paid[:-1]) == ANSWER
        assert len(document.input_ids) <= LENGTH
    assert counts["tokens"] == sum(len(document.input_ids) for document in documents)
    assert counts["loss_tokens"] == sum(sum(document.loss_mask) for document in documents)
    assert documents[0].input_ids[: -sum(documents[0].loss_mask)] == prompt_ids(tokenizer, SHORT, QUESTION)


@pytest.mark.parametrize("overlong", ["shorten", "reject"])
def test_every_note_is_kept_whole_or_counted(tokenizer: PreTrainedTokenizerBase, overlong: str) -> None:
    tokens = TokensConfig(sequence_length=LENGTH, overlong=overlong)
    notes = [{"note": SHORT}, {"note": LONG}, {"note": "\n"}]
    documents, counts = tokenize_rows(tokenizer, "notes", notes, tokens)
    kept = [SHORT, LONG] if overlong == "shorten" else [SHORT]
    expected = [piece for note in kept for piece in render_note(tokenizer, note, LENGTH)]
    assert documents == expected
    assert len(render_note(tokenizer, LONG, LENGTH)) > 2
    assert {reason: counts[reason] for reason in Dropped} == {
        "answer_too_long": 0,
        "too_long": 2 - len(kept),
        "empty": 1,
    }


def counts_of(rows: int, **dropped: int) -> dict[str, object]:
    return {"rows": rows, "dropped": {reason: dropped.get(reason, 0) for reason in Dropped}}


def test_too_large_a_share_of_rows_without_a_target_ends_the_run() -> None:
    counts = {
        "instructions/train": counts_of(90, too_long=3, empty=1),
        "instructions/validation": counts_of(10, too_long=2),
        "notes/train": counts_of(10, empty=9),
        "notes/validation": counts_of(0),
    }
    require_few_dropped(counts, ["instructions"], 0.06)
    with pytest.raises(
        TrainingError, match=r"6 of 100 rows of kind 'instructions'.*\(empty 1, too_long 5\)"
    ) as failed:
        require_few_dropped(counts, ["instructions"], 0.05)
    assert "tokens.max_dropped_share = 0.05" in str(failed.value)
    with pytest.raises(TrainingError, match=r"9 of 10 rows of kind 'notes'"):
        require_few_dropped(counts, ["notes", "instructions"], 0.06)


def write_rows(folder: Folder, split: str, numbers: range, group_rows: int) -> None:
    table = pa.table(
        {
            "note": [note_of(number) for number in numbers],
            "question": [f"{QUESTION} ({number})" for number in numbers],
            "answer": [ANSWER for _ in numbers],
        }
    )
    with folder.open_output(f"{split}-00000.parquet") as stream:
        pq.write_table(table, stream, row_group_size=group_rows)


@pytest.fixture
def root(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Folder:
    """Sources with row groups that the pieces cut across, and a tokenizer."""
    root = Folder(str(tmp_path))
    for kind in ("notes", "instructions"):
        write_rows(root.child(kind), "train", range(23), group_rows=5)
        write_rows(root.child(kind), "validation", range(23, 26), group_rows=2)
    tokenizer.save_pretrained(tmp_path / "base_model")
    return root


def make_store(root: Folder, name: str) -> dict[str, dict[str, object]]:
    sources = {kind: root.child(kind) for kind in ("notes", "instructions")}
    tokens = TokensConfig(sequence_length=LENGTH)
    store = root.child(name)
    counts, shards = tokenize_sources(sources, root.child("base_model"), store, "the tests", tokens)
    assert set(shards) == {file for file in store.names() if "index" not in file}
    return counts


@pytest.mark.whole
def test_the_store_holds_every_row_in_order_whoever_was_done_first(
    ray_cluster: str, root: Folder, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "PIECE_ROWS", 4)
    sources = {kind: root.child(kind) for kind in ("notes", "instructions")}
    assert len(plan_pieces(sources)) == 2 * (6 + 1)
    counts = make_store(root, "one")
    assert counts == make_store(root, "other")
    one, other = (write_manifest(root.child(name), "tokens", {}, {}).files for name in ("one", "other"))
    assert one == other
    assert len(one) == 2 * (6 + 1) + 4
    for split, numbers in (("train", range(23)), ("validation", range(23, 26))):
        found = open_documents(root.child("one").local_path, "instructions", split)
        counted = counts[f"instructions/{split}"]
        assert counted["rows"] == len(found) == len(numbers)
        assert counted["tokens"] == found.index.tokens.sum() > 0
        assert counted["loss_tokens"] == found.index.loss_tokens.sum() > 0
        for place, number in enumerate(numbers):
            question = f"{QUESTION} ({number})"
            expected = render_example(tokenizer, note_of(number), question, ANSWER, LENGTH)
            assert expected is not None
            assert found.tokens(place)[0].tolist() == expected.input_ids
            assert found.tokens(place)[1].tolist() == expected.loss_mask


def test_another_tokenizer_has_another_hash(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    folder = Folder(str(tmp_path))
    hashes = []
    for template in ("one {{ messages }}", "one {{ messages }}", "two {{ messages }}"):
        tokenizer_of_its_own = train_tokenizer([SHORT], 300)
        tokenizer_of_its_own.chat_template = template
        tokenizer_of_its_own.save_pretrained(tmp_path)
        names = {"tokenizer_files": [name for name in folder.names() if name != "manifest.json"]}
        hashes.append(tokenizer_sha256(write_manifest(folder, "base_model", {}, {}, names)))
    assert hashes[0] == hashes[1] != hashes[2]
