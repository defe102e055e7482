"""A day of requests as a stream of tokens, over replicas that take a minute to start, second by second.

The policy's decisions are delayed and bounded by Ray Serve's own code.
"""

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ray.serve.autoscaling_policy import _apply_delay_logic

from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.scaling import (
    WINDOW_SECONDS,
    ReplicaLoad,
    expected_wait_seconds,
    least_wanted,
    wanted_replicas,
)
from asclepius_ray.serving.scaling_options import scaling_options

RATE = 1000.0
"""Tokens per second that a full replica drains."""
ANSWER_SECONDS = 10.0
MAX_QUEUE_SECONDS = 5.0
START_SECONDS = 60
HOUR = 3600


@dataclass
class Second:
    """What was to be seen at its end."""

    asked: float
    refused: float
    wait_seconds: float
    num_running: int
    num_target: int


@dataclass
class Fleet:
    config: ServingConfig
    num_target: int
    running: int = 0
    starting: list[int] = field(default_factory=list)
    queued: float = 0.0
    held_requests: float = 0.0
    window: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=int(WINDOW_SECONDS)))
    state: dict[str, Any] = field(default_factory=dict)
    least: int | None = None

    def __post_init__(self) -> None:
        self.scaling = scaling_options(self.config)["autoscaling_config"]

    def step(self, now: int, asked: float) -> Second:
        self._start(now)
        capacity = self.running * RATE
        todo = self.queued + asked
        served = min(capacity, todo)
        kept = min(todo - served, capacity * min(MAX_QUEUE_SECONDS, 0.5 * ANSWER_SECONDS))
        refused = todo - served - kept
        self.held_requests = 0.0 if self.running else refused / 500
        self.queued = kept
        self.window.append((asked, refused))
        loads = self._loads(served)
        self._decide(now, loads)
        wait = expected_wait_seconds(loads)
        return Second(asked, refused, wait, self.running, self.num_target)

    def _start(self, now: int) -> None:
        self.running += sum(ready == now for ready in self.starting)
        self.starting = [ready for ready in self.starting if ready > now]

    def _loads(self, served: float) -> list[ReplicaLoad]:
        if not self.running:
            return []
        each = 1 / self.running
        places = RATE * ANSWER_SECONDS
        running_tokens = served * each * ANSWER_SECONDS
        return [
            ReplicaLoad(
                queued_tokens=self.queued * each,
                held_tokens=running_tokens + self.queued * each,
                filled_share=(running_tokens + self.queued * each) / places,
                asked_tokens=sum(asked for asked, _ in self.window) * each,
                refused_tokens=sum(refused for _, refused in self.window) * each,
                # One stream alone is slower than many together.
                tokens_per_second=min(RATE, 30 + served * each),
            )
        ] * self.running

    def _decide(self, now: int, loads: list[ReplicaLoad]) -> None:
        scaling = self.scaling
        wanted = wanted_replicas(
            self.running, self.num_target, loads, self.held_requests, self.config.target_wait_seconds
        )
        self.least = least_wanted(wanted, self.num_target, self.least)
        wanted = self.least or wanted
        if self.running or not wanted:
            wanted, self.state = _apply_delay_logic(wanted, self.num_target, scaling, self.state, _now=now)
        wanted = max(scaling.min_replicas, min(scaling.max_replicas, wanted))
        for _ in range(wanted - self.num_target):
            self.starting.append(now + START_SECONDS)
        for _ in range(self.num_target - wanted):
            if self.starting:
                self.starting.pop()
            else:
                self.running -= 1
        self.num_target = wanted


def hospital_demand(second: int, draws: random.Random) -> float:
    """Nothing at night, a hill of five replicas' work by day, noise, and a spike of some seconds an hour."""
    if second < 5 * HOUR or second > 22 * HOUR:
        return 0.0
    hill = math.sin(math.pi * (second - 5 * HOUR) / (17 * HOUR))
    spike = 3.0 if second % HOUR < 6 else 1.0
    return 5 * RATE * hill * draws.uniform(0.7, 1.3) * spike


def simulate(
    config: ServingConfig, demand: Callable[[int, random.Random], float], seconds: int, replicas: int
) -> list[Second]:
    draws = random.Random(7)
    fleet = Fleet(config, num_target=replicas, running=replicas)
    return [fleet.step(second, demand(second, draws)) for second in range(seconds)]
