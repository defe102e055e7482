"""What a replica takes in: tokens that fit into its budget, and no more."""

import time
from dataclasses import dataclass

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.surface.api_errors import ApiError


class Ticket:
    """The place of one admitted request; whoever holds it must close it, however the request ends."""

    def __init__(self, admission: "Admission", account: Account, reserved_tokens: int) -> None:
        self._admission = admission
        self._account = account
        self._reserved_tokens = reserved_tokens
        self._is_open = True

    @property
    def seconds_left(self) -> float | None:
        """Until the client's deadline; None without one."""
        deadline = self._account.deadline
        return None if deadline is None else deadline - time.monotonic()

    def took(self, num_tokens: int) -> None:
        """So many more tokens of the answer were made, by all its choices together."""
        if self._account.first_token_seconds is None:
            self._account.first_token_seconds = time.monotonic() - self._account.started
        self._account.completion_tokens += num_tokens

    def close(self, outcome: str) -> None:
        """Gives the place back; the first call counts. `outcome` is one word: stop, error, …"""
        if not self._is_open:
            return
        self._is_open = False
        self._account.outcome = outcome
        self._admission.release(self._reserved_tokens)


@dataclass
class Admission:
    """Admits requests of one engine while their tokens, prompt and longest answer, fit into the budget."""

    budget_tokens: int
    held_tokens: int = 0

    async def admit(self, account: Account, model: str, prompt_tokens: int, answer_tokens: int) -> Ticket:
        """A place, or an ApiError (429 beyond the budget); `answer_tokens` is the sum over all choices."""
        account.model, account.prompt_tokens = model, prompt_tokens
        needed = prompt_tokens + answer_tokens
        if self.held_tokens and self.held_tokens + needed > self.budget_tokens:
            raise ApiError(429, "rate_limit_exceeded", "This replica is full; try again soon.")
        self.held_tokens += needed
        return Ticket(self, account, needed)

    def release(self, tokens: int) -> None:
        self.held_tokens -= tokens
