"""The place of one admitted request, and how large the request is."""

from dataclasses import dataclass
from typing import Protocol

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.access.limit_link import LimitTicket
from asclepius_ray.serving.admission.pace import Running

OWN_ENDS = ("stop", "length")
"""The outcomes of an answer that nobody cut short."""


@dataclass(frozen=True)
class Size:
    """How much of an engine one request takes."""

    model: str
    prompt_tokens: int
    answer_tokens: int
    """The longest answer, of all its choices together."""
    num_streams: int = 1
    repeated_tokens: int = 0
    """Of prompts that several choices answer: each further choice holds them in the cache once more."""

    @property
    def paid_tokens(self) -> int:
        """What counts for a key: every prompt once."""
        return self.prompt_tokens + self.answer_tokens

    @property
    def cached_prompt_tokens(self) -> int:
        return self.prompt_tokens + self.repeated_tokens

    @property
    def held_tokens(self) -> int:
        """The most that the request takes of the engine's cache."""
        return self.cached_prompt_tokens + self.answer_tokens


class Keeper(Protocol):
    """Who gave a ticket out, and takes it back."""

    def now(self) -> float: ...

    def took(self, ticket: "Ticket", num_tokens: int) -> None: ...

    def release(self, ticket: "Ticket", outcome: str) -> None: ...


class Ticket:
    """A place, or one in the queue; whoever holds it must close it, however the request ends."""

    def __init__(self, keeper: Keeper, account: Account, size: Size) -> None:
        self._keeper = keeper
        self._is_open = True
        self.account = account
        self.size = size
        self.limit: LimitTicket | None = None
        self.admitted_at = keeper.now()
        self.placed_at: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at = self.admitted_at
        self.made_tokens = 0
        self.told_tokens, self.told_at = 0, self.admitted_at
        """What of them the figures have been told, and when."""

    @property
    def seconds_left(self) -> float | None:
        """Until the client's deadline; None without one."""
        deadline = self.account.deadline
        return None if deadline is None else deadline - self._keeper.now()

    @property
    def running(self) -> Running:
        remaining = max(0, self.size.answer_tokens - self.made_tokens)
        return Running(self.size.held_tokens, remaining, self.size.num_streams)

    @property
    def token_seconds(self) -> float | None:
        """The time of each token after the first of its choice; None where there was none."""
        later_tokens = self.made_tokens - self.size.num_streams
        if self.first_token_at is None or later_tokens < 1:
            return None
        # The streams make theirs at the same time.
        return (self.last_token_at - self.first_token_at) * self.size.num_streams / later_tokens

    def took(self, num_tokens: int) -> None:
        """So many more tokens of the answer were made, by all its choices together."""
        if self._is_open and num_tokens > 0:
            self._keeper.took(self, num_tokens)

    def close(self, outcome: str) -> None:
        """Gives the place back; the first call counts. `outcome`: stop, length, cancelled, deadline, error.

        Of several answers to one request the outcome is that of the first which was cut short.
        """
        if not self._is_open:
            return
        self._is_open = False
        if self.account.outcome in ("", *OWN_ENDS):
            self.account.outcome = outcome
        self._keeper.release(self, outcome)
