"""The figures of one process, for `/metrics` in Prometheus' text and, through a mirror, for Ray's exporter.

Labels come from bounded sets alone: the served models, the reasons below, the templates of routes and the
status codes. Nothing that a client sends becomes a label.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "asclepius_serving"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_MODELS = 64
OTHER_MODELS = "other"
"""The label of every further name."""
# From one decode step of a small model to an answer that nobody waits for.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)

Reason = Literal[
    "key",
    "scope",
    "header",
    "body",
    "open_requests",
    "held_requests",
    "keys_unreadable",
    "capacity",
    "share",
    "deadline",
    "draining",
    "key_requests",
    "key_tokens",
    "key_in_flight",
]
Record = Callable[[float, dict[str, str]], None]


@dataclass(frozen=True)
class Figure:
    """One family of numbers."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    text: str
    labels: tuple[str, ...] = ("model",)
    buckets: tuple[float, ...] = ()


FIGURES = (
    Figure("counter", "http_requests", "Requests that ended, open routes not counted.", ("route", "status")),
    Figure("counter", "admitted_requests", "Requests that got a place or a place in the queue."),
    Figure("counter", "refused_requests", "Requests that were refused.", ("model", "reason")),
    Figure("counter", "prompt_tokens", "Tokens of admitted prompts."),
    Figure("counter", "completion_tokens", "Tokens that were made."),
    Figure(
        "histogram", "first_token_seconds", "From a request's first byte to its first token.", buckets=SECONDS
    ),
    Figure("histogram", "token_seconds", "Per token after the first of an answer.", buckets=TOKEN_SECONDS),
    Figure("histogram", "queue_seconds", "From admission to a place at the engine.", buckets=SECONDS),
    Figure("gauge", "running_requests", "Requests with a place at the engine."),
    Figure("gauge", "waiting_requests", "Requests that were admitted and wait for a place."),
    Figure("gauge", "held_tokens", "Prompts and longest answers of all admitted requests."),
    Figure("gauge", "cache_use", "The share of the engine's cache that is in use, from 0 to 1."),
    Figure("gauge", "expected_wait_seconds", "How long one more request would wait for a place."),
    Figure("counter", "audit_lines_lost", "Audit lines that could not be written to serving.audit.", ()),
)


class Observation(NamedTuple):
    """One number of a figure, as it was recorded."""

    figure: str
    value: float
    labels: dict[str, str]


class Mirror(Protocol):
    """Another place where every figure is recorded as well."""

    def open(self, figure: Figure) -> Record: ...


class Meters:
    """All figures of a replica, or of the front; safe to use from several threads."""

    def __init__(self, *mirrors: Mirror) -> None:
        self._registry = CollectorRegistry()
        self._records = {figure.name: _open(figure, self._registry) for figure in FIGURES}
        self._mirrored = [{figure.name: mirror.open(figure) for figure in FIGURES} for mirror in mirrors]
        self._models: set[str] = set()
        self.before_scrape: list[Callable[[], None]] = []
        """Called before the text is made, for gauges that nothing sets in between."""

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        for prepare in self.before_scrape:
            prepare()
        return generate_latest(self._registry)

    def ended(self, route: str, status: int) -> None:
        self._record("http_requests", 1, {"route": route, "status": str(status)})

    def admitted(self, model: str, prompt_tokens: int) -> None:
        labels = self._of(model)
        self._record("admitted_requests", 1, labels)
        self._record("prompt_tokens", prompt_tokens, labels)

    def refused(self, reason: Reason, model: str = "") -> None:
        self._record("refused_requests", 1, {**self._of(model), "reason": reason})

    def made(self, model: str, num_tokens: int) -> None:
        self._record("completion_tokens", num_tokens, self._of(model))

    def placed(self, model: str, queue_seconds: float) -> None:
        self._record("queue_seconds", queue_seconds, self._of(model))

    def answered(self, model: str, first_token_seconds: float, token_seconds: float | None) -> None:
        """An answer is over; `token_seconds` is the time of each token after the first, if there was one."""
        labels = self._of(model)
        self._record("first_token_seconds", first_token_seconds, labels)
        if token_seconds is not None:
            self._record("token_seconds", token_seconds, labels)

    def gauge(self, name: str, model: str, value: float) -> None:
        """Sets one of the gauges of a model."""
        self._record(name, value, self._of(model))

    def audit_line_lost(self) -> None:
        self._record("audit_lines_lost", 1, {})

    def repeat(self, observations: Iterable[Observation]) -> None:
        """Takes in what another process observed; not for the mirrors, which heard it there."""
        for name, value, labels in observations:
            self._records[name](value, labels)

    def _of(self, model: str) -> dict[str, str]:
        if model not in self._models:
            if len(self._models) >= MOST_MODELS:
                return {"model": OTHER_MODELS}
            self._models.add(model)
        return {"model": model}

    def _record(self, name: str, value: float, labels: dict[str, str]) -> None:
        self._records[name](value, labels)
        for mirrored in self._mirrored:
            mirrored[name](value, labels)


def _open(figure: Figure, registry: CollectorRegistry) -> Record:
    name, text, labels = f"{PREFIX}_{figure.name}", figure.text, figure.labels
    match figure.kind:
        case "counter":
            counter = Counter(name, text, labels, registry=registry)
            return lambda value, found: (counter.labels(**found) if found else counter).inc(value)
        case "gauge":
            gauge = Gauge(name, text, labels, registry=registry)
            return lambda value, found: gauge.labels(**found).set(value)
        case "histogram":
            histogram = Histogram(name, text, labels, registry=registry, buckets=figure.buckets)
            return lambda value, found: histogram.labels(**found).observe(value)
