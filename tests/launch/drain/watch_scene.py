"""A watch in a time of its own: what happens at which second, and the Ray nodes of a machine."""

from collections.abc import Callable
from dataclasses import dataclass, field

from asclepius_ray.launch.drain_watch.local_nodes import RayAway, RayNode
from asclepius_ray.launch.drain_watch.metadata import MetadataAway
from asclepius_ray.launch.drain_watch.notices import Notice
from asclepius_ray.launch.drain_watch.watch import Clock, Watch

START_UNIX = 1_764_417_600.0
NODE = RayNode("ab" * 28, "10.0.0.1:6379", 17)
OTHER = RayNode("cd" * 28, "10.0.0.1:6379", 18)


class TooLong(Exception):
    """The watch should have ended by now."""


@dataclass
class Time:
    """Passes by sleeping alone; what is planned happens on the way."""

    seconds: float = 0.0
    planned: dict[float, Callable[[], None]] = field(default_factory=dict)

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for moment in [moment for moment in self.planned if moment <= self.seconds]:
            self.planned.pop(moment)()
        if self.seconds > 10_000:
            raise TooLong

    def clock(self) -> Clock:
        return Clock(unix=lambda: START_UNIX + self.seconds, monotonic=lambda: self.seconds, sleep=self.sleep)


@dataclass
class Cloud:
    """A provider that says what a test has put there."""

    name: str = "aws"
    notice: Notice | None = None
    away: MetadataAway | None = None
    num_looks: int = 0

    def look(self, wait_seconds: float) -> Notice | None:
        self.num_looks += 1
        if self.away:
            raise self.away
        return self.notice


@dataclass
class Machine:
    """Its Ray nodes, and a head that drains them."""

    nodes: list[RayNode] = field(default_factory=lambda: [NODE])
    away: RayAway | None = None
    known: bool = True
    """Whether the head knows the nodes already."""
    asked: list[tuple[float, str, float, str]] = field(default_factory=list)
    """When, which, until when and why, in seconds from the start."""


@dataclass
class Scene:
    """All of it, with a watch over it."""

    time: Time = field(default_factory=Time)
    cloud: Cloud = field(default_factory=Cloud)
    machine: Machine = field(default_factory=Machine)
    said: list[str] = field(default_factory=list)

    def at(self, seconds: float, act: Callable[[], None]) -> None:
        self.time.planned[seconds] = act

    def watch(self, grace_seconds: float = 0.0) -> Watch:
        return Watch(
            find_nodes=lambda: list(self.machine.nodes),
            drain_node=self._drain,
            say=self.said.append,
            poll_seconds=5.0,
            grace_seconds=grace_seconds,
            clock=self.time.clock(),
        )

    def lines(self) -> list[str]:
        """What was said, without its times."""
        return [line.split(" ", 1)[1] for line in self.said]

    def _drain(self, node: RayNode, deadline_unix: float, kind: str) -> bool:
        if self.machine.away:
            raise self.machine.away
        self.machine.asked.append((self.time.seconds, node.node_id, deadline_unix - START_UNIX, kind))
        return self.machine.known
