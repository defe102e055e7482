"""What is admitted, what waits and what is refused, on a clock of the test's own."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.access.allowance import LimitRefusal
from asclepius_ray.serving.access.keys import KeyLimits
from asclepius_ray.serving.access.limit_book import Grant
from asclepius_ray.serving.access.limit_link import LimitLink, LocalDesk
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.occupancy import Places
from asclepius_ray.serving.admission.ticket import Size, Ticket
from asclepius_ray.serving.scaling import WINDOW_SECONDS
from asclepius_ray.serving.surface.api_errors import ApiError


@dataclass
class Clock:
    seconds: float = 100.0

    def __call__(self) -> float:
        return self.seconds


def account(key_id: str = "k", deadline: float | None = None, limits: KeyLimits | None = None) -> Account:
    caller = Caller(key_id, limits=limits or KeyLimits())
    return Account("r", "", caller, started=100.0, deadline=deadline)


def measured(clock: Clock, **settings: object) -> Admission:
    """An admission that has seen eight answers of two seconds, with 50 tokens each, the first after 0.5 s."""
    admission = Admission(now=clock, **settings)  # type: ignore[arg-type]
    for _ in range(8):
        ticket = admission.admit_now(account(), Size("m", 50, 50))
        clock.seconds += 0.5
        ticket.took(1)
        clock.seconds += 1.5
        ticket.took(49)
        ticket.close("stop")
    return admission


def refusal(admission: Admission, who: Account, tokens: int = 100) -> ApiError:
    with pytest.raises(ApiError) as refused:
        admission.admit_now(who, Size("m", tokens // 2, tokens // 2))
    return refused.value


def fill(admission: Admission, count: int, key_id: str = "k") -> list[Ticket]:
    return [admission.admit_now(account(key_id), Size("m", 50, 50)) for _ in range(count)]


def test_the_budget_bounds_prompts_and_longest_answers_together() -> None:
    admission = Admission(budget_tokens=1000)
    ticket = admission.admit_now(account(), Size("m", 300, 300))
    assert refusal(admission, account(), 402).status == 429
    admission.admit_now(account(), Size("m", 0, 400))
    assert admission.held_tokens == 1000
    ticket.close("stop")
    ticket.close("stop")
    assert admission.held_tokens == 400


def test_one_that_is_larger_than_everything_is_served_alone() -> None:
    for admission in (Admission(budget_tokens=100), Admission(places=Places(2, 100), max_queue_seconds=5.0)):
        ticket = admission.admit_now(account(), Size("m", 500, 500))
        assert refusal(admission, account()).code == "rate_limit_exceeded"
        assert ticket.placed_at is not None
        ticket.close("stop")
        admission.admit_now(account(), Size("m", 500, 500))


def test_places_are_filled_in_order_and_what_waits_is_counted() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(2), max_queue_seconds=60.0)
    first, second = fill(admission, 2)
    clock.seconds += 1.6
    first.took(40)
    second.took(40)
    waiting = account()
    third = admission.admit_now(waiting, Size("m", 50, 50))
    assert (admission.queued_tokens, third.placed_at) == (100, None)
    clock.seconds += 0.7
    first.close("stop")
    assert (admission.queued_tokens, third.placed_at) == (0, clock.seconds)
    assert waiting.queue_seconds == pytest.approx(0.7)


def test_a_queue_is_no_longer_than_a_third_of_an_answer() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(1), max_queue_seconds=60.0)
    [running] = fill(admission, 1)
    # Two seconds to go, and 0.6 are as long as anybody waits.
    refused = refusal(admission, account())
    assert (refused.status, refused.code, refused.retry_after_seconds) == (429, "rate_limit_exceeded", 2)
    clock.seconds += 1.6
    running.took(40)
    assert admission.admit_now(account(), Size("m", 50, 50)).placed_at is None


def test_the_setting_makes_the_queue_shorter_still() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(1), max_queue_seconds=0.0)
    fill(admission, 1)
    assert refusal(admission, account()).code == "rate_limit_exceeded"


def test_a_budget_makes_no_queue_longer_than_the_wait_allows() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(16), budget_tokens=1_000_000, max_queue_seconds=1.0)
    running = fill(admission, 16)
    clock.seconds += 0.5
    for ticket in running:
        ticket.took(1)
    refused = [refusal(admission, account()) for _ in range(100)]
    assert {one.code for one in refused} == {"rate_limit_exceeded"}
    assert refused[0].retry_after_seconds >= 1
    clock.seconds += 1.0
    for ticket in running:
        ticket.took(40)
    assert admission.admit_now(account(), Size("m", 50, 50)).placed_at is None


def test_before_anything_was_measured_few_may_wait() -> None:
    admission = Admission(places=Places(8), max_queue_seconds=60.0)
    fill(admission, 10)
    assert refusal(admission, account()).retry_after_seconds == 1


def test_a_deadline_that_cannot_be_met_is_refused_at_once() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(1), max_queue_seconds=60.0)
    idle = refusal(admission, account(deadline=clock.seconds + 0.4))
    assert (idle.status, idle.code) == (429, "deadline_unreachable")
    admission.admit_now(account(deadline=clock.seconds + 0.6), Size("m", 50, 50)).close("stop")
    [running] = fill(admission, 1)
    clock.seconds += 1.6
    running.took(40)
    assert refusal(admission, account(deadline=clock.seconds + 0.8)).code == "deadline_unreachable"
    late = admission.admit_now(account(deadline=clock.seconds + 2.0), Size("m", 50, 50))
    assert late.seconds_left == pytest.approx(2.0)


def test_draining_takes_in_nothing_and_lets_the_rest_end() -> None:
    admission = Admission()
    [ticket] = fill(admission, 1)
    admission.drain()
    refused = refusal(admission, account())
    assert (refused.status, refused.code) == (503, "draining")
    assert refused.response().headers["retry-after"] == "1"
    ticket.took(5)
    ticket.close("stop")
    assert (admission.num_open, ticket.made_tokens) == (0, 5)


def test_a_key_that_holds_more_than_its_part_cannot_queue_while_others_ask() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(4), max_queue_seconds=60.0)
    greedy = fill(admission, 4, "greedy")
    clock.seconds += 1.9
    for ticket in greedy:
        ticket.took(49)
    fill(admission, 1, "greedy")
    fill(admission, 1, "other")
    assert "part of a busy replica" in refusal(admission, account("greedy")).message
    fill(admission, 1, "other")


def test_tickets_fill_the_account() -> None:
    clock = Clock()
    admission = Admission(now=clock)
    who = account()
    ticket = asyncio.run(admission.admit(who, Size("m", 7, 20, 2)))
    clock.seconds += 1.5
    ticket.took(3)
    clock.seconds += 1.0
    ticket.took(2)
    ticket.close("length")
    ticket.took(9)
    assert (who.model, who.prompt_tokens, who.completion_tokens, who.outcome) == ("m", 7, 5, "length")
    assert (who.queue_seconds, who.first_token_seconds) == (0.0, 1.5)


def test_many_answers_to_one_request_are_added_up() -> None:
    admission, who = Admission(), account()

    async def answer_two() -> None:
        for outcome in ("cancelled", "stop"):
            ticket = await admission.admit(who, Size("m", 7, 20))
            ticket.took(3)
            ticket.close(outcome)

    asyncio.run(answer_two())
    assert (who.prompt_tokens, who.completion_tokens, who.outcome) == (14, 6, "cancelled")


def test_what_a_keys_limits_refuse_holds_nothing() -> None:
    admission = Admission(places=Places(8))
    limits = KeyLimits(max_in_flight=1)

    async def ask() -> ApiError:
        ticket = await admission.admit(account(limits=limits), Size("m", 10, 10))
        with pytest.raises(ApiError) as refused:
            await admission.admit(account(limits=limits), Size("m", 10, 10))
        assert admission.held_tokens == 20
        ticket.close("stop")
        await asyncio.sleep(0)
        (await admission.admit(account(limits=limits), Size("m", 10, 10))).close("stop")
        await admission.limits.close()
        return refused.value

    refused = asyncio.run(ask())
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert "at the same time" in refused.message


class SlowDesk(LocalDesk):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_answer = asyncio.Event()

    async def take(
        self, replica_id: str, grant_id: str, grant: Grant, limits: KeyLimits
    ) -> LimitRefusal | None:
        await self.may_answer.wait()
        return await super().take(replica_id, grant_id, grant, limits)


def test_a_key_that_asks_beyond_its_limits_counts_as_no_demand() -> None:
    async def play() -> None:
        admission = Admission(places=Places(32))
        limits = KeyLimits(requests_per_minute=1)
        for number in range(20):
            try:
                (await admission.admit(account(limits=limits), Size("m", 100, 100))).close("stop")
            except ApiError:
                assert number, "the first one is within the limit"
        assert admission.load.asked_tokens == 200
        assert 'queue_seconds_count{model="m"} 1.0' in admission.meters.text().decode()
        await admission.limits.close()

    asyncio.run(play())


def test_no_place_is_held_while_the_limits_are_asked_for_and_one_that_is_gone_then_costs_no_tokens() -> None:
    async def play() -> None:
        desk = SlowDesk()
        admission = Admission(budget_tokens=100, limits=LimitLink(desk, "replica"))
        limits = KeyLimits(max_in_flight=1, tokens_per_minute=6000)
        asking = asyncio.create_task(admission.admit(account(limits=limits), Size("m", 50, 50)))
        await asyncio.sleep(0)
        assert admission.num_open == 0
        [other] = fill(admission, 1, "other")
        desk.may_answer.set()
        with pytest.raises(ApiError, match="full"):
            await asking
        assert (admission.num_open, admission.held_tokens) == (1, 100)
        other.close("stop")
        await asyncio.sleep(0)
        (await admission.admit(account(limits=limits), Size("m", 50, 50))).close("stop")
        await admission.limits.close()

    asyncio.run(play())


async def line_up(admission: Admission, key_ids: Sequence[str]) -> "list[asyncio.Task[Ticket]]":
    found = [
        asyncio.create_task(admission.admit_when_there_is_room(account(key_id), Size("m", 50, 50)))
        for key_id in key_ids
    ]
    await asyncio.sleep(0)
    return found


async def served(tasks: "list[asyncio.Task[Ticket]]") -> list[bool]:
    for _ in range(3):
        await asyncio.sleep(0)
    return [task.done() and not task.cancelled() for task in tasks]


def test_work_that_waits_gets_free_places_in_order() -> None:
    async def play() -> None:
        admission = Admission(places=Places(1))
        [first] = fill(admission, 1)
        waiting = await line_up(admission, "kkk")
        assert await served(waiting) == [False, False, False]
        first.close("stop")
        assert await served(waiting) == [True, False, False]
        waiting[0].result().close("stop")
        assert await served(waiting) == [True, True, False]
        waiting[1].result().close("stop")
        assert await served(waiting) == [True, True, True]

    asyncio.run(play())


def test_work_that_waits_can_be_cancelled_at_any_moment_and_holds_nothing() -> None:
    async def play() -> None:
        admission = Admission(places=Places(1))
        [first] = fill(admission, 1)
        waiting = await line_up(admission, "kkk")
        waiting[0].cancel()
        await asyncio.sleep(0)
        first.close("stop")
        # It has its place now and has not heard of it yet.
        waiting[1].cancel()
        assert await served(waiting) == [False, False, True]
        waiting[2].result().close("stop")
        assert (admission.num_open, admission.held_tokens) == (0, 0)

    asyncio.run(play())


def test_a_key_with_much_work_lets_another_go_first() -> None:
    async def play() -> None:
        admission = Admission(places=Places(2))
        held = fill(admission, 2, "bulk")
        waiting = await line_up(admission, ("bulk", "bulk", "other"))
        admission._shares.want("other", admission.now())
        held[0].close("stop")
        assert await served(waiting) == [False, False, True]
        held[1].close("stop")
        assert await served(waiting) == [True, False, True]

    asyncio.run(play())


def test_work_that_waits_hears_of_draining_and_of_its_deadline() -> None:
    async def play() -> list[ApiError]:
        admission = Admission(places=Places(1))
        fill(admission, 1)
        late = account(deadline=admission.now() + 0.05)
        with pytest.raises(ApiError) as over:
            await admission.admit_when_there_is_room(late, Size("m", 1, 1))
        waiting = await line_up(admission, "k")
        admission.drain()
        with pytest.raises(ApiError) as draining:
            await waiting[0]
        return [over.value, draining.value]

    over, draining = asyncio.run(play())
    assert (over.status, over.code) == (504, "deadline_exceeded")
    assert (draining.status, draining.code) == (503, "draining")


def test_work_that_waits_takes_its_keys_limits_as_they_come() -> None:
    async def play() -> None:
        admission = Admission()
        limits = KeyLimits(requests_per_minute=1200)
        started = admission.now()
        tickets = await asyncio.gather(
            *(admission.admit_when_there_is_room(account(limits=limits), Size("m", 1, 1)) for _ in range(25))
        )
        # Twenty at once, and five more at twenty a second.
        assert 0.2 < admission.now() - started < 5
        for ticket in tickets:
            ticket.close("stop")
        await admission.limits.close()

    asyncio.run(play())


def test_a_route_may_ask_before_it_reads_a_long_text() -> None:
    admission = Admission(budget_tokens=100)
    admission.refuse_when_full(account())
    fill(admission, 1)
    with pytest.raises(ApiError, match="full"):
        admission.refuse_when_full(account())


def test_a_replica_tells_what_it_holds_and_what_it_turned_away_within_the_last_seconds() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(4, 1000), budget_tokens=500)
    clock.seconds += WINDOW_SECONDS
    assert admission.load.asked_tokens == 0
    running = fill(admission, 4)
    clock.seconds += 1.6
    for ticket in running:
        ticket.took(40)
    fill(admission, 1)
    refusal(admission, account(), 100)
    load = admission.load
    assert (load.held_tokens, load.queued_tokens) == (500, 100)
    assert load.filled_share == 1.25, "five streams for four places; the budget is just full"
    assert (load.asked_tokens, load.refused_tokens) == (600, 100)
    assert load.tokens_per_second == pytest.approx(admission.pace.tokens_per_second)
    clock.seconds += WINDOW_SECONDS
    assert (admission.load.asked_tokens, admission.load.refused_tokens) == (0, 0)


def test_who_is_refused_before_its_text_is_read_counts_as_the_others_do() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(2), max_queue_seconds=0)
    fill(admission, 2)
    with pytest.raises(ApiError):
        admission.refuse_when_full(account())
    assert admission.load.refused_tokens == 100


def test_a_deadline_that_a_queue_makes_unreachable_counts_as_lack_of_room_and_one_too_short_does_not() -> (
    None
):
    clock = Clock()
    admission = measured(clock, places=Places(1), budget_tokens=1000)
    assert refusal(admission, account(deadline=clock.seconds + 0.1)).code == "deadline_unreachable"
    assert admission.load.refused_tokens == 0
    [running] = fill(admission, 1)
    clock.seconds += 1.6
    running.took(40)
    assert refusal(admission, account("other", deadline=clock.seconds + 0.8)).code == "deadline_unreachable"
    assert admission.load.refused_tokens == 100
    with pytest.raises(ApiError):
        admission.refuse_when_full(account("other", deadline=clock.seconds + 0.8))
    assert admission.load.refused_tokens == 200, "its text was not read: as large as the one that runs"


def test_a_model_with_a_batch_of_its_own_takes_no_place_of_the_others_and_gets_none_of_theirs() -> None:
    clock = Clock()
    admission = measured(clock, places=Places(2), own_places={"ward": Places(2)}, max_queue_seconds=0.0)
    running = fill(admission, 2)
    assert refusal(admission, account()).code == "rate_limit_exceeded"
    own = [admission.admit_now(account(), Size("ward", 50, 50)) for _ in range(2)]
    assert [ticket.placed_at for ticket in own] == [clock.seconds, clock.seconds]
    with pytest.raises(ApiError, match="full"):
        admission.admit_now(account(), Size("ward", 50, 50))
    assert (admission.load.held_tokens, admission.load.filled_share) == (400, 1.0)
    assert admission.expected_wait_seconds > 0
    running[0].close("stop")
    with pytest.raises(ApiError, match="full"):
        admission.admit_now(account(), Size("ward", 50, 50))
    fill(admission, 1)


def test_the_budget_and_the_measured_pace_are_those_of_all_batches_together() -> None:
    clock = Clock()
    settings: dict[str, object] = {"places": Places(4), "own_places": {"ward": Places(4)}}
    admission = measured(clock, budget_tokens=300, **settings)
    fill(admission, 2)
    admission.admit_now(account(), Size("ward", 50, 50))
    with pytest.raises(ApiError, match="full"):
        admission.admit_now(account(), Size("ward", 50, 50))
    assert admission.load.filled_share == 1.0
    admission = measured(clock, **settings)
    running = [*fill(admission, 4), *(admission.admit_now(account(), Size("ward", 50, 50)) for _ in range(4))]
    before = admission.pace.stream_tokens_per_second
    for _ in range(100):
        clock.seconds += 0.04
        for ticket in running:
            ticket.took(1)
    # Eight at 25 a second each, as the one before them.
    assert admission.pace.stream_tokens_per_second == pytest.approx(before, rel=0.05)


def test_work_that_waits_for_one_batch_lets_that_for_another_go_first() -> None:
    async def play() -> None:
        admission = Admission(places=Places(1), own_places={"ward": Places(1)})
        fill(admission, 1)
        waiting = await line_up(admission, "kk")
        other = asyncio.create_task(admission.admit_when_there_is_room(account(), Size("ward", 50, 50)))
        await asyncio.sleep(0)
        assert await served([*waiting, other]) == [False, False, True]
        admission.drain()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(play())


def test_the_time_of_a_token_is_that_of_its_choice_however_many_there_are() -> None:
    for num_choices in (1, 4):
        clock = Clock()
        ticket = Admission(now=clock).admit_now(account(), Size("m", 50, 40, num_choices))
        ticket.took(num_choices)
        assert ticket.token_seconds is None
        for _ in range(9):
            clock.seconds += 0.02
            ticket.took(num_choices)
        assert ticket.token_seconds == pytest.approx(0.02)
