"""Small `notes/` and `dataset/` artefacts as the synthesis writes them, token stores, a foreign model."""

import random
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.tokens.packing import pack_in_order
from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.tokens.store import open_documents, write_index, write_shard
from asclepius_ray.tokens.tokenizer import train_tokenizer
from asclepius_ray.training.batches import PackedRows

SUBJECTS = ("pneumonia", "hip fracture", "appendicitis", "atrial fibrillation", "migraine", "anaemia")
DRUGS = ("aspirin", "amoxicillin", "metoprolol", "ibuprofen", "iron", "heparin")


def note_of(number: int) -> str:
    draw = random.Random(number)
    lines = [
        "Discharge Summary",
        f"History: a {20 + number} year old patient came with {draw.choice(SUBJECTS)}.",
    ]
    lines += [
        f"Day {day}: {draw.choice(DRUGS)} was given and the patient felt {draw.choice(('better', 'worse'))}."
        for day in range(1, 3 + draw.randrange(8))
    ]
    return "\n".join([*lines, f"Discharge medication: {draw.choice(DRUGS)}."])


def write_inputs(root: Folder, train_rows: int = 24, validation_rows: int = 4) -> None:
    """Writes both artefacts below `root`, with their manifests."""
    first = 0
    for split, rows in (("train", train_rows), ("validation", validation_rows)):
        numbers = range(first, first + rows)
        first += rows
        notes = {
            "row_index": list(numbers),
            "patient_id": list(numbers),
            "patient_uid": [f"{number}-1" for number in numbers],
            "note": [note_of(number) for number in numbers],
        }
        dataset = {
            **{name: notes[name] for name in ("patient_id", "patient_uid", "note")},
            "question": ["Which drug does the patient take home?" for _ in numbers],
            "answer": [note.rsplit(": ", 1)[1] for note in notes["note"]],
            "task": ["Question Answering" for _ in numbers],
        }
        for name, table in (("notes", notes), ("dataset", dataset)):
            with root.child(name).open_output(f"{split}-00000.parquet") as stream:
                pq.write_table(pa.table(table), stream)
    for name in ("notes", "dataset"):
        write_manifest(root.child(name), name, {"ok": train_rows + validation_rows}, {"test": True})


def write_store(folder: Path, documents: Mapping[str, Sequence[TokenizedExample]]) -> None:
    """A token store of one shard for each of "notes/train", "notes/validation", ..."""
    store = Folder(str(folder))
    for name, examples in documents.items():
        kind, split = name.split("/")
        write_index(store, kind, split, [write_shard(store, kind, split, 0, examples)])


def pack_rows(documents: Sequence[TokenizedExample], length: int) -> PackedRows:
    """Rows of these documents; the files of their store are gone once they are mapped."""
    with tempfile.TemporaryDirectory() as folder:
        write_store(Path(folder), {"notes/train": documents})
        found = open_documents(Path(folder), "notes", "train")
    return PackedRows(found, pack_in_order(found.index.tokens, length))


CHATML = (
    "{% for message in messages %}{{ '<|user|>' if message['role'] == 'user' else '<|reply|>' }}"
    "{{ message['content'] + '<|stop|>\n' }}{% endfor %}{% if add_generation_prompt %}<|reply|>{% endif %}"
)


def save_foreign_model(folder: Path, positions: int = 512) -> None:
    """A model as others publish it: untied weights, 16 bits, its own template with its own end token."""
    tokenizer = train_tokenizer((note_of(number) for number in range(20)), 400)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|reply|>", "<|stop|>"]})
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
