"""What all workers do between two steps: go on, save, stop, or leave so that the group starts anew.

Rank 0 hears of it (from the driver, from Ray's notice of a drained node, from its clock), and its words
travel with the sum of the losses: no rank ever acts alone.
"""

import enum
import time
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import torch
import torch.distributed
from ray.actor import ActorHandle

LOOK_SECONDS = 1.0
"""How often Ray is asked whether a node is drained; asking is a barrier of some milliseconds."""
UNKNOWN_DEADLINE_SECONDS = 120.0
"""How long Ray Train waits for a drained node that did not say when it goes."""
MARGIN_SECONDS = 2.0


class Wish(enum.Enum):
    """What is to be done after a step."""

    GO_ON = enum.auto()
    SAVE = enum.auto()
    STOP = enum.auto()
    """The driver was asked to end: save, and end."""
    LEAVE = enum.auto()
    """A node goes, or more are there: save, and have Ray Train start the group anew."""


@dataclass
class _Drain:
    """The notice of a node that goes away."""

    info: Any
    deadline_unix: float


class Control:
    """One worker's part of the agreement; `board` is None where there is no driver to listen to."""

    WORDS = ("stop", "leave", "look", "save")

    def __init__(self, board: ActorHandle | None, device: torch.device, save_every_seconds: float) -> None:
        self._board = board
        self._device = device
        self._save_every_seconds = save_every_seconds
        self._rank = torch.distributed.get_rank()
        self._agreed: set[str] = set()
        self._looked_at = time.monotonic()
        self._saved_at = time.monotonic()
        self._decided_at = time.monotonic()
        self._save_seconds = 0.0
        self._drain: _Drain | None = None

    def words(self) -> list[float]:
        """What rank 0 has to say: a number for each of `WORDS`, to be summed over the ranks."""
        said = self._listen(self._board) if self._rank == 0 and self._board is not None else set()
        return [float(word in said) for word in self.WORDS]

    def take(self, summed: list[float]) -> None:
        """Remembers the words that all ranks have got."""
        self._agreed |= {word for word, count in zip(self.WORDS, summed, strict=True) if count}

    def note_saved(self, seconds: float) -> None:
        """A checkpoint took so long until it was committed: what a drained node must leave time for."""
        self._save_seconds = seconds

    def decide(self) -> Wish:
        """What is to be done now, the same on all ranks. Every rank must call it."""
        step_seconds = time.monotonic() - self._decided_at
        self._decided_at = time.monotonic()
        agreed, self._agreed = self._agreed, set()
        if "look" in agreed or self._drain is not None:
            agreed |= self._watch_for_drain(step_seconds)
        if "stop" in agreed:
            return Wish.STOP
        if "leave" in agreed:
            return Wish.LEAVE
        if "save" in agreed:
            self._saved_at = time.monotonic()
            return Wish.SAVE
        return Wish.GO_ON

    def _listen(self, board: ActorHandle) -> set[str]:
        said = set(ray.get(board.wishes.remote()))
        now = time.monotonic()
        if now - self._looked_at >= LOOK_SECONDS:
            self._looked_at = now
            said.add("look")
        if self._save_every_seconds and now - self._saved_at >= self._save_every_seconds:
            said.add("save")
        return said

    def _watch_for_drain(self, step_seconds: float) -> set[str]:
        info = ray.train.get_preemption_info()
        if info is None:
            return set()
        agreed = set()
        if self._drain is None or self._drain.info != info:
            deadline = info.deadline_ms / 1000 if info.deadline_ms else time.time() + UNKNOWN_DEADLINE_SECONDS
            self._drain = _Drain(info, deadline)
            self._tell_of(self._drain)
            # At once: the node may go before it has said it would.
            agreed.add("save")
        left_seconds = self._drain.deadline_unix - time.time()
        needed_seconds = 1.5 * self._save_seconds + 2 * step_seconds + MARGIN_SECONDS
        # Clocks of two nodes may differ: rank 0's counts.
        leave = torch.tensor(left_seconds < needed_seconds, dtype=torch.uint8, device=self._device)
        torch.distributed.broadcast(leave, src=0)
        return agreed | ({"leave"} if leave.item() else set())

    def _tell_of(self, drain: _Drain) -> None:
        if self._rank == 0 and self._board is not None:
            left_seconds = max(0.0, drain.deadline_unix - time.time())
            text = (
                f"{len(drain.info.preempted_node_ids)} of the training's nodes will be gone in "
                f"{left_seconds:.0f} s: a checkpoint is saved now, and another one shortly before"
            )
            self._board.push.remote({"event": "say", "text": text})
