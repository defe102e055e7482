"""The tables hold every row once, in order, cut by count alone; articles never fall on both sides."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.records import Rejection, Task
from asclepius_ray.synthesis.dataset import SplitWriter, write_rejections
from asclepius_ray.synthesis.walk import RowResult
from asclepius_ray.tables.writer import SHARD_ROWS, TableWriter

OK = RowResult(0, "1-1", 1, "1-1", "1", "ok", "", "", "N", "Q", "A", Task.SUMMARIZATION.value, {})
NUMBERS = pa.schema([("number", pa.int64())])


@pytest.mark.parametrize(
    ("num_rows", "shards"),
    [(0, [0]), (1, [1]), (SHARD_ROWS, [SHARD_ROWS]), (SHARD_ROWS + 1, [SHARD_ROWS, 1])],
    ids=["empty", "one", "full", "one_more"],
)
def test_shards_are_cut_by_count_and_lose_no_row(tmp_path: Path, num_rows: int, shards: list[int]) -> None:
    with TableWriter(Folder(str(tmp_path)), "train", NUMBERS) as writer:
        for number in range(num_rows):
            writer.add({"number": number})
    names = [f"train-{shard:05d}.parquet" for shard in range(len(shards))]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    tables = [pq.read_table(tmp_path / name) for name in names]
    assert [table.num_rows for table in tables] == shards
    assert pa.concat_tables(tables)["number"].to_pylist() == list(range(num_rows))
    metadata = pq.ParquetFile(tmp_path / names[0]).metadata
    if num_rows:
        assert metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_row_goes_to_the_side_of_its_article(tmp_path: Path) -> None:
    results = [replace(OK, row_index=n, patient_uid=f"{n % 5}-{n}", article=str(n % 5)) for n in range(20)]
    notes, dataset = Folder(str(tmp_path / "notes")), Folder(str(tmp_path / "dataset"))
    with SplitWriter(notes, dataset, {"1", "3"}) as writer:
        for result in results:
            writer.add(result)
    held_out = pq.read_table(tmp_path / "dataset/validation-00000.parquet")["patient_uid"].to_pylist()
    train = pq.read_table(tmp_path / "dataset/train-00000.parquet")["patient_uid"].to_pylist()
    assert held_out == [r.patient_uid for r in results if r.article in {"1", "3"}]
    assert train == [r.patient_uid for r in results if r.article not in {"1", "3"}]
    assert writer.num_examples == {"train": 12, "validation": 8}


def test_a_note_is_kept_without_its_answer_and_the_example_is_not(tmp_path: Path) -> None:
    notes, dataset = Folder(str(tmp_path / "notes")), Folder(str(tmp_path / "dataset"))
    with SplitWriter(notes, dataset, {"9"}) as writer:
        writer.add(replace(OK, state="rejected", stage="answer", reason="refusal", answer=""))
        writer.add(replace(OK, state="failed", stage="note", reason="timeout", note=""))
    assert writer.num_notes == {"train": 1, "validation": 0}
    assert writer.num_examples == {"train": 0, "validation": 0}
    row = pq.read_table(tmp_path / "notes/train-00000.parquet").to_pylist()
    assert row == [{"row_index": 0, "patient_id": 1, "patient_uid": "1-1", "note": "N"}]


def test_rejected_rows_are_in_input_order_and_carry_no_text(tmp_path: Path) -> None:
    rows = [
        Rejection(2, "c", "failed", "note", "timeout"),
        Rejection(0, "a", "rejected", "input", "empty_text"),
        Rejection(1, "b", "rejected", "answer", "refusal"),
    ]
    write_rejections(Folder(str(tmp_path)), rows)
    table = pq.read_table(tmp_path / "rejected-00000.parquet")
    assert table.column_names == ["row_index", "row_id", "state", "stage", "reason"]
    assert table["row_id"].to_pylist() == ["a", "b", "c"]


def test_an_error_in_the_middle_closes_the_file(tmp_path: Path) -> None:
    def write_and_stop() -> None:
        with TableWriter(Folder(str(tmp_path)), "t", NUMBERS) as writer:
            writer.add({"number": 1})
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_and_stop()
    assert pq.read_table(tmp_path / "t-00000.parquet").num_rows == 0
