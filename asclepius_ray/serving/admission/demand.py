"""What was asked for within the last seconds, and what of it found no room; pure."""

from collections import deque
from dataclasses import dataclass, field


@dataclass(eq=False)
class Demand:
    """Counts tokens over the last `window_seconds`, to within a tenth of it; moments are in seconds."""

    window_seconds: float
    _parts: deque[list[float]] = field(default_factory=deque)
    """Each: when it began, tokens asked for, tokens refused."""

    def ask(self, tokens: int, now: float) -> None:
        """So many were admitted."""
        self._part(now)[1] += tokens

    def refuse(self, tokens: int, now: float) -> None:
        """So many found no room."""
        part = self._part(now)
        part[1] += tokens
        part[2] += tokens

    def within(self, now: float) -> tuple[float, float]:
        """Tokens asked for and, of these, refused since `window_seconds` ago."""
        self._forget(now)
        return sum(part[1] for part in self._parts), sum(part[2] for part in self._parts)

    def _part(self, now: float) -> list[float]:
        if not self._parts or now - self._parts[-1][0] >= self.window_seconds / 10:
            self._forget(now)
            self._parts.append([now, 0.0, 0.0])
        return self._parts[-1]

    def _forget(self, now: float) -> None:
        while self._parts and now - self._parts[0][0] >= self.window_seconds:
            self._parts.popleft()
