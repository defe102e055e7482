"""What Ray's exporter is told of an admission, which nobody asks through /metrics."""

import asyncio

import pytest

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.admission import gauges
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.occupancy import Places
from asclepius_ray.serving.admission.ticket import Size
from asclepius_ray.serving.meters import Figure, Meters, Record

PASS_SECONDS = 0.05


class Exporter:
    """Keeps the last value of each gauge, and how often one was set."""

    def __init__(self) -> None:
        self.last: dict[str, float] = {}
        self.num_set = 0

    def open(self, figure: Figure) -> Record:
        def record(value: float, _: dict[str, str]) -> None:
            if figure.kind == "gauge":
                self.last[figure.name] = value
                self.num_set += 1

        return record


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "SET_SECONDS", PASS_SECONDS)


def test_gauges_are_set_during_the_first_request_and_follow_a_long_one() -> None:
    async def play() -> None:
        exporter, uses = Exporter(), [0.25]
        admission = Admission(places=Places(1), meters=Meters(exporter), name="m", cache_use=lambda: uses[-1])
        first = await admission.admit(Account("r", "", Caller("k")), Size("m", 50, 50))
        await asyncio.sleep(0)
        assert (exporter.last["running_requests"], exporter.last["held_tokens"]) == (1, 100)
        assert exporter.last["cache_use"] == 0.25
        waiting = asyncio.create_task(
            admission.admit_when_there_is_room(Account("r", "", Caller("k")), Size("m", 5, 5))
        )
        uses.append(0.5)
        await asyncio.sleep(3 * PASS_SECONDS)
        assert (exporter.last["waiting_requests"], exporter.last["cache_use"]) == (1, 0.5)
        first.close("stop")
        (await waiting).close("stop")

    asyncio.run(play())


def test_what_the_engine_frees_after_the_last_end_is_seen_and_then_it_is_quiet() -> None:
    async def play() -> None:
        exporter, uses = Exporter(), [0.5]
        admission = Admission(meters=Meters(exporter), name="m", cache_use=lambda: uses[-1])
        ticket = await admission.admit(Account("r", "", Caller("k")), Size("m", 50, 50))
        await asyncio.sleep(0)
        ticket.close("cancelled")
        await asyncio.sleep(PASS_SECONDS * 1.5)
        assert (exporter.last["running_requests"], exporter.last["cache_use"]) == (0, 0.5)
        uses.append(0.0)
        await asyncio.sleep(PASS_SECONDS)
        assert exporter.last["cache_use"] == 0.0
        num_set = exporter.num_set
        await asyncio.sleep(4 * PASS_SECONDS)
        assert exporter.num_set == num_set
        again = await admission.admit(Account("r", "", Caller("k")), Size("m", 50, 50))
        await asyncio.sleep(0)
        assert exporter.last["held_tokens"] == 100
        again.close("stop")

    asyncio.run(play())
