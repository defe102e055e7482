"""A run's root with a model that has read notes, and tables of texts beside it."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from realism_models import NOTES, POEMS, save_model_that_has_read

from asclepius_ray.artifacts import Folder, write_manifest


@pytest.fixture(scope="session")
def model_that_read_notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("has_read")
    save_model_that_has_read(NOTES, folder)
    return folder


@pytest.fixture
def realism_root(tmp_path: Path, model_that_read_notes: Path) -> Folder:
    """A root whose own model knows notes, with its own notes, and with poems.csv beside them."""
    root = Folder(str(tmp_path / "root"))
    root.make()
    model = root.child("model")
    model.upload(model_that_read_notes)
    write_manifest(model, "model", {}, {})
    notes = root.child("notes")
    notes.make()
    for split, texts in (("train", NOTES[:20]), ("validation", NOTES[20:])):
        rows = [{"patient_uid": f"{place}-1", "note": text} for place, text in enumerate(texts)]
        with notes.open_output(f"{split}-00000.parquet") as stream:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    write_manifest(notes, "notes", {}, {"seed": 1})
    lines = ["number,verse", *(f'{place},"{text}"' for place, text in enumerate(POEMS))]
    (tmp_path / "poems.csv").write_text("\n".join(lines) + "\n")
    return root
