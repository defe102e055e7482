"""Blocks of rows walked by several actors of a real cluster: in order, each once, under one limit."""

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from desk_beside import reports_named, walk_rows
from ray.data import DataContext
from ray.data._internal.metadata_exporter import sanitize_for_struct
from scripted_teacher import REPLIES, ScriptedTeacher

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.desk_link import RunTrouble
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.chat.purse import MARK_NAME
from asclepius_ray.synthesis.desk_actor import open_desk
from asclepius_ray.synthesis.reports import Reports
from asclepius_ray.synthesis.steps import Demands
from asclepius_ray.synthesis.walk import RowResult, Walk
from asclepius_ray.synthesis.workers import Crew, _map_options, order_blocks, read_rows, walk_reports

pytestmark = pytest.mark.whole


def _walk(
    endpoint: Endpoint,
    root: Path,
    num_rows: int,
    rows_per_block: int,
    workers: int,
    meanwhile: Callable[[Any], None] = lambda desk: None,
) -> list[RowResult]:
    """`meanwhile` is called with the desk as soon as it is open. For batches nothing is sent."""
    reports = Reports()
    rows = reports_named(num_rows)
    for start in range(0, num_rows, rows_per_block):
        reports.add_block(rows[start : start + rows_per_block])
    walk = Walk(endpoint, seed=7, demands=Demands(30), text_is_note=False, pilot_rows=num_rows)
    folder = Folder(str(root))
    with open_desk(folder.child("journal"), endpoint) as desk:
        meanwhile(desk)
        crew = Crew(walk, desk, folder, sends=endpoint.transport == "requests")
        blocks = walk_reports(reports, crew, workers)
        return list(read_rows(order_blocks(blocks, reports.first_rows)))


@pytest.mark.usefixtures("ray_cluster")
def test_results_come_in_input_order_each_once_and_under_the_limit(tmp_path: Path) -> None:
    def delay(step: str, prompt: str) -> float:
        return 1.0 if "report<0>" in prompt else 0.05

    def reply(step: str, prompt: str) -> str:
        row = prompt.split("report<")[1].split(">")[0]
        return f"{REPLIES[step]} report<{row}>"

    with ScriptedTeacher(reply, delay) as teacher:
        results = _walk(teacher.endpoint(max_in_flight=7), tmp_path, num_rows=45, rows_per_block=4, workers=3)
    assert [result.row_index for result in results] == list(range(45))
    assert {result.state for result in results} == {"ok"}
    assert teacher.received == {"note": 45, "question": 45, "answer": 45}
    assert 2 <= teacher.most_at_once <= 7


@pytest.mark.usefixtures("ray_cluster")
def test_an_unusable_teacher_ends_the_run_with_its_own_error_and_leaves_ray_data_as_it_was(
    tmp_path: Path,
) -> None:
    context = DataContext.get_current()
    before = (context.execution_no_progress_timeout_s, context.enable_progress_bars)
    with ScriptedTeacher() as teacher:
        endpoint = replace(teacher.endpoint(), base_url=teacher.base_url.replace("/v1", "/v2"))
        with pytest.raises(RunTrouble) as caught:
            _walk(endpoint, tmp_path, num_rows=40, rows_per_block=4, workers=2)
    assert "no model 'scripted' at this address" in caught.value.trouble.message
    assert "\n" not in caught.value.trouble.message
    assert DataContext.get_current() is context
    assert (context.execution_no_progress_timeout_s, context.enable_progress_bars) == before
    assert before[0] != -1


@pytest.mark.usefixtures("ray_cluster")
def test_answers_on_their_way_when_the_quota_ends_the_run_are_kept(tmp_path: Path) -> None:
    """Other workers end at once, and leaving them would end those whose calls are paid for."""
    faults = Faults(latency_seconds=0.05, slow=0.5, slow_seconds=2.0, quota_requests=12)
    with OfflineTeacher(faults=faults) as teacher:
        endpoint = Endpoint(teacher.base_url, OFFLINE_MODEL, timeout_seconds=30.0)
        with pytest.raises(RunTrouble) as caught:
            _walk(endpoint, tmp_path, num_rows=40, rows_per_block=1, workers=2)
        assert "no quota left" in caught.value.trouble.message
        slowest_seconds = teacher.last_answer_at - teacher.first_answer_at
        assert sum(teacher.requests_answered.values()) == 12
    assert slowest_seconds > 1.5, "nothing was on its way when the quota was used up"
    bought = Journal.open(Folder(str(tmp_path / "journal"))).totals().values()
    assert sum(step.completions for step in bought) == 12


@pytest.mark.usefixtures("ray_cluster")
def test_a_desk_that_is_lost_and_cannot_read_its_journal_ends_the_run_and_says_why(tmp_path: Path) -> None:
    def lose_for_good(desk: Any) -> None:
        process = ray.get(desk.__ray_call__.remote(lambda actor: os.getpid()))

        def strike() -> None:
            while not teacher.received["note"]:
                time.sleep(0.05)
            (tmp_path / "journal" / MARK_NAME).write_text("torn")
            os.kill(process, signal.SIGKILL)

        threading.Thread(target=strike, daemon=True).start()

    with ScriptedTeacher(delay_seconds=lambda step, prompt: 0.5) as teacher:
        endpoint = teacher.endpoint(max_in_flight=2)
        with pytest.raises(RunTrouble) as caught:
            _walk(endpoint, tmp_path, num_rows=40, rows_per_block=4, workers=2, meanwhile=lose_for_good)
    assert caught.value.trouble.kind == "storage"
    assert "another one cannot read the journal" in caught.value.trouble.message
    assert f"{MARK_NAME} is damaged" in caught.value.trouble.message
    assert "\n" not in caught.value.trouble.message


@pytest.mark.usefixtures("ray_cluster")
def test_a_journal_that_cannot_be_opened_ends_the_run_at_its_start_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / MARK_NAME).write_text("torn")
    endpoint = Endpoint("http://127.0.0.1:9/v1", "m")
    with pytest.raises(RunTrouble) as caught, open_desk(Folder(str(tmp_path / "journal")), endpoint):
        pass
    assert caught.value.trouble.kind == "storage"
    assert caught.value.trouble.message.startswith("the journal cannot be opened (")
    assert f"{MARK_NAME} is damaged" in caught.value.trouble.message


@pytest.mark.usefixtures("ray_cluster")
def test_a_journal_that_cannot_be_read_ends_a_walk_that_sends_nothing_and_says_why(tmp_path: Path) -> None:
    def spoil(desk: Any) -> None:
        """Its index is loaded, so what it holds is looked for; a folder cannot be read as a file."""
        for segment in (tmp_path / "journal").glob("*.segment"):
            segment.unlink()
            segment.mkdir()

    with ScriptedTeacher() as teacher:
        endpoint = replace(teacher.endpoint(), transport="batch")
        walk_rows(Walk(endpoint, 7, Demands(30), False), reports_named(4), tmp_path / "journal")
        with pytest.raises(RunTrouble) as caught:
            _walk(endpoint, tmp_path, num_rows=4, rows_per_block=2, workers=1, meanwhile=spoil)
        assert teacher.received["note"] == 4
    assert caught.value.trouble.kind == "storage"
    assert "the journal cannot be read" in caught.value.trouble.message
    assert "\n" not in caught.value.trouble.message


@pytest.mark.usefixtures("ray_cluster")
def test_blocks_are_in_input_order_in_whatever_order_they_come() -> None:
    blocks = [pa.table({"row_index": rows}) for rows in ([0, 1], [4, 5, 7], [9])]
    for arrived in permutations(blocks):
        ordered = [table["row_index"].to_pylist() for table in order_blocks(arrived, [0, 4, 9])]
        assert ordered == [[0, 1], [4, 5, 7], [9]]
    # A block is passed on as soon as nothing before it is missing, not at the end.
    assert next(order_blocks(iter(blocks), [0, 4, 9]))["row_index"].to_pylist() == [0, 1]


def _crew(endpoint: Endpoint) -> Crew:
    return Crew(Walk(endpoint, 7, Demands(30), False), None, Folder("runs/x"))


def test_ray_data_writes_neither_key_nor_headers_into_its_metadata() -> None:
    endpoint = Endpoint("http://localhost/v1", "m", api_key="sk-secret-1", headers={"X-Key": "sk-secret-2"})
    arguments = _map_options(_crew(endpoint), 2, num_blocks=10)["fn_constructor_args"]
    for shown in (sanitize_for_struct(arguments, 10_000), asdict(_crew(endpoint)), str(arguments)):
        assert "sk-secret" not in str(shown)
    assert "min_note_words" in str(sanitize_for_struct(arguments, 10_000))


def test_a_small_input_is_spread_over_all_workers() -> None:
    crew = _crew(Endpoint("http://localhost/v1", "m"))
    assert _map_options(crew, 2, num_blocks=10)["compute"].max_tasks_in_flight_per_actor == 5
    assert _map_options(crew, 2, num_blocks=1000)["compute"].max_tasks_in_flight_per_actor == 64
