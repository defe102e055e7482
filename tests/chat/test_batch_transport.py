"""Requests bought through a real batch endpoint: all of them once, whatever becomes of the batches."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from asclepius_ray.chat.batch.calls import BatchCalls
from asclepius_ray.chat.batch.chunks import Pending, Wanted, cut_chunks, read_custom_id
from asclepius_ray.chat.batch.transport import BatchTransport, Outcome
from asclepius_ray.chat.body import Body
from asclepius_ray.chat.config import OFFLINE_MODEL, BatchConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request, request_key
from asclepius_ray.chat.gate import Load, Settled
from asclepius_ray.chat.judgement import Trial
from asclepius_ray.chat.offline.batches import BatchKnobs
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.errors import BudgetError, EndpointError
from asclepius_ray.prompts.rendering import render_note_prompt

LIMITS = BatchConfig(poll_seconds=0.05)


class KeptInMemory:
    """An account that keeps everything, and allows so many batches."""

    def __init__(self, allowed: int = 1000) -> None:
        self.outcomes: list[Outcome] = []
        self.reserved = 0
        self.allowed = allowed

    async def reserve(self, loads: Sequence[Load]) -> bool:
        self.allowed -= 1
        if self.allowed >= 0:
            self.reserved += len(loads)
        return self.allowed >= 0

    async def adopt(self, loads: Sequence[Load]) -> None:
        self.reserved += len(loads)

    async def settle(self, settled: Sequence[Settled]) -> None:
        self.reserved -= len(settled)

    async def keep(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes += outcomes


def pending_of(number: int) -> Pending:
    text = f"A {20 + number}-year-old man, case {number}, came with chest pain and got aspirin 100 mg daily."
    request = Request("note", tuple(render_note_prompt(text)), 1.0, 500)
    return Pending.of(request_key(OFFLINE_MODEL, {}, request), request)


def buy(
    teacher: OfflineTeacher,
    pending: Sequence[Pending],
    account: KeptInMemory,
    limits: BatchConfig = LIMITS,
    show: Callable[[str], None] = lambda line: None,
) -> None:
    endpoint = Endpoint(teacher.base_url, OFFLINE_MODEL, max_outage_seconds=5.0)
    transport = BatchTransport(endpoint, limits, "run-1", account, show)
    asyncio.run(asyncio.wait_for(transport.buy(pending), 60))


PENDING = [pending_of(number) for number in range(30)]
BODY = Body(Endpoint("http://localhost/v1", OFFLINE_MODEL))


def test_every_request_is_bought_once_in_batches_within_the_limits() -> None:
    account = KeptInMemory()
    with OfflineTeacher() as teacher:
        buy(teacher, PENDING, account, LIMITS.model_copy(update={"max_requests": 7}))
        assert len(teacher.batches.batches) == 5
        assert max(teacher.batches.prompts_answered.values()) == 1
        assert teacher.batches.files == {}, "texts are left at the provider"
    assert {one.pending.key for one in account.outcomes} == {one.key for one in PENDING}
    assert all(isinstance(one.answer, Completion) for one in account.outcomes)
    assert account.reserved == 0


def test_lines_that_expired_are_sent_again_and_no_others() -> None:
    account = KeptInMemory()
    with OfflineTeacher() as teacher:
        teacher.batches.knobs = BatchKnobs(seconds=0.05, expired_share=0.4)
        buy(teacher, PENDING, account)
        assert len(teacher.batches.batches) > 2
        assert max(teacher.batches.prompts_answered.values()) == 1
    assert len(account.outcomes) == len(PENDING)


def test_faulty_lines_end_as_they_do_one_by_one() -> None:
    faults = Faults(bad_request=0.2, server_error=0.2, empty=0.2, truncation=0.2, failing_attempts=1)
    account = KeptInMemory()
    with OfflineTeacher(faults=faults) as teacher:
        buy(teacher, PENDING, account)
        met = teacher.faults_met
    failures = [one.answer.reason.value for one in account.outcomes if isinstance(one.answer, Failure)]
    assert len(account.outcomes) == 30
    assert set(failures) == {"bad_request"}
    assert {one.answer.attempts for one in account.outcomes} == {1, 2}
    assert not met or len(failures) == met.get("bad_request", len(failures))


def test_a_queue_that_is_full_is_filled_more_slowly() -> None:
    account = KeptInMemory()
    with OfflineTeacher() as teacher:
        teacher.batches.knobs = BatchKnobs(seconds=0.05, max_enqueued_bytes=40_000)
        buy(teacher, PENDING, account, LIMITS.model_copy(update={"max_requests": 8}))
        assert any(batch["status"] == "failed" for batch in teacher.batches.batches.values())
        assert max(teacher.batches.prompts_answered.values()) == 1
    assert len(account.outcomes) == 30


def test_a_batch_of_an_earlier_run_is_harvested_and_not_sent_again() -> None:
    account = KeptInMemory()
    with OfflineTeacher() as teacher:
        teacher.batches.knobs = BatchKnobs(seconds=2.0, page=1)

        async def start_and_stop() -> None:
            endpoint = Endpoint(teacher.base_url, OFFLINE_MODEL)
            limits = LIMITS.model_copy(update={"max_requests": 10})
            transport = BatchTransport(endpoint, limits, "run-1", KeptInMemory(), lambda line: None)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(transport.buy(PENDING), 1.0)

        asyncio.run(start_and_stop())
        assert len(teacher.batches.batches) == 3
        buy(teacher, PENDING, account)
        assert len(teacher.batches.batches) == 3
        assert set(teacher.batches.prompts_answered.values()) == {1}
        assert teacher.batches.files == {}
    assert len(account.outcomes) == 30


def test_a_batch_whose_creation_was_not_answered_is_not_created_again() -> None:
    account, shown = KeptInMemory(), list[str]()
    with OfflineTeacher() as teacher:
        teacher.batches.knobs = BatchKnobs(num_lost_replies=2, page=1)
        buy(teacher, PENDING, account, LIMITS.model_copy(update={"max_requests": 10}), shown.append)
        assert len(teacher.batches.batches) == 3
        assert set(teacher.batches.prompts_answered.values()) == {1}
        assert teacher.batches.files == {}
    assert len(account.outcomes) == 30
    assert any("no answer from the batch endpoint" in line for line in shown)


def test_a_run_that_ended_while_it_removed_a_batch_s_files_buys_nothing_again() -> None:
    account = KeptInMemory()
    with OfflineTeacher() as teacher:

        def end(method: str, path: str) -> None:
            if method == "DELETE":
                raise RuntimeError("the power is gone")

        teacher.batches.on_served = end
        with pytest.raises(EndpointError, match="HTTP 500"):
            buy(teacher, PENDING, account)
        assert len(account.outcomes) == 30
        (left,) = [name for name, _content in teacher.batches.files.values()]
        assert left.startswith("asclepius-run-1-"), "the input is the last that is removed"
        teacher.batches.on_served = lambda method, path: None
        buy(teacher, [], account)
        assert teacher.batches.files == {}
        assert len(teacher.batches.batches) == 1
    assert len(account.outcomes) == 30


def test_of_two_batches_with_the_same_requests_each_answer_is_kept_once() -> None:
    account = KeptInMemory()
    with OfflineTeacher() as teacher:
        batches = teacher.batches
        batches.knobs = BatchKnobs(seconds=1.0)

        async def send_twice() -> None:
            endpoint = Endpoint(teacher.base_url, OFFLINE_MODEL)
            wanted = [Wanted(one, Trial(one.request.max_tokens)) for one in PENDING]
            (chunk,) = cut_chunks(wanted, LIMITS, Body(endpoint))
            calls = BatchCalls(endpoint, lambda line: None)
            for name in ("asclepius-run-1-first.jsonl", "asclepius-run-1-second.jsonl"):
                file_id = await calls.upload(name, chunk.content)
                await calls.create(file_id, {"asclepius_chunk": chunk.sha256, "asclepius_run": "run-1"})
            await calls.close()

        asyncio.run(send_twice())
        buy(teacher, PENDING, account)
        assert len(batches.batches) == 2
        assert batches.files == {}
    assert [one.pending.key for one in account.outcomes] == [one.key for one in PENDING]


def test_a_used_up_quota_ends_the_run_and_a_rerun_goes_on_where_there_is_quota_again() -> None:
    account = KeptInMemory()
    with OfflineTeacher(faults=Faults(quota_requests=10)) as teacher:
        with pytest.raises(EndpointError, match="no quota left"):
            buy(teacher, PENDING, account)
        assert len(account.outcomes) == 10
        assert teacher.batches.files == {}
        teacher.top_up()
        bought = {one.pending.key for one in account.outcomes}
        buy(teacher, [one for one in PENDING if one.key not in bought], account)
        assert sum(teacher.requests_answered.values()) == 30
    assert len(account.outcomes) == 30


def test_the_budget_stops_further_batches_and_keeps_what_was_bought() -> None:
    account = KeptInMemory(allowed=2)
    with OfflineTeacher() as teacher, pytest.raises(BudgetError, match="raise it"):
        buy(teacher, PENDING, account, LIMITS.model_copy(update={"max_requests": 10}))
    assert len(account.outcomes) == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "gpt-unknown"}, None),
        ({"api_key": "sk-wrong"}, "refuses the API key"),
        ({"base_url_suffix": "/nowhere"}, "batch endpoint"),
    ],
    ids=["unknown model", "wrong key", "no batch endpoint"],
)
def test_an_endpoint_that_refuses_ends_the_run(change: dict[str, Any], message: str | None) -> None:
    with OfflineTeacher(api_key="sk-right") as teacher:
        endpoint = Endpoint(
            teacher.base_url + change.pop("base_url_suffix", ""), OFFLINE_MODEL, api_key="sk-right"
        )
        endpoint = replace(endpoint, **({"api_key": "sk-right"} | change))
        account = KeptInMemory()
        transport = BatchTransport(endpoint, LIMITS, "run-1", account, lambda line: None)
        if message is None:
            # A line that the rules do not know is a bad request of its own.
            asyncio.run(asyncio.wait_for(transport.buy(PENDING), 30))
            assert all(isinstance(one.answer, Failure) for one in account.outcomes)
            return
        with pytest.raises(EndpointError, match=message) as caught:
            asyncio.run(asyncio.wait_for(transport.buy(PENDING), 30))
        assert "sk-" not in str(caught.value)


def test_lines_of_a_model_that_refuses_their_parameters_are_sent_again_without_them() -> None:
    account = KeptInMemory()
    cool = [replace(one.request, temperature=0.5) for one in PENDING]
    pending = [Pending.of(request_key(OFFLINE_MODEL, {}, request), request) for request in cool]
    with OfflineTeacher(faults=Faults(refuse_temperature=1, refuse_max_tokens=1)) as teacher:
        buy(teacher, pending, account)
        # The first batch was refused for one parameter, the second for the other.
        assert len(teacher.batches.batches) == 3
        assert teacher.batches.files == {}
    assert len(account.outcomes) == len(PENDING)
    assert all(isinstance(one.answer, Completion) and one.answer.attempts == 1 for one in account.outcomes)
    assert account.reserved == 0


def test_chunks_keep_the_order_and_every_limit() -> None:
    wanted = [Wanted(one, Trial(one.request.max_tokens)) for one in PENDING]
    for limits in (
        BatchConfig(max_requests=4),
        BatchConfig(max_enqueued_tokens=3000),
        BatchConfig(max_requests=29, max_enqueued_tokens=100_000),
    ):
        chunks = list(cut_chunks(wanted, limits, BODY))
        assert [one for chunk in chunks for one in chunk.wanted] == wanted
        assert all(len(chunk.wanted) <= limits.max_requests for chunk in chunks)
        if limits.max_enqueued_tokens:
            assert all(chunk.num_tokens <= limits.max_enqueued_tokens for chunk in chunks)
        assert len(chunks) > 1
        assert all(first.sha256 != second.sha256 for first, second in pairwise(chunks))
    with pytest.raises(EndpointError, match="allows"):
        list(cut_chunks(wanted, BatchConfig(max_enqueued_tokens=100), BODY))


def test_a_custom_id_tells_request_length_and_attempt_and_no_other_id_is_ours() -> None:
    wanted = Wanted(PENDING[0], Trial(500, attempts=1))
    assert read_custom_id(wanted.custom_id) == (PENDING[0].key.hex()[:40], 500, 2)
    assert len(wanted.custom_id) <= 64
    assert read_custom_id("request-1") is None
    assert read_custom_id("x" * 64) is None
