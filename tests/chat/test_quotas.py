"""Places in flight move between workers without ever being used twice, however late a worker hears."""

import random
from dataclasses import dataclass

from asclepius_ray.chat.quotas import Quotas

LIMIT = 40


@dataclass
class Worker:
    """What one worker knows: the quota that it has heard, and the one that is on its way to it."""

    size: int = 0
    in_flight: int = 0
    wanted: int = 0
    on_its_way: int | None = None

    def act(self, chance: random.Random) -> None:
        self.wanted = chance.choice([0, 3, LIMIT, 2 * LIMIT])
        self.in_flight -= chance.randint(0, self.in_flight)
        self.in_flight = max(self.in_flight, min(self.size, self.wanted))


def test_no_place_is_used_twice_and_none_is_left_unused_for_ever() -> None:
    for seed in range(50):
        chance = random.Random(seed)
        quotas = Quotas(LIMIT)
        workers = {f"worker {number}": Worker() for number in range(4)}
        most = 0
        for _ in range(400):
            name, worker = chance.choice(list(workers.items()))
            if worker.on_its_way is not None:
                worker.size, worker.on_its_way = worker.on_its_way, None
            else:
                wanted = max(worker.wanted, worker.in_flight)
                worker.on_its_way = quotas.report(name, worker.in_flight, wanted)
            for one in workers.values():
                one.act(chance)
            most = max(most, sum(one.in_flight for one in workers.values()))
            assert most <= LIMIT
        assert most >= LIMIT - 4


def test_places_reach_whoever_wants_them_within_a_few_messages() -> None:
    quotas = Quotas(LIMIT)
    assert quotas.report("first", 0, LIMIT) == LIMIT
    assert quotas.report("second", 0, LIMIT) == 0
    assert quotas.report("first", LIMIT, LIMIT) == LIMIT // 2
    assert quotas.report("second", 0, LIMIT) == 0, "the first has not heard yet, or uses more"
    quotas.report("first", LIMIT // 2, LIMIT)
    assert quotas.report("second", 0, LIMIT) == LIMIT // 2
