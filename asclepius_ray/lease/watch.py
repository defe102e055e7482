"""For how long somebody has shown no sign of life: by the watcher's clock, since no two clocks agree."""

import logging
import time
from collections.abc import Mapping

from asclepius_ray.artifacts import Folder
from asclepius_ray.lease.holder import Holder, Timing, process_lives, read_holder, seems_live

LONGEST_GAP_HEARTBEATS = 1.5
"""A watcher that saw nothing for so long begins its watch anew."""

logger = logging.getLogger(__name__)


class Watch:
    """How long each of several has shown the same sign of life, by the watcher's own clock. Pure.

    A time in which the watcher saw nothing counts for nothing: the others may have been cut off with it.
    """

    def __init__(self, stale_seconds: float, longest_gap_seconds: float) -> None:
        self._stale = stale_seconds
        self._longest_gap = longest_gap_seconds
        self._looked = 0.0
        self._since: dict[str, tuple[float, float]] = {}
        self._moved: set[str] = set()

    def has_moved(self, token: str) -> bool:
        """Whether it has shown a new sign of life since this watch began."""
        return token in self._moved

    def look(self, beats: Mapping[str, float], began: float, ended: float) -> set[str]:
        """Those that have been silent for too long.

        `beats`: what a look showed as the last sign of life of each; it began and ended then.
        """
        if began - self._looked > self._longest_gap:
            self._since.clear()
        self._looked = ended
        silent = set()
        kept: dict[str, tuple[float, float]] = {}
        for token, beat in beats.items():
            known, since = self._since.get(token, (beat, ended))
            if known != beat:
                self._moved.add(token)
                since = ended
            kept[token] = (beat, since)
            if began - since >= self._stale:
                silent.add(token)
        self._since = kept
        return silent


class HolderWatch:
    """Watches by the file `lease` alone who holds a root; kept for as long as somebody waits for the root."""

    def __init__(self, folder: Folder, timing: Timing) -> None:
        self._folder = folder
        self._timing = timing
        self._watch = Watch(timing.stale, LONGEST_GAP_HEARTBEATS * timing.heartbeat)
        self._silent: set[str] = set()

    def look(self) -> Holder | None:
        """Who stands in the lease now, dead or alive; None if nobody does."""
        began = now_seconds()
        holder = read_holder(self._folder)
        beats = {} if holder is None else {holder.token: holder.heartbeat_unix}
        self._silent = self._watch.look(beats, began, now_seconds())
        return holder

    def is_over(self, holder: Holder) -> bool:
        """Whether the holder that the last look showed has ended or died, or was silent for too long."""
        if holder.exit_code is not None:
            return True
        return not process_lives(holder) if holder.is_of_this_machine else holder.token in self._silent

    def judge(self) -> tuple[Holder | None, bool]:
        """Who stands in the lease, and whether that one still works; looks on until it is known."""
        is_told = False
        while (holder := self.look()) is not None and not self.is_over(holder):
            if seems_live(holder, self._timing) or self._watch.has_moved(holder.token):
                return holder, True
            if not is_told:
                logger.warning(
                    "%s was held by %s, by this machine's clock: %.0f s will show whether it still works",
                    self._folder.shown, holder, self._timing.stale,
                )  # fmt: skip
                is_told = True
            time.sleep(self._timing.look)
        return holder, False


def is_live(folder: Folder, timing: Timing | None = None) -> bool:
    """Whether somebody works on the root; one on another machine is watched for up to `stale` if in doubt."""
    return HolderWatch(folder, timing or Timing()).judge()[1]


def now_seconds() -> float:
    """A clock that also runs while the machine sleeps; the same for no two machines."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
