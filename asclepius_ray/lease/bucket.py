"""The lease on a bucket: the queue of `bakery.py` over objects in the folder `.lease` of the root."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NoReturn

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError, LeaseError
from asclepius_ray.fence import set_fence
from asclepius_ray.lease.bakery import (
    Claim,
    Delete,
    Entrant,
    List,
    Put,
    Step,
    beat_name,
    deposed_name,
    entrants_of,
)
from asclepius_ray.lease.holder import (
    Holder,
    Timing,
    holder_of,
    is_fresh,
    process_lives,
    read_holder,
    this_process,
    write_holder,
)
from asclepius_ray.lease.taken_over import end_now, end_taken_over
from asclepius_ray.lease.watch import LONGEST_GAP_HEARTBEATS, Watch, is_live, now_seconds

QUEUE_NAME = ".lease"
UNREACHED = (OSError, ConfigError)
"""Of a bucket that does not answer; a folder makes the latter of an address that cannot be opened now."""
STOPPED = "this process was stopped for too long while it waited for the root; run it again"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sight:
    """What one listing shows."""

    names: tuple[str, ...]
    entrants: dict[str, Entrant]
    silent: frozenset[str]
    """Those that have been silent for too long, or whose process of this machine is dead."""


class Onlooker:
    """Watches the queue of one root; needs no place in it."""

    def __init__(self, folder: Folder, timing: Timing) -> None:
        self._marks = folder.child(QUEUE_NAME)
        self._watch = Watch(timing.stale, LONGEST_GAP_HEARTBEATS * timing.heartbeat)
        self._holders: dict[str, Holder | None] = {}
        """None for one whose marks cannot be read here: it is judged by its signs of life alone."""

    def look(self) -> Sight:
        began = now_seconds()
        names = tuple(self._marks.names())
        entrants = entrants_of(names)
        beats = {token: entrant.beat for token, entrant in entrants.items()}
        silent = self._watch.look(beats, began, now_seconds())
        dead = {token for token in entrants if self._is_dead_here(token, names)}
        return Sight(names, entrants, frozenset(silent | dead))

    def has_moved(self, token: str) -> bool:
        return self._watch.has_moved(token)

    def _is_dead_here(self, token: str, names: tuple[str, ...]) -> bool:
        if token not in self._holders:
            for name in names:
                if name.startswith(f"{token}.") and not name.endswith(".deposed"):
                    self._know(token, name)
        holder = self._holders.get(token)
        return holder is not None and holder.is_of_this_machine and not process_lives(holder)

    def _know(self, token: str, name: str) -> None:
        if token in self._holders or not self._marks.exists(name):
            return
        try:
            self._holders[token] = holder_of(self._marks.read_bytes(name))
        except FileNotFoundError:
            # Replaced since the listing: the next look finds its successor.
            return
        except ValueError:
            # What another has written must not end a holder that is well.
            logger.warning("%s/%s is not readable here", self._marks.shown, name)
            self._holders[token] = None


class Claimant:
    """One process in the queue of a root: carries out what its claim says, one request after the other."""

    def __init__(self, folder: Folder, purpose: str, timing: Timing, onlooker: Onlooker) -> None:
        self.folder = folder
        self.timing = timing
        self.holder = this_process(purpose)
        self.claim = Claim(self.holder.token)
        self.valid_until = float("-inf")
        """By this process's clock: until then nobody else can have come to hold the root."""
        self._marks = folder.child(QUEUE_NAME)
        self._onlooker = onlooker
        self._shown_at = 0.0

    def take_root(self) -> None:
        """Queues up until the root is this process's; a LeaseError names a live holder."""
        try:
            while self.claim.step is not Step.HOLD:
                sight = self._advance()
                if self.claim.step is Step.LOOK and sight is not None:
                    self._wait(sight)
            if now_seconds() >= self.valid_until:
                self._refuse(STOPPED)
            self.holder = replace(self.holder, generation=self.claim.number)
            self._write_lease()
            self._clear_passed()
        except BaseException:
            self.withdraw()
            raise

    def show_life(self) -> bool:
        """A sign of life, and a look behind it; False if this one was passed over."""
        if now_seconds() >= self.valid_until and not self.still_holds():
            return False
        self.claim = self.claim.renewing()
        self._advance()
        sight = self._advance()
        if self.claim.step is Step.LOST:
            return False
        self._write_lease()
        self._remove_earlier_beats(sight)
        return True

    def still_holds(self) -> bool:
        """A look alone."""
        self.claim = self.claim.confirming()
        self._advance()
        return self.claim.step is Step.HOLD

    def leave(self, exit_code: int) -> None:
        """Gives the root back: the result first, so that nobody who comes next can miss it."""
        if now_seconds() >= self.valid_until and not self.still_holds():
            return
        ended = replace(self.holder, exit_code=exit_code, heartbeat_unix=time.time())
        write_holder(self.folder, ended)
        self._remove_marks(self.holder.token)

    def withdraw(self) -> None:
        """Takes this process's objects out of the queue."""
        try:
            self._remove_marks(self.holder.token)
        except UNREACHED as error:
            logger.warning("a claim could not be taken back: %s; it ends with this process", error)

    def _clear_passed(self) -> None:
        """Removes what those have left who are out of the queue for good; that they are, stays written."""
        sight = self._onlooker.look()
        for token, entrant in sight.entrants.items():
            if entrant.is_deposed and token in sight.silent:
                self._remove_marks(token)

    def _advance(self) -> Sight | None:
        """Does the next thing of the claim; what a listing showed, where it was one."""
        operation, step = self.claim.operation, self.claim.step
        if self.claim.step is Step.LOST:
            self._refuse("another run has just passed this one over; run it again")
        if isinstance(operation, List):
            return self._look(step)
        if isinstance(operation, Put):
            began = now_seconds()
            if step is Step.RENEW and not self.claim.is_holding and began >= self.valid_until:
                self._refuse(STOPPED)
            shown = replace(self.holder, heartbeat_unix=time.time())
            self._marks.write_bytes(operation.name, shown.to_bytes())
            if step in (Step.SHOW_LIFE, Step.RENEW):
                self._shown_at = began
        elif isinstance(operation, Delete):
            self._marks.delete(operation.name)
        self.claim = self.claim.after()
        return None

    def _look(self, step: Step) -> Sight:
        sight = self._onlooker.look()
        last = read_holder(self.folder) if step is Step.READ_NUMBERS else None
        self.claim = self.claim.after(sight.entrants, sight.silent, last.generation if last else 0)
        if step in (Step.LOOK, Step.CONFIRM) and self.claim.step is not Step.LOST:
            self.valid_until = self._shown_at + self.timing.valid
        return sight

    def _wait(self, sight: Sight) -> None:
        """One round of waiting for those before: refuses where one of them holds the root and lives."""
        before = self.claim.before(sight.entrants, sight.silent)
        standing = read_holder(self.folder)
        if standing is not None and standing.exit_code is None and standing.token in before:
            shows_life = is_fresh(standing, self.timing) or self._onlooker.has_moved(standing.token)
            if standing.token not in sight.silent and (standing.is_of_this_machine or shows_life):
                raise LeaseError(
                    f"{self.folder.shown} is in use by {standing}; wait for it to end or stop it, or choose "
                    "another root"
                )
        if now_seconds() - self._shown_at >= self.timing.heartbeat:
            self.claim = self.claim.renewing()
            self._advance()
            self._remove_earlier_beats(sight)
        time.sleep(self.timing.look)

    def _refuse(self, reason: str) -> NoReturn:
        raise LeaseError(f"{self.folder.shown}: {reason}")

    def _write_lease(self) -> None:
        write_holder(self.folder, replace(self.holder, heartbeat_unix=time.time()))

    def _remove_earlier_beats(self, sight: Sight | None) -> None:
        kept = beat_name(self.holder.token, self.claim.beat)
        for name in sight.names if sight is not None else ():
            if name.startswith(f"{self.holder.token}.beat.") and name < kept:
                self._marks.delete(name)

    def _remove_marks(self, token: str) -> None:
        """Its number last: while that is there, its sign of life is too."""
        names = [name for name in self._marks.names() if name.startswith(f"{token}.")]
        for name in sorted(names, key=lambda name: (".number." not in name, name)):
            if not name.endswith(".deposed"):
                self._marks.delete(name)


class BucketLease:
    """Holds a root in a bucket from `acquire_in_bucket` to `release`."""

    def __init__(self, claimant: Claimant) -> None:
        self._claimant = claimant
        self._lock = threading.Lock()
        self._away_since: float | None = None
        """The first failed look since the last good one, by a clock that stands still while the machine
        sleeps: asleep it was not the bucket that was away."""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease")
        self._thread.start()
        set_fence(self.confirm)

    def confirm(self) -> None:
        """Returns once a look at the bucket shows that the root is still this run's.

        While the bucket is away it waits. Ends the process where another run has taken the root over.
        """
        while not self._try(self._look):
            time.sleep(self._claimant.timing.look)

    def release(self, exit_code: int) -> None:
        """Gives the root back, with the result that followers end with."""
        self._ended.set()
        self._thread.join()
        set_fence(None)
        try:
            self._claimant.leave(exit_code)
        except UNREACHED as error:
            # Most likely what ended the run: our death gives the root back as well.
            logger.warning("the lease could not be given back: %s", error)

    def _beat(self) -> None:
        while not self._ended.wait(self._claimant.timing.heartbeat):
            self._try(self._claimant.show_life)

    def _look(self) -> bool:
        if now_seconds() >= self._claimant.valid_until:
            return self._claimant.show_life()
        return self._claimant.still_holds()

    def _try(self, look: Callable[[], bool]) -> bool:
        """Whether the root is known to be this run's; ends the process where it is known not to be."""
        claimant = self._claimant
        try:
            with self._lock:
                if not look():
                    end_taken_over(claimant.folder)
                self._away_since = None
        except UNREACHED as error:
            now = time.monotonic()
            self._away_since = now if self._away_since is None else self._away_since
            away_seconds = now - self._away_since
            if away_seconds > claimant.timing.cut_off:
                end_now(f"{claimant.folder.shown} cannot be reached for {away_seconds:.0f} s: this run ends")
            logger.warning("the lease's heartbeat could not be written: %s", error)
            return False
        return now_seconds() < claimant.valid_until


def acquire_in_bucket(folder: Folder, purpose: str, timing: Timing, onlooker: Onlooker) -> BucketLease:
    """Takes the root; a LeaseError names a live holder and how to go on."""
    found = read_holder(folder)
    if found is not None and _is_plainly_live(found, folder, timing, onlooker):
        raise LeaseError(
            f"{folder.shown} is in use by {found}; wait for it to end or stop it, or choose another root"
        )
    claimant = Claimant(folder, purpose, timing, onlooker)
    claimant.take_root()
    return BucketLease(claimant)


@dataclass
class Followed:
    """What a follower has seen of those it follows."""

    token: str = ""
    """Of the one that it has told of last."""
    was_live: bool = False
    seen_at: float = 0.0
    """When the bucket was reached last."""


def follow_in_bucket(
    folder: Folder, purpose: str, say: Callable[[str], None], timing: Timing, onlooker: Onlooker
) -> int | None:
    """The exit code of a live holder of the same purpose; None if there is none, or it died on the way.

    While the bucket is away it waits, as the holder does. Raises an OSError where it cannot be reached at
    first, or for as long as ends a holder.
    """
    followed = Followed()
    while True:
        try:
            return _follow_while_reached(folder, purpose, say, timing, onlooker, followed)
        except UNREACHED as error:
            if not followed.was_live or time.monotonic() - followed.seen_at > timing.cut_off:
                raise
            logger.warning("the run that is followed cannot be seen: %s", error)
            time.sleep(timing.heartbeat)


def _follow_while_reached(
    folder: Folder,
    purpose: str,
    say: Callable[[str], None],
    timing: Timing,
    onlooker: Onlooker,
    followed: Followed,
) -> int | None:
    while (holder := read_holder(folder)) is not None and holder.purpose == purpose:
        followed.seen_at = time.monotonic()
        if holder.exit_code is not None:
            return holder.exit_code if followed.was_live else None
        if not _is_followed(holder, folder, timing, onlooker):
            now = read_holder(folder)
            if now is not None and (now.token, now.exit_code) != (holder.token, holder.exit_code):
                # It has ended, or has been taken over, since it was read.
                followed.was_live = True
                continue
            return None
        if followed.token != holder.token:
            say(f"{folder.shown} is being worked on by {holder}, for the same job: following it")
            followed.token = holder.token
        followed.was_live = True
        time.sleep(timing.heartbeat / 5)
    return None


def forget_the_dead(folder: Folder) -> None:
    """Removes what is written of those that were passed over; for the holder of the root alone."""
    marks = folder.child(QUEUE_NAME)
    for token, entrant in entrants_of(marks.names()).items():
        if entrant.has_gone:
            marks.delete(deposed_name(token))


def _is_plainly_live(holder: Holder, folder: Folder, timing: Timing, onlooker: Onlooker) -> bool:
    """Whether one look is enough to refuse; where it is not, the queue tells."""
    if holder.exit_code is not None:
        return False
    if holder.generation == 0:
        # Without a number it is of a version that had no queue: its heartbeats are all there is.
        return is_live(folder, timing)
    if holder.is_of_this_machine:
        return process_lives(holder) and holder.token not in onlooker.look().silent
    sight = onlooker.look()
    return holder.token in sight.entrants and holder.token not in sight.silent and is_fresh(holder, timing)


def _is_followed(holder: Holder, folder: Folder, timing: Timing, onlooker: Onlooker) -> bool:
    """Whether a holder is worth waiting for: it has a place in the queue, and is not silent there."""
    if holder.generation == 0:
        return is_live(folder, timing)
    sight = onlooker.look()
    entrant = sight.entrants.get(holder.token)
    return entrant is not None and not entrant.is_deposed and holder.token not in sight.silent
