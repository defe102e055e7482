"""How many replicas a model needs: by what its requests wait, which is queued tokens over the decode rate.

Serve sends this module to its controller by value: it takes nothing from the package.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

WINDOW_SECONDS = 5.0
"""Over which a replica counts what it is asked for and what it refuses."""
MOST_FILLED = 0.7
"""Of all places, what the replicas that remain may hold: between this and full ones nothing changes."""
MOST_GROWTH = 2.0
"""At a time. Who is refused asks again, so that refusals may tell of more demand than there is."""
CLEAR_SECONDS = 30.0
"""In which a queue that has formed is to be worked off, besides what comes meanwhile."""


LEAST_WANTED = "least_wanted"


@dataclass(frozen=True)
class ReplicaLoad:
    """What one replica tells of itself; tokens are those of prompts and longest answers."""

    queued_tokens: float = 0.0
    """Admitted, and without a place yet."""
    held_tokens: float = 0.0
    """All that is admitted."""
    filled_share: float = 0.0
    """The same as a share of the places, of streams or of cache, whichever is scarcer; above 1 some wait."""
    asked_tokens: float = 0.0
    """Of the last WINDOW_SECONDS, whether admitted or not."""
    refused_tokens: float = 0.0
    """The part of them that found no room."""
    tokens_per_second: float = 0.0
    """As they drain while it is busy; 0 = not measured yet."""


def expected_wait_seconds(loads: Sequence[ReplicaLoad]) -> float:
    """How long all that waits, or would have if it had not been refused, takes at the replicas' rates.

    Admission keeps its queue short, so that a full replica shows itself in what it refuses.
    """
    waiting = sum(load.queued_tokens + load.refused_tokens for load in loads)
    rate = _tokens_per_second(loads) * len(loads)
    return waiting / rate if rate else math.inf if waiting else 0.0


def wanted_replicas(
    num_running: int,
    num_target: int,
    loads: Sequence[ReplicaLoad],
    num_held_requests: float,
    target_wait_seconds: float,
) -> int:
    """How many replicas there should be, by one look at them; bounds and patience are Serve's part.

    `num_target`: as many as were wanted before; the difference to `num_running` is still starting.
    `num_held_requests`: those that wait for a first replica.
    """
    if num_running == 0:
        # What starts for a request that gave up in the meantime is there for the next one.
        return max(num_target, 1 if num_held_requests else 0)
    if expected_wait_seconds(loads) > target_wait_seconds:
        return max(num_target, _enough_replicas(num_running, loads, target_wait_seconds))
    remaining = min(num_running, num_target - 1)
    if len(loads) == num_running and _is_enough(remaining, loads, num_held_requests):
        return num_target - 1
    return num_target


def _enough_replicas(num_running: int, loads: Sequence[ReplicaLoad], target_wait_seconds: float) -> int:
    """As many as take in all that is asked for and bring the wait below the target."""
    each = _tokens_per_second(loads)
    if not each:
        return num_running + 1
    asked_per_second = sum(load.asked_tokens for load in loads) / WINDOW_SECONDS
    queued = sum(load.queued_tokens for load in loads)
    excess = max(0.0, queued - target_wait_seconds * each * num_running)
    enough = math.ceil((asked_per_second + excess / CLEAR_SECONDS) / each)
    return min(max(enough, num_running + 1), math.ceil(num_running * MOST_GROWTH))


def _is_enough(remaining: int, loads: Sequence[ReplicaLoad], num_held_requests: float) -> bool:
    if any(load.refused_tokens for load in loads):
        return False
    if remaining <= 0:
        return not num_held_requests and not any(load.held_tokens or load.asked_tokens for load in loads)
    return sum(load.filled_share for load in loads) <= remaining * MOST_FILLED


def _tokens_per_second(loads: Sequence[ReplicaLoad]) -> float:
    """Of one replica in the mean, those that have shown none yet aside; 0 = nobody knows."""
    measured = [load.tokens_per_second for load in loads if load.tokens_per_second]
    return sum(measured) / len(measured) if measured else 0.0


class WaitPolicy:
    """What Serve's controller asks, ten times a second, for how many replicas there should be."""

    def __init__(self, target_wait_seconds: float) -> None:
        self._target_wait_seconds = target_wait_seconds

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """`context`: an AutoscalingContext of Ray Serve."""
        wanted = wanted_replicas(
            context.current_num_replicas,
            context.target_num_replicas,
            latest_loads(context.raw_metrics),
            context.total_num_requests,
            self._target_wait_seconds,
        )
        least = least_wanted(wanted, context.target_num_replicas, context.policy_state.get(LEAST_WANTED))
        return least or wanted, {LEAST_WANTED: least}


def least_wanted(wanted: int, num_target: int, least_before: int | None) -> int | None:
    """The fewest that were wanted since more than the target were, without a break; None = no more are.

    Serve lets the wish for more last a while, and then takes its last word; in the middle of a burst that
    word would be too large.
    """
    if wanted <= num_target:
        return None
    if least_before is None or least_before <= num_target:
        return wanted
    return min(wanted, least_before)


def latest_loads(series: Mapping[str, Mapping[Any, Sequence[Any]]] | None) -> list[ReplicaLoad]:
    """The last report of each replica, from metric → replica → points in the order of time."""
    latest: dict[Any, dict[str, float]] = {}
    for field in fields(ReplicaLoad):
        for replica, points in (series or {}).get(field.name, {}).items():
            if points:
                latest.setdefault(replica, {})[field.name] = points[-1].value
    return [ReplicaLoad(**values) for values in latest.values()]
