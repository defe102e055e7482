"""An engine on a simulated clock under open-loop load: decode steps of a batch, admission as it is."""

import random
from collections import deque
from dataclasses import dataclass, field

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.admission.occupancy import Places
from asclepius_ray.serving.admission.ticket import Size, Ticket
from asclepius_ray.serving.surface.api_errors import ApiError


@dataclass
class Engine:
    """One step makes a token for each running request, and reads the prompts of those that begin."""

    num_places: int
    step_seconds: float
    step_seconds_per_request: float
    prompt_seconds_per_token: float = 0.0002
    running: dict[Ticket, int] = field(default_factory=dict)
    """With the tokens that its answer will have yet."""
    waiting: deque[tuple[Ticket, int]] = field(default_factory=deque)

    def step(self) -> float:
        """Fills the places and makes one token for each; the seconds that it takes."""
        seconds = self.step_seconds
        while self.waiting and len(self.running) < self.num_places:
            ticket, tokens = self.waiting.popleft()
            self.running[ticket] = tokens
            seconds += ticket.size.prompt_tokens * self.prompt_seconds_per_token
        return seconds + self.step_seconds_per_request * len(self.running)


@dataclass
class Load:
    """Requests at random moments; answers end by themselves before their longest length, or at it."""

    per_second: float
    prompt_tokens: tuple[int, int] = (100, 400)
    answer_tokens: int = 200
    shortest_share: float = 1.0
    seconds: float = 120.0


@dataclass
class Outcome:
    latencies: list[float] = field(default_factory=list)
    good_tokens: int = 0
    num_refused: int = 0
    retry_after: list[int] = field(default_factory=list)
    longest_queue: int = 0

    def percentile(self, share: float) -> float:
        return sorted(self.latencies)[int(share * (len(self.latencies) - 1))]


def simulate(engine: Engine, load: Load, seed: int = 0, **settings: float) -> Outcome:
    """Drives an Admission for `load.seconds` of simulated time."""
    now = 0.0
    draws = random.Random(seed)
    admission = Admission(places=Places(engine.num_places), now=lambda: now, **settings)  # type: ignore[arg-type]
    outcome = Outcome()
    arrival = draws.expovariate(load.per_second)
    while now < load.seconds:
        if not engine.running and not engine.waiting:
            now = max(now, arrival)
        # What comes during a step is admitted before the next one.
        end = now + engine.step() if (engine.running or engine.waiting) else now
        moment = now
        while arrival <= end:
            now = max(moment, arrival)
            size = Size("m", draws.randint(*load.prompt_tokens), load.answer_tokens)
            account = Account("r", "", Caller("k"), started=arrival)
            try:
                ticket = admission.admit_now(account, size)
            except ApiError as error:
                outcome.num_refused += 1
                outcome.retry_after.append(error.retry_after_seconds)
            else:
                share = draws.uniform(load.shortest_share, 1.0)
                engine.waiting.append((ticket, max(1, int(load.answer_tokens * share))))
            arrival += draws.expovariate(load.per_second)
        now = end
        outcome.longest_queue = max(outcome.longest_queue, len(engine.waiting))
        for ticket in list(engine.running):
            ticket.took(1)
            engine.running[ticket] -= 1
            if engine.running[ticket] == 0:
                del engine.running[ticket]
                ticket.close("stop")
                outcome.latencies.append(now - ticket.account.started)
                outcome.good_tokens += ticket.made_tokens
    return outcome
