"""Small `notes/` and `dataset/` artefacts, as the synthesis stage writes them."""

import random

import pyarrow as pa
import pyarrow.parquet as pq

from asclepius_ray.artifacts import Folder, write_manifest

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
