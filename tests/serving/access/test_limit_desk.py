"""Limits over two replicas that share one real actor of a real cluster."""

import asyncio
import time
import uuid

import pytest
import ray
from ray.util.state import list_actors

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.access.allowance import LimitRefusal
from asclepius_ray.serving.access.keys import KeyLimits
from asclepius_ray.serving.access.limit_book import Grant
from asclepius_ray.serving.access.limit_desk import NAMESPACE, RayDesk, desk_name
from asclepius_ray.serving.access.limit_link import BEAT_SECONDS, DeskAway, LimitLink, LimitTicket
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.ticket import Size
from asclepius_ray.serving.surface.api_errors import ApiError

pytestmark = pytest.mark.whole

# So few a second that a slow machine keeps the pace: at 100 a key one offered less than the limit.
NUM_REQUESTS, LIMIT_PER_SECOND = 320, 10
TOKENS_EACH = 30


@ray.remote(num_cpus=0)
class Replica:
    """One replica's admission in a process of its own."""

    def __init__(self, application: str, number: int) -> None:
        self._link = LimitLink(RayDesk(application), f"replica-{number}", num_replicas=2)
        self._admission = Admission(limits=self._link)

    async def ask(
        self, key_id: str, limits: KeyLimits, num_requests: int, per_second: float, used_tokens: int
    ) -> list[int]:
        """Asks at an even pace and closes at once; the Retry-After of those that were refused."""
        started, refused = time.monotonic(), []
        caller = Caller(key_id, limits=limits)
        for number in range(num_requests):
            await asyncio.sleep(max(0.0, started + number / per_second - time.monotonic()))
            account = Account(str(number), "", caller)
            try:
                ticket = await self._admission.admit(account, Size("tiny", 10, TOKENS_EACH - 10))
            except ApiError as error:
                refused.append(error.retry_after_seconds)
            else:
                ticket.took(used_tokens - 10)
                ticket.close("stop")
        return refused

    async def hold(self, limits: KeyLimits) -> bool:
        """Takes a place and keeps it; whether it got one."""
        try:
            await self._admission.admit(Account("r", "", Caller("ward", limits=limits)), Size("tiny", 1, 1))
        except ApiError:
            return False
        return True

    async def meet(self) -> int:
        """Asks once, so that the desk is there; how many replicas it knows."""
        await self.ask("first", KeyLimits(requests_per_minute=100_000), 1, 1.0, 11)
        give_up = time.monotonic() + 60
        while self._link.num_replicas != 2 or self._link._local is not None:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.1)
        return self._link.num_replicas


@pytest.fixture(scope="module")
def application() -> str:
    return f"limits-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def replicas(ray_cluster: str, application: str) -> list[ray.actor.ActorHandle]:
    found = [Replica.remote(application, number) for number in range(2)]
    assert ray.get([replica.meet.remote() for replica in found]) == [2, 2]
    return found


def test_two_replicas_start_one_desk(
    ray_cluster: str, replicas: list[ray.actor.ActorHandle], application: str
) -> None:
    desks = [
        actor
        for actor in list_actors(ray_cluster)
        if actor.name == desk_name(application) and actor.state == "ALIVE"
    ]
    assert len(desks) == 1


def test_limits_of_two_keys_hold_over_two_replicas_at_twice_the_load(
    replicas: list[ray.actor.ActorHandle],
) -> None:
    # Of thirty reserved tokens twenty are used: the rest must come back, or two thirds would get through.
    used_tokens = 20
    limits = {
        "by requests": KeyLimits(requests_per_minute=60 * LIMIT_PER_SECOND),
        "by tokens": KeyLimits(tokens_per_minute=60 * LIMIT_PER_SECOND * used_tokens),
    }
    started = time.monotonic()
    asked = {
        key_id: [
            replica.ask.remote(key_id, limit, NUM_REQUESTS // 2, LIMIT_PER_SECOND, used_tokens)
            for replica in replicas
        ]
        for key_id, limit in limits.items()
    }
    refused = {
        key_id: [one for reply in ray.get(replies) for one in reply] for key_id, replies in asked.items()
    }
    expected = LIMIT_PER_SECOND * (time.monotonic() - started)
    for key_id, retries in refused.items():
        assert NUM_REQUESTS - len(retries) == pytest.approx(expected, rel=0.1), key_id
        assert set(retries) == {1}, key_id


def test_open_requests_are_counted_over_replicas_and_outlive_the_desk(
    ray_cluster: str, replicas: list[ray.actor.ActorHandle], application: str
) -> None:
    limits = KeyLimits(max_in_flight=3)
    got = [ray.get(replicas[number % 2].hold.remote(limits)) for number in range(5)]
    assert got == [True, True, True, False, False]
    ray.kill(ray.get_actor(desk_name(application), NAMESPACE), no_restart=False)
    time.sleep(2 * BEAT_SECONDS)
    assert ray.get([replica.meet.remote() for replica in replicas]) == [2, 2]
    [desk] = [
        actor for actor in list_actors(ray_cluster, detail=True) if actor.name == desk_name(application)
    ]
    assert int(desk.num_restarts) == 1
    assert [ray.get(replica.hold.remote(limits)) for replica in replicas] == [False, False]


def test_a_desk_that_nobody_speaks_to_ends_and_the_next_call_starts_another(ray_cluster: str) -> None:
    name = f"limits-{uuid.uuid4().hex[:8]}"
    grant, limits = Grant("ward", 1), KeyLimits(max_in_flight=1)

    def is_there() -> bool:
        return any(
            actor.name == desk_name(name) and actor.state == "ALIVE" for actor in list_actors(ray_cluster)
        )

    async def take(desk: RayDesk) -> bool:
        give_up = time.monotonic() + 60
        while time.monotonic() < give_up:
            try:
                if await desk.take("a", "grant", grant, limits) is None:
                    return True
                # A grant whose reply was late holds the only place until that desk has ended.
                await asyncio.sleep(2.0)
            except DeskAway:
                await asyncio.sleep(0.2)
        return False

    async def play() -> None:
        desk = RayDesk(name, idle_seconds=1.0)
        assert await take(desk)
        give_up = time.monotonic() + 60
        while is_there():
            assert time.monotonic() < give_up
            await asyncio.sleep(0.2)
        assert await take(desk), "the one that it meets now knows nothing of the first grant"

    asyncio.run(play())


@ray.remote(num_cpus=0)
class FailingDesk:
    """Code that does not understand its calls."""

    async def beat(self, *arguments: object) -> int:
        raise AttributeError("zebrafinch")

    async def take(self, *arguments: object) -> None:
        raise AttributeError("zebrafinch")


def test_a_desk_that_fails_counts_as_away_and_is_told_by_its_type_once(
    ray_cluster: str, caplog: pytest.LogCaptureFixture
) -> None:
    name = f"limits-{uuid.uuid4().hex[:8]}"
    failing = FailingDesk.options(name=desk_name(name), namespace=NAMESPACE).remote()
    ray.get(failing.__ray_ready__.remote(), timeout=60)
    caller = Caller("ward", limits=KeyLimits(max_in_flight=2))

    async def play() -> None:
        desk = RayDesk(name)
        link = LimitLink(desk, "a", num_replicas=2)
        assert isinstance(await link.take(caller, 1), LimitTicket)
        assert isinstance(await link.take(caller, 1), LimitRefusal), "one of two places is this replica's"
        give_up = time.monotonic() + 30
        while "fails" not in caplog.text:
            assert time.monotonic() < give_up
            await asyncio.sleep(0.1)
        await asyncio.sleep(2 * BEAT_SECONDS)
        assert link._beating is not None
        assert not link._beating.done()
        link._beating.cancel()

    try:
        asyncio.run(play())
    finally:
        ray.kill(failing)
    assert caplog.text.count("the desk of limits fails (AttributeError)") == 1
    assert "zebrafinch" not in caplog.text
