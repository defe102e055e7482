"""The desk and its workers over real HTTP: what is bought once, what is never lost, what ends the run."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from desk_runs import PRICE, ask_all, endpoint_of, request_note, run
from local_buckets import local_bucket

import asclepius_ray.chat.desk as desk_module
from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.buyer import Buyer
from asclepius_ray.chat.desk import Desk
from asclepius_ray.chat.desk_link import DeskAway, DeskLink, RunTrouble
from asclepius_ray.chat.desk_messages import Heard, Said
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, request_key
from asclepius_ray.chat.gate import Patience
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.chat.purse import read_mark
from asclepius_ray.chat.row_deaths import LONE_DEATHS_TO_QUARANTINE, RowDeaths, largest_company


def test_the_same_request_in_flight_on_three_workers_is_bought_once(tmp_path: Path) -> None:
    requests = [request_note(number) for number in range(20)]
    with OfflineTeacher(faults=Faults(latency_seconds=0.3)) as teacher:
        answers = run(ask_all(endpoint_of(teacher), tmp_path, requests, workers=3))
        assert teacher.requests_answered == {"note": 20}
    assert len(answers) == 60
    assert answers[:20] == answers[20:40] == answers[40:]
    assert all(isinstance(answer, Completion) for answer in answers)


def test_a_paid_answer_is_never_bought_twice(tmp_path: Path) -> None:
    requests = [request_note(number) for number in range(30)]
    with OfflineTeacher() as teacher:
        first = run(ask_all(endpoint_of(teacher), tmp_path, requests))
        again = run(ask_all(endpoint_of(teacher), tmp_path, requests, workers=2))
        assert teacher.requests_answered == {"note": 30}
    assert again == first * 2


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_an_answer_is_durable_within_two_seconds_of_its_arrival(where: str, tmp_path: Path) -> None:
    async def ask_and_look(folder: Folder) -> float:
        desk = Desk(folder, endpoint)
        buyer = Buyer(endpoint, DeskLink(desk.exchange, "worker").start())
        longest = 0.0
        for number in range(5):
            answer = await buyer.complete(request_note(number), Patience(60.0))
            answered_at = time.monotonic()
            await buyer.link.durable()
            longest = max(longest, time.monotonic() - answered_at)
            # As a rerun would find it.
            reopened = await asyncio.to_thread(Journal.open, folder)
            key = request_key(endpoint.model, {}, request_note(number))
            assert reopened.read([key])[key].answer == answer
        await buyer.close()
        await desk.close()
        return longest

    with OfflineTeacher() as teacher, local_bucket("answers") as uri:
        endpoint = endpoint_of(teacher)
        folder = Folder(str(tmp_path) if where == "folder" else uri.format("journal"))
        assert run(ask_and_look(folder)) < 2.0


def test_a_lost_desk_costs_a_pause_and_no_answer(tmp_path: Path) -> None:
    """Every desk is thrown away after a third of a second; the next one loads the journal."""
    lives: list[Desk] = []

    def exchange_with_losses(first: Desk) -> Callable[[Said], Awaitable[Heard]]:
        lives.append(first)
        born = [time.monotonic()]

        async def exchange(said: Said) -> Heard:
            if time.monotonic() - born[0] > 0.3 and len(lives) < 5:
                lost = lives[-1]
                for task in lost._storage._tasks:
                    task.cancel()
                lives.append(Desk(Folder(str(tmp_path)), endpoint))
                born[0] = time.monotonic()
                raise DeskAway
            return await lives[-1].exchange(said)

        return exchange

    requests = [request_note(number) for number in range(100)]
    with OfflineTeacher(faults=Faults(latency_seconds=0.2)) as teacher:
        endpoint = endpoint_of(teacher, max_in_flight=8)

        async def ask() -> list[Completion | Failure | RunTrouble]:
            desk = Desk(Folder(str(tmp_path)), endpoint)
            link = DeskLink(exchange_with_losses(desk), "worker").start()
            buyer = Buyer(endpoint, link)
            answers = await asyncio.gather(*(buyer.complete(request, Patience(60.0)) for request in requests))
            await buyer.close()
            await lives[-1].close()
            return list(answers)

        answers = run(ask())
        assert len(lives) == 5
        assert teacher.requests_answered == {"note": 100}
        assert teacher.most_in_flight <= 8
        assert run(ask_all(endpoint, tmp_path, requests)) == answers
        assert teacher.requests_answered == {"note": 100}


def test_what_a_dead_worker_was_buying_is_bought_by_the_next_who_wants_it(tmp_path: Path) -> None:
    async def die_and_ask() -> Completion | Failure:
        desk = Desk(Folder(str(tmp_path)), endpoint)
        dying = Buyer(endpoint, DeskLink(desk.exchange, "dying").start())
        living = Buyer(endpoint, DeskLink(desk.exchange, "living").start())
        lost = asyncio.ensure_future(dying.complete(request_note(1), Patience(60.0)))
        await asyncio.sleep(0.3)
        wanted = asyncio.ensure_future(living.complete(request_note(1), Patience(60.0)))
        await asyncio.sleep(0.3)
        assert dying.link._task is not None
        dying.link._task.cancel()
        lost.cancel()
        reborn = DeskLink(desk.exchange, "dying").start()
        answer = await wanted
        await reborn.close()
        await living.close()
        await desk.close()
        return answer

    with OfflineTeacher(faults=Faults(latency_seconds=1.0)) as teacher:
        endpoint = endpoint_of(teacher)
        assert isinstance(run(die_and_ask()), Completion)
        assert teacher.requests_received == {"note": 2}


def test_a_worker_that_was_silent_for_too_long_gets_all_that_it_had_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was buried meanwhile, as a worker is whose machine has stopped for a while."""
    monkeypatch.setattr(desk_module, "STALE_WORKER_SECONDS", 0.5)
    may_speak = asyncio.Event()

    async def fall_silent(endpoint: Endpoint) -> list[Completion | Failure]:
        desk = Desk(Folder(str(tmp_path)), endpoint)
        may_speak.set()

        async def exchange(said: Said) -> Heard:
            await may_speak.wait()
            return await desk.exchange(said)

        silent = Buyer(endpoint, DeskLink(exchange, "silent").start())
        other = Buyer(endpoint, DeskLink(desk.exchange, "other").start())
        asked = [silent.complete(request_note(number), Patience(60.0)) for number in range(20)]
        answers = asyncio.ensure_future(asyncio.gather(*asked))
        await asyncio.sleep(0.3)
        may_speak.clear()
        for number in range(30, 40):
            await other.complete(request_note(number), Patience(60.0))
        assert (await desk.snapshot()).num_workers == 1
        may_speak.set()
        found = list(await answers)
        for buyer in (silent, other):
            await buyer.close()
        await desk.close()
        return found

    with OfflineTeacher(faults=Faults(latency_seconds=0.2)) as teacher:
        answers = run(fall_silent(endpoint_of(teacher, max_in_flight=4)))
        assert teacher.bought_twice == 0
    assert len(answers) == 20
    assert all(isinstance(answer, Completion) for answer in answers)


def test_a_worker_that_leaves_without_a_word_when_it_has_its_answers_keeps_no_place(tmp_path: Path) -> None:
    """Ray Data ends a worker as soon as there are no rows left for it."""
    bought = [request_note(number) for number in range(20)]

    async def leave_and_ask(endpoint: Endpoint) -> Completion | Failure:
        desk = Desk(Folder(str(tmp_path)), endpoint)
        leaving = Buyer(endpoint, DeskLink(desk.exchange, "leaving").start())
        staying = Buyer(endpoint, DeskLink(desk.exchange, "staying").start())
        await asyncio.gather(*(leaving.complete(request, Patience(60.0)) for request in bought))
        assert leaving.link._task is not None
        leaving.link._task.cancel()
        async with asyncio.timeout(10):
            answer = await staying.complete(request_note(99), Patience(60.0))
        await staying.close()
        await desk.close()
        return answer

    with OfflineTeacher() as teacher:
        endpoint = endpoint_of(teacher, max_in_flight=4)
        run(ask_all(endpoint, tmp_path, bought))
        assert isinstance(run(leave_and_ask(endpoint)), Completion)


@pytest.mark.parametrize("budget_usd", [0.02, 0.06])
def test_spending_never_passes_the_budget_and_goes_on_when_it_is_raised(
    tmp_path: Path, budget_usd: float
) -> None:
    requests = [request_note(number) for number in range(40)]
    with OfflineTeacher() as teacher:
        capped = endpoint_of(teacher, price=PRICE, budget_usd=budget_usd)
        answers = run(ask_all(capped, tmp_path, requests, workers=2))
        bought = [answer for answer in answers if isinstance(answer, Completion)]
        ended = [answer for answer in answers if isinstance(answer, RunTrouble)]
        spent = _cost(tmp_path, capped)
        assert 0 < teacher.requests_answered["note"] < 40
        assert bought
        assert {end.trouble.kind for end in ended} == {"budget"}
        assert 0.3 * budget_usd < spent <= budget_usd
        done = teacher.requests_answered["note"]
        raised = replace(capped, budget_usd=10.0)
        assert all(isinstance(answer, Completion) for answer in run(ask_all(raised, tmp_path, requests)))
        assert teacher.requests_answered["note"] == 40 > done


def test_money_is_set_aside_durably_before_a_permit_is_given(tmp_path: Path) -> None:
    """Whoever kills everything after any reply finds a mark that covers all that may be charged."""
    num_permits = [0]

    def watching(desk: Desk) -> Callable[[Said], Awaitable[Heard]]:
        async def exchange(said: Said) -> Heard:
            heard = await desk.exchange(said)
            purse = desk._money.own.purse
            num_permits[0] += len(heard.permits)
            reserved = purse.settled_usd + purse.unsettled_usd + purse.outstanding_usd
            assert not heard.permits or purse.outstanding_usd > 0
            assert reserved <= read_mark(Folder(str(tmp_path))) + 1e-9 <= 5.0
            return heard

        return exchange

    with OfflineTeacher(faults=Faults(latency_seconds=0.1)) as teacher:
        endpoint = endpoint_of(teacher, price=PRICE, budget_usd=5.0, max_in_flight=8)
        run(ask_all(endpoint, tmp_path, [request_note(number) for number in range(40)], exchange=watching))
    assert num_permits[0] >= 40


def test_the_cost_is_what_the_provider_charged_discarded_replies_included_and_each_once(
    tmp_path: Path,
) -> None:
    """Over three runs on one journal; in the second one every reply is bought already."""
    requests = [request_note(number) for number in range(60)]
    faults = Faults(truncation=0.15, empty=0.15, malformed=0.1, content_filter=0.1, failing_attempts=1)
    charged = 0
    for num_requests in (40, 40, 60):
        with OfflineTeacher(faults=faults) as teacher:
            endpoint = endpoint_of(teacher, price=PRICE)
            answers = run(ask_all(endpoint, tmp_path, requests[:num_requests], workers=2))
            charged += teacher._service.prompt_tokens + teacher._service.completion_tokens
            assert _cost(tmp_path, endpoint) == pytest.approx(charged * 1e-5)
    assert any(isinstance(answer, Failure) for answer in answers)
    assert max(answer.attempts for answer in answers if not isinstance(answer, RunTrouble)) == 2


def test_without_a_price_the_cost_is_unknown(tmp_path: Path) -> None:
    with OfflineTeacher() as teacher:
        run(ask_all(endpoint_of(teacher), tmp_path / "free", [request_note(1)]))
        run(ask_all(endpoint_of(teacher, price=PRICE), tmp_path / "priced", [request_note(1)]))
        assert _cost(tmp_path / "free", endpoint_of(teacher)) is None
        assert _cost(tmp_path / "priced", endpoint_of(teacher, price=PRICE)) > 0


def _cost(folder: Path, endpoint: Endpoint) -> Any:
    async def look() -> float | None:
        return (await Desk(Folder(str(folder)), endpoint).snapshot()).cost_usd

    return run(look())


def test_a_used_up_quota_ends_all_workers_and_keeps_what_was_in_flight(tmp_path: Path) -> None:
    requests = [request_note(number) for number in range(40)]
    with OfflineTeacher(faults=Faults(latency_seconds=0.2, no_quota=0.05)) as teacher:
        answers = run(ask_all(endpoint_of(teacher), tmp_path, requests))
        answered = teacher.requests_answered["note"]
    ended = [answer for answer in answers if isinstance(answer, RunTrouble)]
    assert ended
    assert {end.trouble.kind for end in ended} == {"endpoint"}
    assert "no quota left" in ended[0].trouble.message
    with OfflineTeacher() as teacher:
        assert all(
            isinstance(answer, Completion)
            for answer in run(ask_all(endpoint_of(teacher), tmp_path, requests))
        )
        assert teacher.requests_answered.get("note", 0) == 40 - answered


def test_a_request_that_breaks_its_server_fails_while_the_others_are_answered(tmp_path: Path) -> None:
    requests = [request_note(number) for number in range(40)]
    with OfflineTeacher(faults=Faults(server_error=0.5)) as teacher:
        endpoint = endpoint_of(teacher)
        answers = run(ask_all(endpoint, tmp_path, requests))
    reasons = Counter(answer.reason for answer in answers if isinstance(answer, Failure))
    assert 3 <= reasons["server_error"] <= 20
    assert sum(isinstance(answer, Completion) for answer in answers) == 40 - reasons["server_error"]


def test_failures_are_kept_until_they_are_asked_for_anew(tmp_path: Path) -> None:
    async def forget(endpoint: Endpoint) -> None:
        desk = Desk(Folder(str(tmp_path)), endpoint)
        await desk.forget_failures()
        await desk.close()

    requests = [request_note(number) for number in range(40)]
    with OfflineTeacher(faults=Faults(bad_request=0.2)) as teacher:
        failed = sum(
            isinstance(answer, Failure) for answer in run(ask_all(endpoint_of(teacher), tmp_path, requests))
        )
    assert 2 <= failed <= 20
    with OfflineTeacher() as teacher:
        endpoint = endpoint_of(teacher)
        again = run(ask_all(endpoint, tmp_path, requests))
        assert sum(isinstance(answer, Failure) for answer in again) == failed
        assert not teacher.requests_received
        run(forget(endpoint))
        assert all(isinstance(answer, Completion) for answer in run(ask_all(endpoint, tmp_path, requests)))
        assert teacher.requests_answered == {"note": failed}


def test_the_desk_says_why_nothing_moves(tmp_path: Path) -> None:
    async def reasons_while(endpoint: Endpoint, folder: Path, num_requests: int) -> set[str]:
        desk = Desk(Folder(str(folder)), endpoint)
        buyer = Buyer(endpoint, DeskLink(desk.exchange, "worker").start())
        asked = [
            asyncio.ensure_future(buyer.complete(request_note(number), Patience(60.0)))
            for number in range(num_requests)
        ]
        reasons = set()
        while not all(one.done() for one in asked):
            reasons.add((await desk.snapshot()).why_waiting)
            await asyncio.sleep(0.05)
        assert all(isinstance(one.result(), Completion) for one in asked)
        assert (await desk.snapshot()).why_waiting == ""
        await buyer.close()
        await desk.close()
        return reasons

    limited = Faults(requests_per_minute=120, retry_after_seconds=2.0)
    with OfflineTeacher(faults=limited) as teacher:
        reasons = run(reasons_while(endpoint_of(teacher), tmp_path / "limited", 8))
    assert "the endpoint asks to wait 2 s (rate limit)" in reasons
    out = Faults(latency_seconds=0.2, outage_after_seconds=0.5, outage_seconds=8.0)
    with OfflineTeacher(faults=out) as teacher:
        endpoint = endpoint_of(teacher, max_in_flight=10)
        reasons = run(reasons_while(endpoint, tmp_path / "out", 60))
    assert any("no answer from the endpoint for" in reason for reason in reasons)


def test_a_row_is_given_up_after_three_deaths_alone_and_never_for_shared_ones() -> None:
    deaths = RowDeaths()
    for life in range(20):
        process = f"life {life}"
        company = ["poison", *(f"row {number}" for number in range(70))]
        verdict = deaths.begin(process, "poison")
        if verdict.is_quarantined:
            break
        if verdict.deaths:
            deaths.admit(process, "poison", is_alone=largest_company(verdict.deaths) == 1)
        if largest_company(verdict.deaths) > 1:
            for row in company[1:]:
                deaths.begin(process, row)
                deaths.admit(process, row, is_alone=False)
        deaths.die(process)
    assert life == 3 + LONE_DEATHS_TO_QUARANTINE
    assert not any(deaths.begin("later", f"row {number}").is_quarantined for number in range(70))
    assert deaths.begin("later", "poison").is_quarantined
