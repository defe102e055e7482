"""Who waits at the desk: asks by worker, served in turn; keys in flight, and who else waits for them."""

import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from asclepius_ray.chat.desk_messages import Ask, Verdict
from asclepius_ray.chat.exchange import Entry
from asclepius_ray.chat.gate import Load

PREFETCH_SHARE = 0.5
LEAST_PREFETCH = 4


@dataclass
class Permit:
    """One permit in use: for what, and what was set aside for it."""

    load: Load
    send_at: float
    reserved_tokens: int = 0
    reserved_usd: float = 0.0
    is_of_lost_desk: bool = False
    """Given by a desk that was lost: its money is under the mark that was left, as not settled."""


@dataclass
class WorkerState:
    """All that the desk knows of one life of one worker."""

    name: str
    process: str
    heard_at: float = field(default_factory=time.monotonic)
    waiting: deque[Ask] = field(default_factory=deque)
    urgent: deque[Ask] = field(default_factory=deque)
    """Served before all that waits."""
    permits: dict[int, Permit] = field(default_factory=dict)
    granted: list[tuple[int, float]] = field(default_factory=list)
    """Permits that were not told yet: number, and when to send."""
    bought: list[Entry] = field(default_factory=list)
    """Answers that were not told yet."""
    verdicts: list[Verdict] = field(default_factory=list)
    undurable: deque[tuple[int, int]] = field(default_factory=deque)
    """The worker's number of a delivery, the journal's number of it."""
    durable: int = 0
    quota: int = 0
    wanted: int = 0
    in_flight: int = 0

    def enqueue(self, ask: Ask) -> None:
        (self.urgent if ask.load.is_urgent else self.waiting).append(ask)

    def next_ask(self) -> Ask | None:
        """The ask whose turn it is; None where enough permits are out for the places in flight."""
        allowance = self.quota + max(LEAST_PREFETCH, int(self.quota * PREFETCH_SHARE))
        queue = self.urgent or self.waiting
        return queue[0] if queue and len(self.permits) < allowance else None

    def drop(self, ask: Ask) -> None:
        queue = self.urgent if ask.load.is_urgent else self.waiting
        queue.popleft()


@dataclass
class _Claim:
    """A key that one process is buying, and the asks of others for it."""

    process: str
    waiters: list[tuple[str, Ask]] = field(default_factory=list)
    """Worker's name and its ask."""


class Claims:
    """The keys in flight: one buyer each, whoever else asks waits for his answer."""

    def __init__(self) -> None:
        self._claims: dict[bytes, _Claim] = {}

    def take(self, key: bytes, worker: WorkerState, ask: Ask) -> bool:
        """True if the worker is the buyer now; otherwise its ask is kept until the answer is there."""
        claim = self._claims.get(key)
        if claim is None:
            self._claims[key] = _Claim(worker.process)
            return True
        if claim.process == worker.process:
            return True
        claim.waiters.append((worker.name, ask))
        return False

    def restore(self, key: bytes, process: str) -> None:
        """The process buys the key already, unless somebody else has begun to meanwhile."""
        self._claims.setdefault(key, _Claim(process))

    def holds(self, key: bytes, process: str) -> bool:
        claim = self._claims.get(key)
        return claim is not None and claim.process == process

    def release(self, key: bytes, process: str) -> list[tuple[str, Ask]]:
        """Ends a claim, answered or given up, and returns those who waited for it."""
        if not self.holds(key, process):
            return []
        return self._claims.pop(key).waiters

    def release_all(self, process: str, keep: Collection[bytes] = ()) -> list[tuple[str, Ask]]:
        """Ends the claims of a process, those of `keep` excepted, and returns those who waited for them."""
        kept = set(keep)
        keys = [key for key, claim in self._claims.items() if claim.process == process and key not in kept]
        return [waiter for key in keys for waiter in self.release(key, process)]

    def forget_waiter(self, name: str) -> None:
        for claim in self._claims.values():
            claim.waiters = [waiter for waiter in claim.waiters if waiter[0] != name]

    def __len__(self) -> int:
        return len(self._claims)
