"""Every order in which the requests of several claimants can meet, at the level of the pure protocol.

Time is not counted. It stands in one rule, which is what the seconds of `Timing` are for: once a sign of life
has been watched for too long (the pair is in `too_old`), the validity that its owner drew from it is over.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations

from asclepius_ray.lease.bakery import (
    Claim,
    Delete,
    Entrant,
    List,
    Put,
    Step,
    beat_name,
    deposed_name,
)
from asclepius_ray.lease.bakery import entrants_of as read_entrants


@dataclass(frozen=True)
class Process:
    claim: Claim
    shown: int = 1
    """Its last sign of life of which it knows that it was written."""
    valid_by: int = 0
    """The sign of life from which it knows that the root is its own; 0 where it does not know."""
    is_dead: bool = False
    has_left: bool = False

    @property
    def holds(self) -> bool:
        return self.claim.is_holding and self.valid_by > 0 and not self.is_dead and not self.has_left


@dataclass(frozen=True)
class World:
    names: frozenset[str]
    processes: tuple[Process, ...]
    too_old: frozenset[tuple[str, int]]


@dataclass(frozen=True)
class Limits:
    """What may happen besides the plain requests."""

    most_beats: int = 1
    processes_pause: bool = False
    """One that holds may come to doubt it, at any time."""
    processes_die: bool = False
    silences: int = 0
    writes_fail: bool = False
    """A renewal may fail for its writer, and have been carried out or not."""
    dead_are_forgotten: bool = False


def start(tokens: Iterable[str]) -> World:
    """All have shown that they live, which nobody heeds before they announce themselves."""
    claims = [Claim(token) for token in tokens]
    names = frozenset(beat_name(claim.token, claim.beat) for claim in claims)
    return World(names, tuple(Process(claim.after()) for claim in claims), frozenset())


def reachable(first: World, limits: Limits) -> Iterator[World]:
    """Each world that some order of events leads to, once."""
    seen, waiting = {first}, [first]
    while waiting:
        world = waiting.pop()
        yield world
        for following in _following(world, limits):
            if following not in seen:
                seen.add(following)
                waiting.append(following)


@cache
def entrants_of(names: frozenset[str]) -> dict[str, Entrant]:
    return read_entrants(names)


def _following(world: World, limits: Limits) -> Iterator[World]:
    for place, process in enumerate(world.processes):
        if process.has_left:
            continue
        yield from _suffer(world, place, limits)
        if process.is_dead:
            continue
        if process.claim.step is Step.HOLD:
            yield from _act_as_holder(world, place, limits)
        elif process.claim.step is Step.LOST:
            yield _leave(world, place)
        else:
            yield from _act(world, place, limits)


def _suffer(world: World, place: int, limits: Limits) -> Iterator[World]:
    """What befalls a process."""
    process = world.processes[place]
    if len(world.too_old) < limits.silences:
        yield from _grow_old(world, place)
    if limits.processes_die and not process.is_dead:
        yield _with(world, place, replace(process, is_dead=True, valid_by=0))
    if limits.processes_pause and process.holds:
        yield _with(world, place, replace(process, valid_by=0))


def _grow_old(world: World, place: int) -> Iterator[World]:
    """The newest sign of life of one process that can be seen has been watched for too long."""
    process = world.processes[place]
    entrant = entrants_of(world.names).get(process.claim.token)
    if entrant is None:
        return
    too_old = world.too_old | {(process.claim.token, entrant.beat)}
    valid_by = process.valid_by if process.valid_by > entrant.beat else 0
    aged = replace(world, too_old=too_old)
    yield _with(aged, place, replace(process, valid_by=valid_by))


def _act(world: World, place: int, limits: Limits) -> Iterator[World]:
    process = world.processes[place]
    claim, operation = process.claim, process.claim.operation
    if claim.step is Step.RENEW and not claim.is_holding and not process.valid_by:
        # A claimant that was stopped for too long gives up, and does not renew itself.
        yield _with(world, place, replace(process, claim=replace(claim, step=Step.LOST)))
        return
    if isinstance(operation, Put):
        written = replace(world, names=world.names | {operation.name})
        shown = claim.beat if claim.step is Step.RENEW else process.shown
        yield _with(written, place, replace(process, claim=claim.after(), shown=shown))
        if limits.writes_fail and claim.step is Step.RENEW and claim.is_holding:
            failed = replace(process, claim=replace(claim, step=Step.HOLD))
            yield _with(world, place, failed)
            yield _with(written, place, failed)
    elif isinstance(operation, Delete):
        removed = replace(world, names=world.names - {operation.name})
        yield _with(removed, place, replace(process, claim=claim.after()))
    elif isinstance(operation, List):
        yield from _look(world, place, limits)


def _look(world: World, place: int, limits: Limits) -> Iterator[World]:
    process = world.processes[place]
    claim, entrants = process.claim, entrants_of(world.names)
    for silent in _subsets(_silent(world, entrants) - {claim.token}):
        after = claim.after(entrants, silent)
        valid_by = process.valid_by
        if claim.step in (Step.LOOK, Step.CONFIRM):
            # What was shown before something that has grown old is older still.
            aged = any(token == claim.token and beat >= process.shown for token, beat in world.too_old)
            is_valid = after.step is not Step.LOST and not aged
            valid_by = process.shown if is_valid else 0
            if not is_valid and not claim.is_holding:
                after = replace(after, step=Step.LOST, is_holding=False)
        yield _with(world, place, replace(process, claim=after, valid_by=valid_by))
    if process.valid_by and not claim.is_holding and claim.beat < limits.most_beats:
        # Waiting, it is time for another sign of life.
        yield _with(world, place, replace(process, claim=claim.renewing()))


def _act_as_holder(world: World, place: int, limits: Limits) -> Iterator[World]:
    process = world.processes[place]
    yield _with(world, place, replace(process, claim=process.claim.confirming()))
    if process.claim.beat < limits.most_beats:
        yield _with(world, place, replace(process, claim=process.claim.renewing()))
    if not process.holds:
        return
    yield _leave(world, place)
    entrants = entrants_of(world.names)
    for token in _silent(world, entrants):
        if entrants[token].is_deposed:
            left = {name for name in world.names if not name.startswith(f"{token}.")}
            yield replace(world, names=frozenset(left | {deposed_name(token)}))
    if limits.dead_are_forgotten:
        forgotten = {deposed_name(token) for token, entrant in entrants.items() if entrant.has_gone}
        yield replace(world, names=world.names - forgotten)


def _leave(world: World, place: int) -> World:
    process = world.processes[place]
    token = process.claim.token
    left = {name for name in world.names if not name.startswith(f"{token}.") or name.endswith(".deposed")}
    gone = replace(process, has_left=True, valid_by=0)
    return _with(replace(world, names=frozenset(left)), place, gone)


def _silent(world: World, entrants: Mapping[str, Entrant]) -> set[str]:
    return {token for token, entrant in entrants.items() if (token, entrant.beat) in world.too_old}


def _subsets(tokens: set[str]) -> Iterator[tuple[str, ...]]:
    """A claimant may have watched for less long than another."""
    ordered = sorted(tokens)
    for size in range(len(ordered) + 1):
        yield from combinations(ordered, size)


def _with(world: World, place: int, process: Process) -> World:
    processes = world.processes
    return replace(world, processes=(*processes[:place], process, *processes[place + 1 :]))
