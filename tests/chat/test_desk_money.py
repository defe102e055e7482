"""What counts as spent where nobody can tell: unreadable replies, no price, what goes beside the messages."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from desk_runs import PRICE, ask_all, endpoint_of, request_note, run

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import RunTrouble
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.estimates import largest_usd
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import load_of
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.chat.purse import MARK_NAME

TOOLS = {"tools": [{"type": "function", "function": {"name": "look_up", "description": "x" * 20_000}}]}


def bound_of(request: Request, num_extra_bytes: int = 0) -> float:
    load = load_of(request, request.max_tokens)
    return largest_usd(PRICE, load.num_bytes + num_extra_bytes, load.num_messages, load.max_tokens)


def snapshot_of(folder: Path, endpoint: Endpoint) -> DeskSnapshot:
    async def look() -> DeskSnapshot:
        return await Desk(Folder(str(folder)), endpoint).snapshot()

    return run(look())


def test_a_reply_that_cannot_be_read_counts_at_its_bound_and_never_as_free(tmp_path: Path) -> None:
    requests = [request_note(number) for number in range(5)]
    with OfflineTeacher(faults=Faults(malformed=1.0)) as teacher:
        endpoint = endpoint_of(teacher, price=PRICE, budget_usd=5.0)
        answers = run(ask_all(endpoint, tmp_path, requests))
        assert teacher.requests_received == {"note": 10}
    assert all(isinstance(answer, Failure) and answer.reason == "malformed" for answer in answers)
    most_usd = 2 * sum(bound_of(request) for request in requests)
    # What the desk has told the cap, and what the journal knows without it.
    assert snapshot_of(tmp_path, endpoint).unsettled_usd == pytest.approx(most_usd)
    (tmp_path / MARK_NAME).unlink()
    left = snapshot_of(tmp_path, endpoint)
    assert left.unsettled_usd == pytest.approx(most_usd)
    assert left.cost_usd == 0.0


def test_replies_that_cannot_be_read_use_up_the_budget(tmp_path: Path) -> None:
    requests = [request_note(number) for number in range(5)]
    with OfflineTeacher(faults=Faults(malformed=1.0)) as teacher:
        endpoint = endpoint_of(teacher, price=PRICE, budget_usd=4.5 * bound_of(requests[0]))
        answers = run(ask_all(endpoint, tmp_path, requests))
        assert 1 <= teacher.requests_received["note"] <= 4
    assert any(isinstance(answer, RunTrouble) and answer.trouble.kind == "budget" for answer in answers)


def test_what_was_bought_without_a_price_leaves_the_cost_unknown_and_the_cap_counts_the_rest(
    tmp_path: Path,
) -> None:
    requests = [request_note(number) for number in range(40)]
    budget_usd = 0.06
    with OfflineTeacher() as teacher:

        def charged() -> int:
            return teacher._service.prompt_tokens + teacher._service.completion_tokens

        run(ask_all(endpoint_of(teacher), tmp_path, requests[:10]))
        unpriced = charged()
        capped = endpoint_of(teacher, price=PRICE, budget_usd=budget_usd)
        answers = run(ask_all(capped, tmp_path, requests))
        spent_usd = (charged() - unpriced) * 1e-5
        assert sum(isinstance(answer, Completion) for answer in answers) > 10
        assert 0.3 * budget_usd < spent_usd <= budget_usd
        # The journal alone, as where the mark of the cap was lost.
        (tmp_path / MARK_NAME).unlink()
        again = run(ask_all(capped, tmp_path, requests))
        assert (charged() - unpriced) * 1e-5 <= budget_usd
    assert any(isinstance(answer, RunTrouble) for answer in again)
    snapshot = snapshot_of(tmp_path, capped)
    assert snapshot.cost_usd is None
    known_usd = Journal.open(Folder(str(tmp_path))).totals()["note"].known_usd
    assert known_usd == pytest.approx((charged() - unpriced) * 1e-5)


@asynccontextmanager
async def dear_provider(charged_tokens: list[int]) -> AsyncIterator[str]:
    """A chat endpoint that charges a token for every byte of the request's texts, tools included."""

    async def complete(request: web.Request) -> web.Response:
        body = await request.json()
        texts = [turn["content"] for turn in body["messages"]]
        prompt_tokens = sum(len(text.encode()) for text in texts) + len(json.dumps(body.get("tools", [])))
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": body["max_tokens"]}
        charged_tokens.append(sum(usage.values()))
        await asyncio.sleep(0.2)
        choice = {"finish_reason": "stop", "message": {"role": "assistant", "content": "A note."}}
        return web.json_response({"model": "dear", "choices": [choice], "usage": usage})

    application = web.Application()
    application.router.add_post("/v1/chat/completions", complete)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    await runner.cleanup()


def test_what_goes_with_every_request_beside_its_messages_is_set_aside_too(tmp_path: Path) -> None:
    charged_tokens: list[int] = []

    async def ask(budget_usd: float) -> None:
        async with dear_provider(charged_tokens) as base_url:
            endpoint = Endpoint(base_url, "dear", extra_body=TOOLS, price=PRICE, budget_usd=budget_usd)
            await ask_all(endpoint, tmp_path, [request_note(number) for number in range(20)])

    tools_usd = len(json.dumps(TOOLS["tools"])) * 1e-5
    # Room for two calls with their tools, and for all twenty without.
    budget_usd = 2.5 * tools_usd
    assert 20 * bound_of(request_note(0)) < budget_usd
    run(ask(budget_usd))
    assert 1 <= len(charged_tokens) <= 2
    assert sum(charged_tokens) * 1e-5 <= budget_usd


def test_a_reply_that_cannot_be_read_counts_with_all_that_went_beside_its_messages(tmp_path: Path) -> None:
    async def ask() -> Endpoint:
        async def garbage(request: web.Request) -> web.Response:
            return web.json_response({"choices": []})

        application = web.Application()
        application.router.add_post("/v1/chat/completions", garbage)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        base_url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        endpoint = Endpoint(base_url, "dear", extra_body=TOOLS, price=PRICE)
        await ask_all(endpoint, tmp_path, [request_note(0)])
        await runner.cleanup()
        return endpoint

    endpoint = run(ask())
    most_usd = 2 * bound_of(request_note(0), len(json.dumps(TOOLS)))
    assert snapshot_of(tmp_path, endpoint).unsettled_usd == pytest.approx(most_usd)
