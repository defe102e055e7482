"""Blocks of rows walked by several actors of a real cluster: in order, each once, under one limit."""

from dataclasses import asdict, replace
from itertools import permutations

import pytest
from ray.data import DataContext
from ray.data._internal.metadata_exporter import sanitize_for_struct
from scripted_teacher import ScriptedTeacher

from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.errors import EndpointError
from asclepius_ray.records import CaseReport
from asclepius_ray.synthesis.reports import Reports
from asclepius_ray.synthesis.walk import RowResult, Walk
from asclepius_ray.synthesis.workers import _map_options, order_rows, walk_reports

OK = RowResult(0, "1-1", 1, "1-1", "1", "ok", "", "", "N", "Q", "A", "Summarization", {})


def _walk(endpoint: Endpoint, num_rows: int, rows_per_block: int, workers: int) -> list[RowResult]:
    reports = Reports()
    rows = [
        CaseReport(row, f"{row}-1", row, f"{row}-1", f"report<{row}>", None, "") for row in range(num_rows)
    ]
    for start in range(0, num_rows, rows_per_block):
        reports.add_block(rows[start : start + rows_per_block])
    walk = Walk(endpoint, seed=7, min_note_words=30, text_is_note=False)
    return list(order_rows(walk_reports(reports, walk, workers), reports.first_rows))


@pytest.mark.usefixtures("ray_cluster")
def test_results_come_in_input_order_each_once_and_under_the_limit() -> None:
    def delay(step: str, prompt: str) -> float:
        return 1.0 if "report<0>" in prompt else 0.05

    with ScriptedTeacher(delay_seconds=delay) as teacher:
        results = _walk(teacher.endpoint(max_in_flight=7), num_rows=45, rows_per_block=4, workers=3)
    assert [result.row_index for result in results] == list(range(45))
    assert {result.state for result in results} == {"ok"}
    assert teacher.received == {"note": 45, "question": 45, "answer": 45}
    assert 2 <= teacher.most_at_once <= 7


@pytest.mark.usefixtures("ray_cluster")
def test_an_unusable_teacher_ends_the_run_with_its_own_error_and_leaves_ray_data_as_it_was() -> None:
    context = DataContext.get_current()
    before = (context.execution_no_progress_timeout_s, context.enable_progress_bars)
    with ScriptedTeacher() as teacher:
        endpoint = replace(teacher.endpoint(), base_url=teacher.base_url.replace("/v1", "/v2"))
        with pytest.raises(EndpointError, match="no model 'scripted' at this address") as caught:
            _walk(endpoint, num_rows=40, rows_per_block=4, workers=2)
    assert "\n" not in str(caught.value)
    assert DataContext.get_current() is context
    assert (context.execution_no_progress_timeout_s, context.enable_progress_bars) == before
    assert before[0] != -1


def test_rows_are_in_input_order_in_whatever_order_their_blocks_come() -> None:
    rows = [replace(OK, row_index=index) for index in (0, 1, 4, 5, 7, 9)]
    blocks = [rows[:2], rows[2:5], rows[5:]]
    for arrived in permutations(blocks):
        assert list(order_rows(arrived, [0, 4, 9])) == rows
    # A row is passed on as soon as nothing before it is missing, not at the end.
    ordered = order_rows(iter(blocks), [0, 4, 9])
    assert [next(ordered), next(ordered)] == rows[:2]


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
@pytest.mark.parametrize("limit", [1, 2, 5, 64, 100])
def test_the_limit_is_split_so_that_its_parts_never_pass_it(workers: int, limit: int) -> None:
    walk = Walk(Endpoint("http://localhost/v1", "m", max_in_flight=limit), 7, 30, False)
    options = _map_options(walk, workers, num_blocks=1000)
    per_worker, size = options["fn_constructor_args"][1], options["compute"].max_size
    assert per_worker >= 1
    assert limit - size < per_worker * size <= limit


def test_ray_data_writes_neither_key_nor_headers_into_its_metadata() -> None:
    endpoint = Endpoint("http://localhost/v1", "m", api_key="sk-secret-1", headers={"X-Key": "sk-secret-2"})
    walk = Walk(endpoint, 7, 30, False)
    arguments = _map_options(walk, 2, num_blocks=10)["fn_constructor_args"]
    for shown in (sanitize_for_struct(arguments, 10_000), asdict(walk), repr(walk), str(arguments)):
        assert "sk-secret" not in str(shown)
    assert "min_note_words" in str(sanitize_for_struct(arguments))


def test_a_small_input_is_spread_over_all_workers() -> None:
    walk = Walk(Endpoint("http://localhost/v1", "m"), 7, 30, False)
    assert _map_options(walk, 2, num_blocks=10)["compute"].max_tasks_in_flight_per_actor == 5
    assert _map_options(walk, 2, num_blocks=1000)["compute"].max_tasks_in_flight_per_actor == 8
