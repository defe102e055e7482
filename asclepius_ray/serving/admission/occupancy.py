"""Who has a place at an engine and who waits for one, as admission keeps count of it; pure."""

from collections import deque
from dataclasses import dataclass, field

from asclepius_ray.serving.admission.ticket import Size, Ticket


@dataclass(frozen=True)
class Places:
    """What an engine runs at a time; 0 = it does not say."""

    num_streams: int = 0
    tokens: int = 0
    """Of its cache."""


NO_PLACES = Places()
"""Of an engine of which nothing is known: everything has a place."""


@dataclass(eq=False)
class Occupancy:
    """Running and queued tickets. An engine fills its places in the order of coming, and so does this."""

    places: Places
    running: dict[Ticket, None] = field(default_factory=dict)
    queue: deque[Ticket] = field(default_factory=deque)
    running_streams: int = 0
    running_tokens: int = 0
    queued_streams: int = 0
    queued_tokens: int = 0

    @property
    def held_tokens(self) -> int:
        return self.running_tokens + self.queued_tokens

    @property
    def filled_share(self) -> float:
        """Of the streams or of the cache, whichever is scarcer; above 1 some wait."""
        streams, tokens = self.places.num_streams, self.places.tokens
        return max(
            (self.running_streams + self.queued_streams) / streams if streams else 0.0,
            self.held_tokens / tokens if tokens else 0.0,
        )

    @property
    def num_open(self) -> int:
        return len(self.running) + len(self.queue)

    def has_place(self, size: Size) -> bool:
        """Whether a request of that size would run at once; one that is alone always does."""
        if not self.num_open:
            return True
        return not self.queue and self._fits(size)

    def excess(self, size: Size) -> tuple[int, int]:
        """Streams and tokens that must be given back before the last of all runs, if one more comes."""
        streams = self.running_streams + self.queued_streams + size.num_streams - self.places.num_streams
        tokens = self.held_tokens + size.held_tokens - self.places.tokens
        return streams if self.places.num_streams else 0, tokens if self.places.tokens else 0

    def add(self, ticket: Ticket) -> bool:
        """Takes a ticket in; whether it has a place at once."""
        if self.has_place(ticket.size):
            self._place(ticket)
            return True
        self.queue.append(ticket)
        self._count_queued(ticket, 1)
        return False

    def start(self, ticket: Ticket) -> None:
        """The engine itself began with a ticket that was thought to wait."""
        self.queue.remove(ticket)
        self._count_queued(ticket, -1)
        self._place(ticket)

    def remove(self, ticket: Ticket) -> list[Ticket]:
        """Gives back what a ticket holds; those of the queue that have a place now."""
        if ticket in self.running:
            del self.running[ticket]
            self.running_streams -= ticket.size.num_streams
            self.running_tokens -= ticket.size.held_tokens
        else:
            self.queue.remove(ticket)
            self._count_queued(ticket, -1)
        placed = []
        while self.queue and (not self.running or self._fits(self.queue[0].size)):
            first = self.queue.popleft()
            self._count_queued(first, -1)
            self._place(first)
            placed.append(first)
        return placed

    def _fits(self, size: Size) -> bool:
        streams, tokens = self.places.num_streams, self.places.tokens
        return (not streams or self.running_streams + size.num_streams <= streams) and (
            not tokens or self.running_tokens + size.held_tokens <= tokens
        )

    def _place(self, ticket: Ticket) -> None:
        self.running[ticket] = None
        self.running_streams += ticket.size.num_streams
        self.running_tokens += ticket.size.held_tokens

    def _count_queued(self, ticket: Ticket, sign: int) -> None:
        self.queued_streams += sign * ticket.size.num_streams
        self.queued_tokens += sign * ticket.size.held_tokens
