"""A synthesis as a user runs it: watched from another terminal, read by others, mended, purged."""

import csv
import json
import os
import re
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas
import pytest
from command_here import run_here

from asclepius_ray.artifacts import Folder, Manifest, read_manifest
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.prompts.rendering import prompt_hash

pytestmark = pytest.mark.whole

PROJECT = Path(__file__).parents[2]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
CANARY = "zyqcanary"
NUM_ROWS = 60
COLUMNS = ["patient_id", "patient_uid", "note", "question", "answer", "task"]
FAULTY = Faults(latency_seconds=0.8, bad_request=0.06, refusal=0.04)
FIGURES = re.compile(
    r"(?P<done>\d+)(?:/| of )60(?: rows:| ·) "
    r"(?P<ok>\d+) ok, (?P<rejected>\d+) rejected, (?P<failed>\d+) failed, "
    r"(?P<tokens>[\d,]+) tokens, (?P<cost>\d+\.\d+) USD, (?P<refusals>\d+) refusals, "
    r"limit (?P<limit>\d+) calls/min, (?P<left>\d+ s left|\d+ min left|time left unknown)"
)
LOAD = """
import json, sys
import datasets
found = datasets.load_dataset(sys.argv[1], cache_dir=sys.argv[2])
print(json.dumps({split: [table.column_names, table.num_rows, table[0]] for split, table in found.items()}))
"""


@dataclass(frozen=True)
class Finished:
    root: Path
    arguments: list[str]
    lines: list[tuple[float, str]]
    """Seconds since the start, and what was said."""
    status: str
    """What `asclepius status` said while it was at work."""


def write_reports(path: Path) -> None:
    complaints = ("chest pain", "a swollen knee", "fever and cough", "sudden weakness of the left arm")
    drugs = ("aspirin 100 mg daily", "ibuprofen 400 mg", "amoxicillin 500 mg three times a day", "alteplase")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient_id", "patient_uid", "patient", "age", "gender"])
        for row in range(NUM_ROWS):
            text = (
                f"A {30 + row}-year-old man from {CANARY} came to the emergency department with "
                f"{complaints[row % 4]} for {row + 2} days. He had a history of hypertension. His blood "
                f"pressure was {110 + row}/80 mmHg. Computed tomography was done on the second day. He was "
                f"treated with {drugs[row % 4]} and improved. He went home in good condition on day nine."
            )
            writer.writerow([row, f"{9000 + row // 2}-{row % 2 + 1}", text, f"[[{30 + row}.0, 'year']]", "M"])


def environment() -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return clean | {"PYTHONPATH": str(PROJECT)}


def call(*command: str | Path) -> str:
    ended = subprocess.run(
        [ASCLEPIUS, *command], cwd=PROJECT, capture_output=True, text=True, timeout=200, env=environment()
    )
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    assert CANARY not in said
    return said


def settings(root: Path, reports: Path, teacher: OfflineTeacher) -> list[str]:
    price = "{input_usd_per_million_tokens = 1.0, output_usd_per_million_tokens = 2.0, as_of = '2026-11-24'}"
    values = (
        f"root={root}",
        f"input.path={reports}",
        f"teacher.base_url={teacher.base_url}",
        f"teacher.model={OFFLINE_MODEL}",
        f"teacher.price={price}",
        "teacher.max_in_flight=4",
        "teacher.requests_per_minute=600",
        "synthesis.pilot_rows=20",
        "synthesis.max_failed_share=0.5",
    )
    return ["jobs/runs/quickstart.toml", *(part for value in values for part in ("--set", value))]


def watch(root: Path, arguments: Sequence[str]) -> tuple[list[tuple[float, str]], str]:
    """Runs to the end; asks for the status once a dozen rows are done."""
    started = time.monotonic()
    process = subprocess.Popen(
        [ASCLEPIUS, "run", "synthesize", *arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    stream, lines = process.stdout, list[tuple[float, str]]()

    def read() -> None:
        lines.extend((time.monotonic() - started, line.rstrip()) for line in stream)

    reader = threading.Thread(target=read)
    reader.start()
    file = root / "status.json"
    while not file.exists() or json.loads(file.read_text())["rows"]["done"] < 12:
        assert process.poll() is None, lines
        assert time.monotonic() - started < 150, lines
        time.sleep(0.2)
    status = call("status", root)
    assert process.wait(200) == 0, lines
    reader.join()
    return lines, status


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("whole")
    write_reports(folder / "reports.csv")
    with OfflineTeacher(faults=FAULTY) as teacher:
        arguments = settings(folder / "root", folder / "reports.csv", teacher)
        lines, status = watch(folder / "root", arguments)
    return Finished(folder / "root", arguments, lines, status)


def manifest_of(root: Path, artifact: str = "dataset") -> Manifest:
    return read_manifest(Folder(str(root / artifact)))


def read_split(root: Path, split: str) -> pandas.DataFrame:
    return pandas.concat(
        pandas.read_parquet(file) for file in sorted(root.glob(f"dataset/{split}-*.parquet"))
    )


def test_another_terminal_shows_all_figures_of_a_run_at_work(finished: Finished) -> None:
    found = FIGURES.search(finished.status)
    assert found is not None, finished.status
    assert 12 <= int(found["done"]) < NUM_ROWS
    assert int(found["done"]) == sum(int(found[state]) for state in ("ok", "rejected", "failed"))
    assert int(found["tokens"].replace(",", "")) > 1000
    assert float(found["cost"]) > 0
    assert int(found["limit"]) == pytest.approx(600, rel=0.02)
    assert "synthesize  at work" in finished.status
    assert re.search(r"in use by process \d+ on ", finished.status)


def test_the_log_of_a_run_tells_all_figures_every_ten_seconds(finished: Finished) -> None:
    told = [(moment, found) for moment, line in finished.lines if (found := FIGURES.search(line)) is not None]
    assert len(told) >= 3, finished.lines
    assert max(later - earlier for (earlier, _), (later, _) in pairwise(told)) < 10.5
    done = [int(found["done"]) for _moment, found in told]
    assert done == sorted(done)
    assert done[-1] > done[0]
    assert any("left unknown" not in found["left"] for _moment, found in told)
    assert not [line for _moment, line in finished.lines if CANARY in line]


def test_pandas_and_datasets_read_both_splits(finished: Finished, tmp_path: Path) -> None:
    rows = manifest_of(finished.root).details["rows"]
    ended = subprocess.run(
        [sys.executable, "-c", LOAD, finished.root / "dataset", tmp_path / "cache"],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment() | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")},
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    loaded = json.loads(ended.stdout.splitlines()[-1])
    assert set(loaded) == {"train", "validation"}
    for split, (columns, num_rows, first) in loaded.items():
        table = read_split(finished.root, split)
        assert list(table.columns) == columns == COLUMNS
        assert len(table) == num_rows == rows[split] > 0
        assert first == table.iloc[0].to_dict()
        assert table["patient_id"].is_monotonic_increasing


def test_every_file_of_the_root_is_for_its_owner_alone(finished: Finished) -> None:
    files = [path for path in finished.root.rglob("*") if path.is_file()]
    assert len(files) > 10
    open_to_others = {
        str(path.relative_to(finished.root)): oct(stat.S_IMODE(path.stat().st_mode))
        for path in files
        if stat.S_IMODE(path.stat().st_mode) != 0o600
    }
    assert open_to_others == {}
    assert stat.S_IMODE(finished.root.stat().st_mode) == 0o700


def test_the_card_tells_counts_prompts_models_price_and_licence(finished: Finished) -> None:
    card = (finished.root / "dataset" / "README.md").read_text()
    counts = manifest_of(finished.root).counts
    assert f"| read | {NUM_ROWS} |" in card
    assert f"| in the dataset | {counts['ok']} |" in card
    for state in ("rejected", "failed"):
        for reason, number in counts[state].items():
            assert f"| {state}: {reason} | {number} |" in card
    assert all(prompt_hash(step) in card for step in ("note", "question", "answer"))
    assert f"Models that answered: `{OFFLINE_MODEL}`." in card
    assert "1 USD in, 2 USD out, as of 2026-11-24" in card
    assert "Licence of the source: unknown." in card
    assert "license: unknown" in card
    assert str(finished.root) not in card
    assert CANARY not in card


@dataclass(frozen=True)
class Mended:
    """The dataset before and after `--only failed` with a healthy teacher, and what that one was asked."""

    before: Manifest
    after: Manifest
    failed_at: Counter[str]
    """Step → rows that had failed there."""
    asked: dict[str, int]
    lost_rows: int
    """Rows of the dataset that were there before, and are not there as they were."""


def rows_of(root: Path) -> set[tuple[str, ...]]:
    tables = pandas.concat([read_split(root, "train"), read_split(root, "validation")])
    return {tuple(map(str, row)) for row in tables.itertuples(index=False)}


@pytest.fixture(scope="module")
def mended(finished: Finished, ray_cluster: str) -> Mended:
    before, rows = manifest_of(finished.root), rows_of(finished.root)
    rejected = pandas.read_parquet(finished.root / "rejected" / "rejected-00000.parquet")
    failed_at = Counter(rejected[rejected["state"] == "failed"]["stage"])
    with OfflineTeacher() as teacher:
        arguments = [
            f"teacher.base_url={teacher.base_url}" if part.startswith("teacher.base_url=") else part
            for part in finished.arguments
        ]
        code, *said = run_here("run", "synthesize", *arguments, "--only", "failed")
        assert code == 0, said
        assert CANARY not in "".join(said)
        asked = teacher.requests_received
        code, *said = run_here("run", "synthesize", *arguments, "--only", "failed")
        assert code == 2, said
    assert "no row" in "".join(said)
    return Mended(before, manifest_of(finished.root), failed_at, asked, len(rows - rows_of(finished.root)))


def test_only_the_failed_rows_are_asked_anew_and_only_from_where_they_failed(mended: Mended) -> None:
    before, after, failed_at = mended.before.counts, mended.after.counts, mended.failed_at
    assert before["failed"] == {"bad_request": failed_at.total()}
    assert failed_at.total() >= 3
    assert after["failed"] == {}
    assert after["rejected"]["refusal"] == before["rejected"]["refusal"] > 0
    assert after["ok"] > before["ok"]
    assert mended.lost_rows == 0
    assert mended.asked.get("note", 0) == failed_at["note"]
    assert failed_at["question"] <= mended.asked["question"] <= failed_at["note"] + failed_at["question"]
    assert failed_at["answer"] <= mended.asked["answer"] <= failed_at.total()


def holding(root: Path, word: str) -> set[str]:
    return {
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and word.encode() in path.read_bytes()
    }


def test_purge_removes_every_text_but_the_notes_and_the_dataset_and_keeps_the_figures(
    finished: Finished, mended: Mended
) -> None:
    root = finished.root
    artefacts = {name: manifest_of(root, name) for name in ("dataset", "notes", "rejected")}
    before = holding(root, CANARY)
    assert {"report.html", "notes/examples.json"} < before
    assert any(name.startswith("journal/") for name in before)
    assert "files with texts removed" in call("purge", root)
    assert {name for name in holding(root, CANARY) if not name.endswith(".parquet")} == set()
    assert {name: manifest_of(root, name) for name in artefacts} == artefacts
    for name, manifest in artefacts.items():
        assert {file: Folder(str(root / name)).sha256(file) for file in manifest.files} == manifest.files
    assert CANARY in read_split(root, "train")["note"].iloc[0]
    report = (root / "report.html").read_text()
    assert f"{artefacts['dataset'].counts['ok']}" in report
    assert "finished" in call("status", root)
    # What is made from the dataset and the notes is still made from the same.
    said = call("run", "synthesize", *finished.arguments)
    assert "finished already, skipped" in said
