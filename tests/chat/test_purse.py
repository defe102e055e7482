"""Money over random lives: reserved, settled, broken off, killed at any moment; the cap always holds."""

import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.purse import MARK_NAME, Purse, read_mark, write_mark
from asclepius_ray.errors import ArtifactError

CENT = 0.01


@dataclass
class Provider:
    """What is truly charged, and what the journal shows of it after a kill."""

    charged_usd: float = 0.0
    journaled_usd: float = 0.0
    flushed_usd: float = 0.0

    def charge(self, usd: float) -> None:
        self.charged_usd += usd


@dataclass
class Life:
    """One run: its purse, the mark on storage, and what each call in flight has set aside."""

    budget_usd: float
    provider: Provider
    stored_mark_usd: float
    in_flight: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.provider.journaled_usd = self.provider.flushed_usd
        self.purse = Purse(self.budget_usd, self.provider.flushed_usd, self.stored_mark_usd)

    def ask(self, usd: float) -> bool:
        mark = self.purse.needs(usd)
        if mark is None:
            return False
        if mark > self.purse.mark_usd:
            self.stored_mark_usd = mark
            self.purse.mark_written(mark)
        self.purse.reserve(usd)
        self.in_flight.append(usd)
        return True

    def end_a_call(self, chance: random.Random) -> None:
        """Answered at less than was set aside, or broken off and charged or not."""
        reserved = self.in_flight.pop(chance.randrange(len(self.in_flight)))
        cost = reserved * chance.random()
        if chance.random() < 0.2:
            self.provider.charge(cost * chance.choice([0, 1]))
            self.purse.settle(reserved, 0.0, reserved)
        else:
            self.provider.charge(cost)
            self.provider.journaled_usd += cost
            self.purse.settle(reserved, cost, 0.0)

    def flush(self) -> None:
        self.provider.flushed_usd = self.provider.journaled_usd
        mark = self.purse.lowest_safe_mark()
        if mark < self.purse.mark_usd:
            self.stored_mark_usd = mark
            self.purse.mark_written(mark)

    def kill(self, chance: random.Random) -> None:
        """What is in flight may be charged, and nobody will ever hear of it."""
        for reserved in self.in_flight:
            self.provider.charge(reserved * chance.choice([0, chance.random(), 1]))

    def check(self) -> None:
        purse = self.purse
        bound = purse.settled_usd + purse.unsettled_usd + purse.outstanding_usd
        assert bound <= purse.mark_usd + 1e-9
        assert purse.mark_usd <= self.budget_usd + 1e-9
        assert self.stored_mark_usd == pytest.approx(purse.mark_usd)
        assert self.provider.charged_usd <= self.stored_mark_usd + 1e-6
        assert purse.outstanding_usd == pytest.approx(sum(self.in_flight), abs=1e-6)


@pytest.mark.parametrize("seed", range(200))
def test_no_life_and_no_kill_ever_spends_more_than_the_mark_and_the_cap(seed: int) -> None:
    chance = random.Random(seed)
    provider, mark, budget = Provider(), 0.0, 0.5
    for _life in range(5):
        life = Life(budget, provider, mark)
        for _step in range(120):
            action = chance.random()
            if action < 0.5:
                life.ask(chance.choice([0.1, 1.0, 2.5]) * CENT)
            elif action < 0.85 and life.in_flight:
                life.end_a_call(chance)
            elif action < 0.95:
                life.flush()
            life.check()
        life.kill(chance)
        life.check()
        mark = life.stored_mark_usd
        budget += chance.choice([0.0, 0.3])


def test_the_cap_is_used_up_and_not_only_kept() -> None:
    life = Life(1.0, Provider(), 0.0)
    chance = random.Random(5)
    while not life.purse.is_exhausted(CENT):
        while len(life.in_flight) < 8 and life.ask(CENT):
            pass
        life.end_a_call(chance) if life.in_flight else life.flush()
        life.flush()
        life.check()
    # A fifth of the calls broke off and counts as spent.
    assert life.provider.charged_usd > 0.6
    assert life.purse.settled_usd + life.purse.unsettled_usd > 0.97


def test_the_mark_is_written_for_many_calls_at_once() -> None:
    life, written = Life(100.0, Provider(), 0.0), 0
    for _ in range(1000):
        before = life.stored_mark_usd
        assert life.ask(CENT)
        written += life.stored_mark_usd != before
    assert written < 50


def test_without_a_cap_nothing_is_forbidden_and_nothing_written() -> None:
    purse = Purse(0.0, 0.0, 0.0)
    assert purse.needs(1e9) == 0.0
    purse.reserve(1e9)
    assert not purse.is_exhausted(1e12)


def test_a_cap_below_what_was_spent_forbids_everything_and_takes_nothing_back() -> None:
    purse = Purse(0.5, 0.8, 0.9)
    assert purse.needs(1e-9) is None
    assert purse.is_exhausted(1e-9)
    assert (purse.settled_usd, purse.unsettled_usd) == (0.8, pytest.approx(0.1))
    assert purse.lowest_safe_mark() == pytest.approx(0.9)


def test_an_open_batch_of_a_killed_run_is_no_longer_counted_as_lost() -> None:
    purse = Purse(1.0, 0.1, 0.6)
    purse.adopt(0.4)
    assert (purse.unsettled_usd, purse.outstanding_usd) == (pytest.approx(0.1), pytest.approx(0.4))
    purse.settle(0.4, 0.3, 0.0)
    assert purse.settled_usd + purse.unsettled_usd == pytest.approx(0.5)


def test_sums_do_not_drift() -> None:
    purse = Purse(10.0, 0.0, 0.0)
    for _ in range(100_000):
        purse.reserve(1e-5)
        purse.settle(1e-5, 1e-5, 0.0)
    assert purse.settled_usd == pytest.approx(1.0, abs=1e-9)
    assert purse.outstanding_usd == 0.0


def test_the_mark_is_read_back_and_a_damaged_one_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert read_mark(folder) == 0.0
    write_mark(folder, 1.25)
    assert read_mark(folder) == 1.25
    for content in (b"", b"{}", b'{"mark_usd": "much"}', b"[1]"):
        folder.write_bytes(MARK_NAME, content)
        with pytest.raises(ArtifactError, match="what the provider's account shows"):
            read_mark(folder)
