"""A synthesis of very many rows: memory that stays flat, the rows' order, calls a second."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import Note
from contest import Result, run_contender
from process_watch import DAEMON
from teacher_process import teacher_process
from workload import write_reports

FLAT_SHARE = 0.10
MOST_DESK_MIB = 500
QUICK_ROWS = 4_000
WORKERS = 2
SPLITS = ("train", "validation")


@pytest.fixture(scope="module")
def num_rows(num_long_rows: int, is_quick: bool) -> int:
    return QUICK_ROWS if is_quick else num_long_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("many")


@pytest.fixture(scope="module")
def ours(num_rows: int, folder: Path) -> Result:
    write_reports(folder / "reports.csv", num_rows)
    settings = {
        "reports": str(folder / "reports.csv"),
        "workers": WORKERS,
        "nodes": 1,
        "endpoint": {"max_in_flight": 400},
    }
    with teacher_process(short=1) as teacher:
        return run_contender("ours", teacher, settings, folder / "run")


def test_memory_is_flat_over_very_many_rows(ours: Result, num_rows: int, is_quick: bool, note: Note) -> None:
    served = ours.served
    begin, quarter = served.first_call_at, served.seconds / 4
    growths = {}
    for life in ours.lives:
        second = life.mean_mib(begin + quarter, begin + 2 * quarter)
        last = life.mean_mib(begin + 3 * quarter, begin + 4 * quarter)
        if life.role != DAEMON and second is not None and last is not None:
            growths[f"{life.role} {life.pid}"] = (second, last)
    told = ", ".join(f"{who} {second:.0f} -> {last:.0f} MiB" for who, (second, last) in growths.items())
    note(
        "many rows",
        f"ours, {WORKERS} workers",
        served.num_accepted,
        ours.seconds,
        f"{num_rows:,} rows, {served.calls_per_second:.0f} calls/s; second quarter -> last: {told}",
        "driver and workers within 10 %, order kept",
    )
    assert len(growths) == WORKERS + 2, told
    for who, (second, last) in growths.items():
        if who.startswith("desk"):
            # The index of all that was bought: some 150 bytes an answer.
            assert last < MOST_DESK_MIB, told
        else:
            assert is_quick or abs(last - second) <= FLAT_SHARE * second, told


def test_order_is_kept_over_very_many_rows(ours: Result, num_rows: int, folder: Path) -> None:
    assert ours.num_lost == 0
    seen = 0
    for split in SPLITS:
        files = sorted((folder / "run" / "root" / "dataset").glob(f"{split}-*.parquet"))
        ids = [
            row
            for file in files
            for row in pq.read_table(file, columns=["patient_id"])["patient_id"].to_pylist()
        ]
        assert ids == sorted(ids)
        seen += len(set(ids))
    # The invented reports repeat themselves, so that some of their notes are near duplicates.
    counts = ours.said["counts"]
    assert seen == counts["ok"]
    assert num_rows == counts["ok"] + counts["rejected"].get("near_duplicate", 0)
