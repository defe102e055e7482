"""What a request will take: tokens as the last replies suggest, money at the most. Pure."""

from collections import deque
from dataclasses import dataclass, field

from asclepius_ray.chat.config import PriceConfig
from asclepius_ray.chat.prices import CHARACTERS_PER_TOKEN, cost_usd

REMEMBERED_REPLIES = 200
LEAST_REPLIES = 5
TEMPLATE_TOKENS_PER_MESSAGE = 16


@dataclass
class _Seen:
    characters: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED_REPLIES))
    prompt_tokens: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED_REPLIES))
    completion_tokens: deque[int] = field(default_factory=lambda: deque(maxlen=REMEMBERED_REPLIES))
    sums: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(self, values: tuple[int, int, int]) -> None:
        columns = (self.characters, self.prompt_tokens, self.completion_tokens)
        for position, (column, value) in enumerate(zip(columns, values, strict=True)):
            if len(column) == REMEMBERED_REPLIES:
                self.sums[position] -= column[0]
            column.append(value)
            self.sums[position] += value


class TokenEstimates:
    """Learns, step by step, how many tokens a character makes and how long a reply is."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def observe(self, step: str, num_characters: int, prompt_tokens: int, completion_tokens: int) -> None:
        if prompt_tokens:
            self._seen.setdefault(step, _Seen()).add((num_characters, prompt_tokens, completion_tokens))

    def expected_tokens(self, step: str, num_characters: int, max_tokens: int) -> int:
        """Tokens in and out: by the mean of the last replies, before them by rule of thumb."""
        seen = self._seen.get(step)
        if seen is None or len(seen.characters) < LEAST_REPLIES or not seen.sums[0]:
            return -(-num_characters // CHARACTERS_PER_TOKEN) + max_tokens // 2
        per_character = seen.sums[1] / seen.sums[0]
        reply = seen.sums[2] / len(seen.characters)
        return round(num_characters * per_character + min(reply, max_tokens)) + 1


def largest_usd(price: PriceConfig, num_bytes: int, num_messages: int, max_tokens: int) -> float:
    """The most that one attempt can cost: no token is shorter than a byte, no reply longer than allowed."""
    prompt_tokens = num_bytes + TEMPLATE_TOKENS_PER_MESSAGE * (num_messages + 1)
    return cost_usd(price, prompt_tokens, max_tokens) or 0.0
