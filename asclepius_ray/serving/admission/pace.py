"""How fast an engine works, measured on the answers that it makes; pure.

All sums fade with the time in which the engine was busy, so that an idle night changes nothing and the
last `MEMORY_SECONDS` of work count most.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

MEMORY_SECONDS = 10.0
FEWEST_TOKENS = 16
"""Before so many were made nothing is known."""
ANSWER_MEMORY = 0.95
"""What counts of the answers before each one that ends: some twenty of them."""


@dataclass(frozen=True)
class Running:
    """One request with a place: what it holds, and how much of its answer may still come."""

    held_tokens: int
    remaining_tokens: int
    num_streams: int


class Pace:
    """Rates of one engine; all moments are monotonic seconds."""

    def __init__(self, now: float) -> None:
        self._at = now
        self._num_made = 0
        self._made_tokens = 0.0
        self._stream_seconds = 0.0
        self._drained_tokens = 0.0
        self._busy_seconds = 0.0
        self._num_answers = 0.0
        self._answer_seconds = 0.0
        self._used_tokens = self._reserved_tokens = 0.0
        self._num_first = self._first_seconds = 0.0

    @property
    def is_measured(self) -> bool:
        return self._num_made >= FEWEST_TOKENS and self._stream_seconds > 0

    @property
    def tokens_per_second(self) -> float:
        """Of prompts and longest answers, as they drain while the engine is busy; 0 = not known yet."""
        return self._drained_tokens / self._busy_seconds if self.is_measured else 0.0

    @property
    def stream_tokens_per_second(self) -> float:
        """Made for one stream while it runs beside the others; 0 = not known yet."""
        return self._made_tokens / self._stream_seconds if self.is_measured else 0.0

    @property
    def used_share(self) -> float:
        """How much of the longest answer an answer has as a rule; 1 until some have ended."""
        return self._used_tokens / self._reserved_tokens if self._reserved_tokens else 1.0

    @property
    def answer_seconds(self) -> float:
        """From a place to the end of an answer; 0 = none has ended yet."""
        return self._answer_seconds / self._num_answers if self._num_answers else 0.0

    @property
    def first_token_seconds(self) -> float:
        """From a place to the first token, for those that got a place at once; 0 = not known yet."""
        return self._first_seconds / self._num_first if self._num_first else 0.0

    def advance(self, num_streams: int, now: float) -> None:
        """So many streams were running until now."""
        passed = now - self._at
        self._at = now
        if num_streams == 0 or passed <= 0:
            return
        kept = math.exp(-passed / MEMORY_SECONDS)
        self._made_tokens *= kept
        self._drained_tokens *= kept
        self._stream_seconds = self._stream_seconds * kept + num_streams * passed
        self._busy_seconds = self._busy_seconds * kept + passed

    def made(self, num_tokens: int) -> None:
        self._num_made += num_tokens
        self._made_tokens += num_tokens
        self._drained_tokens += num_tokens

    def read(self, prompt_tokens: int, seconds: float | None) -> None:
        """A prompt has been read; `seconds` since its place, where it got that at once."""
        self._drained_tokens += prompt_tokens
        if seconds is not None:
            self._num_first = self._num_first * ANSWER_MEMORY + 1
            self._first_seconds = self._first_seconds * ANSWER_MEMORY + seconds

    def ended(self, reserved_tokens: int, made_tokens: int, seconds: float) -> None:
        """An answer has come to its own end."""
        self._drained_tokens += max(0, reserved_tokens - made_tokens)
        self._used_tokens = self._used_tokens * ANSWER_MEMORY + made_tokens
        self._reserved_tokens = self._reserved_tokens * ANSWER_MEMORY + reserved_tokens
        self._num_answers = self._num_answers * ANSWER_MEMORY + 1
        self._answer_seconds = self._answer_seconds * ANSWER_MEMORY + seconds

    def seconds_until_free(
        self, running: Iterable[Running], num_streams: int, tokens: int, share: float = 1.0
    ) -> float:
        """How long until the running requests have given back so many streams and tokens.

        They end in the order of what is left of their answers. What they do not hold between them is held
        by those that come after, and drains at their `share` of the rate of all that the engine runs.
        Infinite where nothing is known.
        """
        if num_streams <= 0 and tokens <= 0:
            return 0.0
        if not self.is_measured:
            return math.inf
        token_seconds = self.used_share / self.stream_tokens_per_second
        ends = sorted(
            (one.remaining_tokens * token_seconds / one.num_streams, one.num_streams, one.held_tokens)
            for one in running
        )
        seconds, freed_streams, freed_tokens = 0.0, 0, 0
        for seconds, streams, held_tokens in ends:
            freed_streams += streams
            freed_tokens += held_tokens
            if freed_streams >= num_streams and freed_tokens >= tokens:
                return seconds
        tokens_a_stream = freed_tokens / freed_streams if freed_streams else 0.0
        rest = max(tokens - freed_tokens, (num_streams - freed_streams) * tokens_a_stream)
        return seconds + rest / (share * self.tokens_per_second)
