"""What workers and the desk say to each other: one message and one reply for many requests at a time."""

from dataclasses import dataclass, field

from asclepius_ray.chat.exchange import Entry
from asclepius_ray.chat.gate import Load, Outcome
from asclepius_ray.chat.limiter import Learnt


@dataclass(frozen=True)
class Ask:
    """A wish to send: the answer to `key` if it is bought already, else a permit under `number`.

    Without a key it is a further attempt of a request that its worker holds already.
    """

    number: int
    load: Load
    key: bytes = b""


@dataclass(frozen=True)
class Verdict:
    """What is known of a row: in how many worker deaths it was in progress, whether it is given up."""

    row_id: str
    deaths: int
    is_quarantined: bool


HANDED_BACK = "handed back"


@dataclass(frozen=True)
class Trouble:
    """Why the run as a whole ends: an error of the endpoint, the budget, or the storage, or its end."""

    kind: str
    """"endpoint", "budget", "storage", "ended" where another endpoint's trouble ends what asks here, or
    HANDED_BACK, of which the desk never hears."""
    message: str

    @classmethod
    def of_storage(cls, error: OSError) -> "Trouble":
        """Ends the run for a journal that cannot be read or written now."""
        # The errors of a bucket have no number, and so no word of the system's for it.
        reason = error.strerror or " ".join(str(error).split())[:300]
        return cls("storage", f"the journal cannot be read or written ({reason})")


@dataclass(frozen=True)
class Memory:
    """What a desk knows that is in no journal; each worker keeps it for the heir of one that is lost."""

    num_workers: int = 0
    learnt: Learnt = field(default_factory=Learnt)


@dataclass
class Said:
    """One message of a worker; what it held while the desk was away comes again after `is_resync`."""

    worker: str
    """The same over all lives of a worker."""
    process: str
    """One life of it."""
    is_resync: bool = False
    desk: str = ""
    """The life of the desk that the worker has last spoken to; a new one asks for a resync."""
    asks: list[Ask] = field(default_factory=list)
    outcomes: list[tuple[int, Outcome]] = field(default_factory=list)
    deliveries: list[tuple[int, Entry]] = field(default_factory=list)
    """The worker's own numbers, counting up."""
    abandoned: list[bytes] = field(default_factory=list)
    held: list[tuple[int, Load]] = field(default_factory=list)
    """On a resync: permits in use."""
    buying: list[bytes] = field(default_factory=list)
    """On a resync: keys that are being bought, were asked for, or are among the deliveries."""
    memory: Memory = field(default_factory=Memory)
    """On a resync: what the desk has last told."""
    rows_begun: list[str] = field(default_factory=list)
    rows_admitted: list[tuple[str, bool]] = field(default_factory=list)
    """Rows with deaths behind them that begin now, and whether each is alone in its process."""
    rows_ended: list[str] = field(default_factory=list)
    """Before those of this message that begin: one that is in both has left and is back."""
    in_flight: int = 0
    wanted: int = 0
    trouble: Trouble | None = None


@dataclass
class Heard:
    """The desk's reply."""

    desk: str
    needs_resync: bool = False
    bought: list[Entry] = field(default_factory=list)
    permits: list[tuple[int, float]] = field(default_factory=list)
    """Number of the ask, and in how many seconds to send."""
    verdicts: list[Verdict] = field(default_factory=list)
    quota: int = 0
    durable: int = 0
    """Deliveries of this process up to here are on storage."""
    memory: Memory = field(default_factory=Memory)
    answered_age_seconds: float = float("inf")
    """Time since the endpoint last answered anyone."""
    next_seconds: float = 0.05
    """When to speak again, at the latest, while something is awaited."""
    trouble: Trouble | None = None
