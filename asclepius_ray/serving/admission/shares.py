"""How much of an engine each key holds, and whether that is more than an equal part; pure."""

from collections import Counter

WANTING_SECONDS = 10.0
"""A key that was refused for lack of room counts for so long among those that want a part."""


class Shares:
    """All moments are monotonic seconds."""

    def __init__(self) -> None:
        self._held_tokens: Counter[str] = Counter()
        self._wanting: dict[str, float] = {}

    def hold(self, key_id: str, tokens: int) -> None:
        """A key holds so many more tokens, or fewer where it is negative."""
        self._held_tokens[key_id] += tokens
        if not self._held_tokens[key_id]:
            del self._held_tokens[key_id]

    def want(self, key_id: str, now: float) -> None:
        """A key was refused for lack of room."""
        self._wanting[key_id] = now

    def is_over(self, key_id: str, now: float) -> bool:
        """Whether the key holds more than an equal part of what is held, while others hold or want some."""
        self._wanting = {key: at for key, at in self._wanting.items() if now - at < WANTING_SECONDS}
        num_keys = len(self._held_tokens.keys() | self._wanting.keys() | {key_id})
        return num_keys > 1 and self._held_tokens[key_id] * num_keys > self._held_tokens.total()
