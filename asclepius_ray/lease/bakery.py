"""The queue for a root in a bucket: Lamport's bakery over names that are written once. Pure.

Each claimant writes objects of its own alone, and everything is told by the names that a listing shows:

    TOKEN.choosing            it is about to take a number
    TOKEN.number.0000000007   its number, one more than the highest that it saw
    TOKEN.beat.0000000012     its last sign of life
    TOKEN.deposed             written by another: it was silent for too long, and must never go on

A claimant holds the root once nobody is before it: nobody choosing, nobody with a lower number (the token
decides between equal ones). All this asks of a bucket is that a listing shows every object whose writing was
over before the listing began, and none whose removal was (S3 since December 2020, Google Cloud, Azure,
MinIO).

One that is silent is passed over in this order: its `deposed` is written, and then a listing must show the
very sign of life that was watched for too long. A holder renews itself the other way round: it writes its
sign of life, and then a listing must show no `deposed`. Whoever comes second sees the other.

`Claim` is one claimant; `operation` says what it does next, `Claim.after` what it is when that is done. The
tests walk through every order in which the operations of several claimants can meet.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum


class Step(Enum):
    """What a claimant is about to do."""

    SHOW_LIFE = "show life"
    ANNOUNCE = "announce"
    READ_NUMBERS = "read numbers"
    TAKE_NUMBER = "take number"
    END_CHOOSING = "end choosing"
    LOOK = "look"
    """Whether anybody is before it, or it was itself passed over."""
    DEPOSE = "depose"
    HOLD = "hold"
    RENEW = "renew"
    CONFIRM = "confirm"
    """The look behind a renewal."""
    LOST = "lost"


@dataclass(frozen=True)
class Put:
    name: str


@dataclass(frozen=True)
class Delete:
    name: str


@dataclass(frozen=True)
class List:
    pass


Operation = Put | Delete | List


@dataclass(frozen=True)
class Entrant:
    """One claimant as a listing shows it."""

    is_choosing: bool = False
    number: int | None = None
    beat: int = 0
    is_deposed: bool = False

    @property
    def has_gone(self) -> bool:
        """Whether only its `deposed` is left, which may go too: without a number it cannot go on either."""
        return self.is_deposed and self.number is None and not self.is_choosing


@dataclass(frozen=True)
class Claim:
    """One claimant as it knows itself."""

    token: str
    step: Step = Step.SHOW_LIFE
    number: int = 0
    beat: int = 1
    silent: tuple[str, ...] = ()
    """Those that it is about to depose."""
    is_holding: bool = False

    @property
    def operation(self) -> Operation | None:
        """What it does next; None where nothing is to be done."""
        operations: dict[Step, Operation] = {
            Step.SHOW_LIFE: Put(beat_name(self.token, self.beat)),
            Step.ANNOUNCE: Put(choosing_name(self.token)),
            Step.READ_NUMBERS: List(),
            Step.TAKE_NUMBER: Put(number_name(self.token, self.number)),
            Step.END_CHOOSING: Delete(choosing_name(self.token)),
            Step.LOOK: List(),
            Step.RENEW: Put(beat_name(self.token, self.beat)),
            Step.CONFIRM: List(),
        }
        if self.step is Step.DEPOSE:
            return Put(deposed_name(self.silent[0]))
        return operations.get(self.step)

    def after(
        self,
        entrants: Mapping[str, Entrant] | None = None,
        silent: Iterable[str] = (),
        last_number: int = 0,
    ) -> "Claim":
        """This claimant once its operation is done.

        `entrants`: what its listing showed. `silent`: those whose sign of life in that very listing has
        been watched for too long. `last_number`: the highest that is known from elsewhere.
        """
        if self.step is Step.READ_NUMBERS:
            assert entrants is not None
            numbers = [entrant.number for entrant in entrants.values() if entrant.number is not None]
            return replace(self, number=1 + max([last_number, *numbers]), step=Step.TAKE_NUMBER)
        if self.step in (Step.LOOK, Step.CONFIRM):
            assert entrants is not None
            return self._looked(entrants, tuple(sorted(silent)))
        if self.step is Step.DEPOSE:
            left = self.silent[1:]
            return replace(self, silent=left, step=Step.DEPOSE if left else Step.LOOK)
        if self.step is Step.RENEW:
            return replace(self, step=Step.CONFIRM if self.is_holding else Step.LOOK)
        return replace(self, step=_NEXT[self.step])

    def renewing(self) -> "Claim":
        """The claimant that shows a new sign of life next, waiting or holding.

        Also where the last could not be written: it may be there all the same, and watched since.
        """
        return replace(self, beat=self.beat + 1, step=Step.RENEW)

    def confirming(self) -> "Claim":
        """The holder that looks next whether it was passed over."""
        return replace(self, step=Step.CONFIRM)

    def is_lost(self, entrants: Mapping[str, Entrant]) -> bool:
        """Whether this one was passed over, or what it has written was taken away.

        One that was passed over before it had its number may find that number, written since, and nothing of
        what came before: a holder has cleared that away. Its sign of life then tells. A holder's newest one
        may have failed to be written.
        """
        own = entrants.get(self.token, Entrant())
        was_cleared = not self.is_holding and own.beat != self.beat
        return own.is_deposed or own.number != self.number or was_cleared

    def before(self, entrants: Mapping[str, Entrant], silent: Iterable[str] = ()) -> set[str]:
        """Those that it has to wait for: all before it but those that are deposed and silent."""
        passed = {token for token in silent if token in entrants and entrants[token].is_deposed}
        return {token for token in self._ahead(entrants) if token not in passed}

    def _looked(self, entrants: Mapping[str, Entrant], silent: tuple[str, ...]) -> "Claim":
        if self.is_lost(entrants):
            return replace(self, step=Step.LOST)
        if self.is_holding:
            return replace(self, step=Step.HOLD)
        waited_for = self.before(entrants, silent)
        doomed = tuple(token for token in silent if token in waited_for)
        if doomed:
            return replace(self, silent=doomed, step=Step.DEPOSE)
        return self if waited_for else replace(self, step=Step.HOLD, is_holding=True)

    def _ahead(self, entrants: Mapping[str, Entrant]) -> Iterable[str]:
        for token, other in entrants.items():
            is_lower = other.number is not None and (other.number, token) < (self.number, self.token)
            if token != self.token and (other.is_choosing or is_lower):
                yield token


_NEXT = {
    Step.SHOW_LIFE: Step.ANNOUNCE,
    Step.ANNOUNCE: Step.READ_NUMBERS,
    Step.TAKE_NUMBER: Step.END_CHOOSING,
    Step.END_CHOOSING: Step.LOOK,
}


def choosing_name(token: str) -> str:
    return f"{token}.choosing"


def number_name(token: str, number: int) -> str:
    return f"{token}.number.{number:010d}"


def beat_name(token: str, beat: int) -> str:
    return f"{token}.beat.{beat:010d}"


def deposed_name(token: str) -> str:
    return f"{token}.deposed"


def entrants_of(names: Iterable[str]) -> dict[str, Entrant]:
    """Everybody of whom a listing shows something; names that are none of these are passed over."""
    found: dict[str, Entrant] = {}
    for name in names:
        token, _, rest = name.partition(".")
        kind, _, digits = rest.partition(".")
        entrant = found.get(token, Entrant())
        if rest == "choosing":
            entrant = replace(entrant, is_choosing=True)
        elif rest == "deposed":
            entrant = replace(entrant, is_deposed=True)
        elif kind == "number" and digits.isdecimal():
            entrant = replace(entrant, number=int(digits))
        elif kind == "beat" and digits.isdecimal():
            entrant = replace(entrant, beat=max(entrant.beat, int(digits)))
        else:
            continue
        found[token] = entrant
    return found
