"""The whole stage on a real cluster with a real endpoint: what it leaves, and when it leaves nothing."""

import csv
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from rich.console import Console
from scripted_teacher import REPLIES, ScriptedTeacher

from asclepius_ray.artifacts import Folder, Manifest, is_finished, read_manifest
from asclepius_ray.chat.config import OFFLINE_MODEL, BatchConfig, PriceConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.errors import EndpointError, InputError, SynthesisError
from asclepius_ray.progress import Progress
from asclepius_ray.records import Task
from asclepius_ray.synthesis.config import InputConfig, SynthesisConfig
from asclepius_ray.synthesis.stage import Order, synthesize
from asclepius_ray.synthesis.steps import draw_task
from asclepius_ray.tables.split import choose_validation_articles

pytestmark = pytest.mark.whole

CANARY = "Zebracanary"
MADE_FROM = {"seed": 7}
NUM_INVENTED = 60
SETTINGS = SynthesisConfig(validation_share=0.2)
PRICE = PriceConfig(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=2.0)


def _run(
    root: Path,
    teacher: Endpoint,
    source: InputConfig,
    config: SynthesisConfig = SETTINGS,
    progress: Progress | None = None,
) -> Manifest:
    shown = progress or Progress(Console(quiet=True))
    return synthesize(Folder(str(root)), Order(source, config, teacher, 7, MADE_FROM), shown)


def _offline(teacher: OfflineTeacher) -> Endpoint:
    return Endpoint(teacher.base_url, OFFLINE_MODEL, is_offline=True, max_attempts=2, price=PRICE)


def _read(root: Path, pattern: str) -> list[dict[str, Any]]:
    return pa.concat_tables([pq.read_table(file) for file in sorted(root.glob(pattern))]).to_pylist()


def _artefacts(root: Path) -> list[Path]:
    """What stands in the stage's folders; the journal, the status and the questions stay for the next run."""
    folders = ("dataset", "notes", "rejected")
    return [file for name in folders for file in (root / name).rglob("*") if file.is_file()]


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Invented case reports: 20 articles of three patients each; the text of one is empty."""
    path = tmp_path_factory.mktemp("input") / "reports.csv"
    complaints = ("chest pain", "a swollen knee", "fever and cough", "sudden weakness of the left arm")
    drugs = ("aspirin 100 mg daily", "ibuprofen 400 mg", "amoxicillin 500 mg three times a day", "alteplase")
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["patient_id", "patient_uid", "patient", "age", "gender"])
        for row in range(NUM_INVENTED):
            text = (
                f"A {40 + row}-year-old man, called {CANARY} here, came to the emergency department "
                f"with {complaints[row % 4]} for {row + 2} days. He had a history of hypertension and "
                f"diabetes mellitus. His blood pressure was {120 + row}/80 mmHg and his temperature "
                f"{36 + row % 4}.5 C. Blood tests showed a leukocyte count of 11,000 and a CRP of 45 mg/L. "
                f"Computed tomography (CT) was done on the second day. He was treated with {drugs[row % 4]} "
                "and improved. He was discharged home in good condition on day nine."
            )
            uid = f"{9000 + row // 3}-{row % 3 + 1}"
            writer.writerow([row, uid, "" if row == 10 else text, f"[[{40 + row}.0, 'year']]", "M"])
    return path


@pytest.fixture(scope="module")
def real_runs(
    ray_cluster: str, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The first 40 reports of PMC-Patients, by one worker and by three."""
    roots = (tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("three"))
    source = InputConfig(path=str(shared_data / "pmc_patients/v1_first_500.csv"), limit=40)
    with OfflineTeacher() as teacher:
        for root, workers in zip(roots, (1, 3), strict=True):
            _run(root, _offline(teacher), source, SynthesisConfig(validation_share=0.2, workers=workers))
    return roots


def test_the_dataset_is_the_same_for_every_number_of_workers(real_runs: tuple[Path, Path]) -> None:
    for name in ("dataset", "notes", "rejected"):
        one, three = (read_manifest(Folder(str(root / name))) for root in real_runs)
        assert one.files == three.files
        assert one.identity == three.identity
        assert any(file.endswith(".parquet") for file in one.files)


def test_real_reports_become_a_dataset_in_input_order(
    real_runs: tuple[Path, Path], shared_data: Path
) -> None:
    with (shared_data / "pmc_patients/v1_first_500.csv").open(newline="", encoding="utf-8") as stream:
        uids = [row["patient_uid"] for row in csv.DictReader(stream)][:40]
    root = real_runs[0]
    manifest = read_manifest(Folder(str(root / "dataset")))
    assert manifest.counts["input"] == 40
    assert manifest.counts["ok"] >= 38
    for split in ("train", "validation"):
        table = pq.read_table(root / f"dataset/{split}-00000.parquet")
        assert table.column_names == ["patient_id", "patient_uid", "note", "question", "answer", "task"]
        found = table["patient_uid"].to_pylist()
        assert found == [uid for uid in uids if uid in set(found)]
        assert table.num_rows == manifest.details["rows"][split] > 0
        for row in table.to_pylist():
            assert row["task"] == draw_task(7, row["patient_uid"]).value
            assert len(row["note"].split()) >= 30
            assert row["question"]
            assert row["answer"]


@pytest.mark.parametrize("artifact", ["dataset", "notes"])
def test_no_article_is_on_both_sides(real_runs: tuple[Path, Path], artifact: str) -> None:
    train, validation = (
        {row["patient_uid"].split("-")[0] for row in _read(real_runs[0], f"{artifact}/{split}-*.parquet")}
        for split in ("train", "validation")
    )
    assert train
    assert validation
    assert not train & validation


def test_the_manifest_says_what_was_used(real_runs: tuple[Path, Path]) -> None:
    manifest = read_manifest(Folder(str(real_runs[0] / "dataset")))
    details = manifest.details
    assert manifest.made_from == MADE_FROM
    assert sum(details["tasks"].values()) == sum(details["rows"].values()) == manifest.counts["ok"]
    assert set(details["tasks"]) <= {task.value for task in Task}
    assert details["usage"]["note"]["calls"] == 40
    used = {
        kind: sum(step[kind] for step in details["usage"].values())
        for kind in ("prompt_tokens", "completion_tokens")
    }
    assert details["cost_usd"] == pytest.approx((used["prompt_tokens"] + 2 * used["completion_tokens"]) / 1e6)
    assert details["cost_usd"] > 0
    assert details["teacher"] == {"model": OFFLINE_MODEL, "is_offline": True}
    assert set(details["prompts"]) == {"note", "question", "answer"}
    assert details["is_usage_estimated"] is False


def test_the_card_says_that_no_language_model_wrote_it(real_runs: tuple[Path, Path]) -> None:
    card = (real_runs[0] / "dataset/README.md").read_text()
    manifest = read_manifest(Folder(str(real_runs[0] / "dataset")))
    assert "No language model wrote this" in card
    assert "CC BY-NC-SA 4.0" in card
    assert "research only" in card
    assert f"| in the dataset | {manifest.counts['ok']} |" in card
    assert "v1_first_500.csv" in card
    assert str(real_runs[0]) not in card
    assert all(digest in card for digest in manifest.details["prompts"].values())


def test_examples_stand_beside_their_case_reports(real_runs: tuple[Path, Path]) -> None:
    examples = json.loads((real_runs[0] / "notes/examples.json").read_text())
    rows = {row["patient_uid"]: row for row in _read(real_runs[0], "dataset/*.parquet")}
    assert len(examples) == 5
    for example in examples:
        assert example["case_report"]
        assert {**rows[example["patient_uid"]], "case_report": example["case_report"]} == example


def test_every_row_ends_in_one_counted_state_whatever_the_teacher_does(
    ray_cluster: str, invented: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    faults = Faults(
        bad_request=0.05, content_filter=0.05, refusal=0.1, empty=0.05, truncation=0.05, server_error=0.05
    )
    console = Console(record=True)
    with OfflineTeacher(faults=faults) as teacher, Progress(console) as progress:
        config = SynthesisConfig(validation_share=0.2, max_failed_share=1.0)
        source = InputConfig(path=str(invented))
        manifest = _run(tmp_path, _offline(teacher), source, config, progress)
        assert teacher.faults_met["refusal"] > 0
    counts = manifest.counts
    assert counts["input"] == NUM_INVENTED
    assert counts["input"] == counts["ok"] + sum(counts["rejected"].values()) + sum(counts["failed"].values())
    assert counts["rejected"]["refusal"] > 0
    assert counts["rejected"]["empty_text"] == 1
    assert {"bad_request", "content_filter"} <= set(counts["failed"])
    rejected = _read(tmp_path, "rejected/*.parquet")
    for state in ("rejected", "failed"):
        assert Counter(row["reason"] for row in rejected if row["state"] == state) == counts[state]
    kept = {row["patient_uid"] for row in _read(tmp_path, "dataset/*.parquet")}
    assert len(kept) == counts["ok"]
    assert not kept & {row["row_id"] for row in rejected}
    assert len(kept) + len(rejected) == NUM_INVENTED
    # An accepted note stays although its question or answer was lost.
    with_note = {row["patient_uid"] for row in _read(tmp_path, "notes/*.parquet")}
    assert with_note == kept | {row["row_id"] for row in rejected if row["stage"] in ("question", "answer")}
    _assert_no_text_in_logs([*capfd.readouterr(), console.export_text()])


def _assert_no_text_in_logs(shown: list[str]) -> None:
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    files = [file for file in logs.rglob("*") if file.is_file()]
    assert any("ray-data" in str(file) for file in files)
    texts = [*shown, *(file.read_text(errors="replace") for file in files)]
    assert not [text for text in texts if CANARY in text]


def test_too_many_failed_rows_leave_nothing_and_say_how_many(
    ray_cluster: str, invented: Path, tmp_path: Path
) -> None:
    with (
        OfflineTeacher(faults=Faults(bad_request=1.0)) as teacher,
        pytest.raises(SynthesisError, match=r"11 of 12 rows failed \(bad_request: 11\)") as caught,
    ):
        _run(tmp_path, _offline(teacher), InputConfig(path=str(invented), limit=12))
    assert CANARY not in str(caught.value)
    assert not _artefacts(tmp_path)


def _age_in(prompt: str) -> str:
    return prompt.split("A ")[1].split("-year")[0]


@pytest.mark.parametrize(("lost", "message"), [("train", "to train on"), ("validation", "to validate on")])
def test_a_split_without_a_row_is_an_error_that_leaves_nothing(
    ray_cluster: str, invented: Path, tmp_path: Path, lost: str, message: str
) -> None:
    # The first six rows are two articles of three patients each; the ages tell them apart.
    held_out = choose_validation_articles({"9000", "9001"}, 0.2, 7)
    article = next(name for name in ("9000", "9001") if (name in held_out) == (lost == "validation"))
    ages = [f"A {40 + row}-year-old" for row in (range(3) if article == "9000" else range(3, 6))]

    def reply(step: str, prompt: str) -> str:
        if any(age in prompt for age in ages):
            return ""
        return f"Case {_age_in(prompt)}. {REPLIES[step]}" if step == "note" else REPLIES[step]

    config = SynthesisConfig(validation_share=0.2, max_failed_share=1.0, fidelity=(), max_note_similarity=1.0)
    with ScriptedTeacher(reply) as teacher, pytest.raises(SynthesisError, match=rf"\b3 rows.*{message}"):
        _run(tmp_path, teacher.endpoint(), InputConfig(path=str(invented), limit=6), config)
    assert not _artefacts(tmp_path)


def test_the_place_of_the_input_is_no_part_of_what_the_dataset_is_made_from(tmp_path: Path) -> None:
    moved = (InputConfig(path=str(tmp_path / name)).fingerprint() for name in ("a.csv", "b.csv"))
    assert next(moved) == next(moved)
    assert InputConfig(limit=1).fingerprint() != InputConfig(limit=2).fingerprint()


@pytest.mark.long
def test_a_dataset_made_in_batches_is_the_same(ray_cluster: str, invented: Path, tmp_path: Path) -> None:
    config = SynthesisConfig(validation_share=0.2, pilot_rows=20)
    source = InputConfig(path=str(invented), limit=45)
    files = {}
    with OfflineTeacher() as teacher:
        for transport in ("requests", "batch"):
            batch = BatchConfig(poll_seconds=0.1, max_requests=15)
            endpoint = replace(_offline(teacher), transport=transport, batch=batch)
            files[transport] = _run(tmp_path / transport, endpoint, source, config).files
        answered = teacher.requests_answered
        assert set(teacher.batches.prompts_answered.values()) == {1}
        assert teacher.batches.files == {}
    assert files["batch"] == files["requests"]
    assert answered == {"note": 88, "question": 88, "answer": 88}


def test_the_rows_after_the_pilot_round_see_its_questions(
    ray_cluster: str, invented: Path, tmp_path: Path
) -> None:
    prompts: dict[str, str] = {}

    def reply(step: str, prompt: str) -> str:
        case = prompt.split("Case ")[1].split(".")[0] if step != "note" else ""
        if step == "note":
            return f"Case {_age_in(prompt)}. {REPLIES['note']}"
        if step == "question":
            prompts[case] = prompt
            return f"What became of case {case}?"
        return REPLIES["answer"]

    source = InputConfig(path=str(invented), limit=40)
    config = SynthesisConfig(validation_share=0.2, pilot_rows=30, fidelity=(), max_note_similarity=1.0)
    with ScriptedTeacher(reply) as teacher:
        _run(tmp_path, teacher.endpoint(), source, config)
    pool = json.loads((tmp_path / "questions/pool.json").read_text())
    pooled = {question for questions in pool.values() for question in questions}
    assert len(pooled) == 29
    shown = {
        case: [question for question in pooled if question in prompt] for case, prompt in prompts.items()
    }
    assert all(not shown[str(40 + row)] for row in range(30) if row != 10)
    assert sum(bool(shown[str(40 + row)]) for row in range(30, 40)) >= 8
    assert max(len(questions) for questions in shown.values()) == 2


@pytest.mark.parametrize("workers", [1, 3])
def test_of_notes_that_are_nearly_the_same_the_first_in_input_order_stays(
    ray_cluster: str, invented: Path, tmp_path: Path, workers: int
) -> None:
    """Every third row gets a note of its own; the two behind it get it again, one of them with a change."""

    def reply(step: str, prompt: str) -> str:
        if step != "note":
            return REPLIES[step]
        row = int(_age_in(prompt)) - 40
        words = [f"finding{row // 3}x{number}" for number in range(120)]
        return " ".join(words if row % 3 != 1 else [*words[:60], "another", *words[61:]])

    def delay(step: str, prompt: str) -> float:
        # The first of the three is the last to be answered.
        return 0.6 if step == "note" and int(_age_in(prompt)) % 3 == 40 % 3 else 0.0

    config = SynthesisConfig(
        validation_share=0.2, workers=workers, pilot_rows=30, fidelity=(), max_note_similarity=0.8
    )
    with ScriptedTeacher(reply, delay) as teacher:
        manifest = _run(tmp_path, teacher.endpoint(), InputConfig(path=str(invented), limit=30), config)
    # Row 10 has no text: its two neighbours are an original and a duplicate all the same.
    assert manifest.counts["rejected"] == {"empty_text": 1, "near_duplicate": 19}
    kept = {row["patient_id"] for row in _read(tmp_path, "dataset/*.parquet")}
    assert kept == set(range(0, 30, 3))
    assert {row["patient_uid"] for row in _read(tmp_path, "notes/*.parquet")} == {
        f"{9000 + row // 3}-1" for row in range(0, 30, 3)
    }


def test_notes_of_the_input_stay_as_they_are(ray_cluster: str, invented: Path, tmp_path: Path) -> None:
    notes = tmp_path / "notes.csv"
    with invented.open(newline="", encoding="utf-8") as source, notes.open("w", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(["patient_id", "note"])
        rows = [row for row in csv.DictReader(source) if row["patient"]][:12]
        writer.writerows([row["patient_id"], row["patient"]] for row in rows)
    with OfflineTeacher() as teacher:
        manifest = _run(tmp_path / "root", _offline(teacher), InputConfig(path=str(notes), kind="notes"))
        assert "note" not in teacher.requests_received
    assert manifest.counts["ok"] >= 10
    made = {row["note"] for row in _read(tmp_path / "root", "dataset/*.parquet")}
    assert made <= {row["patient"] for row in rows}
    assert "note" not in manifest.details["usage"]


def test_ctrl_c_ends_the_stage_and_leaves_no_artefact(
    ray_cluster: str, invented: Path, tmp_path: Path
) -> None:
    with ScriptedTeacher(delay_seconds=lambda step, prompt: 0.3 if step == "note" else 60.0) as teacher:

        def interrupt_when_busy() -> None:
            while not teacher.received["question"]:
                threading.Event().wait(0.1)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt_when_busy, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            _run(tmp_path, teacher.endpoint(), InputConfig(path=str(invented), limit=12))
    assert not _artefacts(tmp_path)


def _unreachable(endpoint: Endpoint) -> Endpoint:
    return Endpoint("http://127.0.0.1:9/v1", endpoint.model)


def _wrong_key(endpoint: Endpoint) -> Endpoint:
    return Endpoint(endpoint.base_url, endpoint.model, api_key="sk-wrong")


@pytest.mark.parametrize(
    ("change", "message"), [(_unreachable, "cannot be reached"), (_wrong_key, "refuses the API key")]
)
def test_an_unusable_teacher_is_said_before_anything_is_touched(
    change: Callable[[Endpoint], Endpoint], message: str, invented: Path, tmp_path: Path
) -> None:
    finished = tmp_path / "dataset/manifest.json"
    finished.parent.mkdir()
    finished.write_text("{}")
    with (
        OfflineTeacher(api_key="sk-right") as teacher,
        pytest.raises(EndpointError, match=message) as caught,
    ):
        _run(tmp_path, change(_offline(teacher)), InputConfig(path=str(invented)))
    assert "sk-" not in str(caught.value)
    assert is_finished(Folder(str(finished.parent)))


def test_one_article_alone_is_refused(ray_cluster: str, invented: Path, tmp_path: Path) -> None:
    with OfflineTeacher() as teacher, pytest.raises(InputError, match="1 article"):
        _run(tmp_path, _offline(teacher), InputConfig(path=str(invented), limit=3))
    assert not list(tmp_path.iterdir())
