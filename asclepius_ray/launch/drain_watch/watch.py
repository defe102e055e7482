"""The watch itself: reads notices until one comes, then drains this machine's Ray nodes."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from asclepius_ray.errors import AsclepiusError, ConfigError
from asclepius_ray.launch.drain_watch.draining import Draining, DrainNode, FindNodes, Say
from asclepius_ray.launch.drain_watch.metadata import MetadataAway, MetadataUnreachable, Provider
from asclepius_ray.launch.drain_watch.notices import Notice, deadline_of, format_time

STEP_SECONDS = 1.0
GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Clock:
    """The time that the watch lives in."""

    unix: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass
class Watch:
    """One machine's watch. Every change of its state is one line of `say`."""

    find_nodes: FindNodes
    drain_node: DrainNode
    say: Say
    poll_seconds: float
    grace_seconds: float = 0.0
    """For notices that name no time; 0 = what the cloud promises."""
    clock: Clock = field(default_factory=Clock)
    _said: str = ""

    def run(self, provider: Provider, gives_up: bool) -> None:
        """Ends once the nodes have ended after a notice, or its time has come.

        `gives_up`: a ConfigError where nobody has listened at the address for a minute from the start on.
        """
        self._await_service(provider, gives_up)
        while not self.drain(self._await_notice(provider), provider):
            self._tell("the notice is withdrawn before Ray was told")

    def drain(self, notice: Notice, provider: Provider | None = None) -> bool:
        """False where the notice was withdrawn before Ray was told of it."""
        draining = self._begin(notice)
        next_look = self.clock.monotonic() + self.poll_seconds
        while True:
            draining.step()
            if draining.is_over:
                self._tell("drained: no Ray node runs on this machine any more")
                return True
            if provider and self.clock.monotonic() >= next_look:
                next_look = self.clock.monotonic() + self.poll_seconds
                if not self._is_upheld(draining, provider) and not draining.has_begun:
                    return False
            left_seconds = draining.deadline_unix - self.clock.unix()
            if left_seconds <= 0:
                self._tell_late(draining)
                return True
            self.clock.sleep(min(STEP_SECONDS, left_seconds))

    def _begin(self, notice: Notice) -> Draining:
        deadline_unix = deadline_of(notice, self.clock.unix(), self.grace_seconds)
        self._tell(f"notice of a {notice.kind}: this machine goes at {format_time(deadline_unix)}")
        return Draining(notice.kind, deadline_unix, self.find_nodes, self.drain_node, self._tell)

    def _await_service(self, provider: Provider, gives_up: bool) -> None:
        """Returns once anything but silence comes from the address."""
        begun = self.clock.monotonic()
        while True:
            try:
                provider.look(0)
            except MetadataUnreachable as trouble:
                self._tell_of(trouble)
                if gives_up and self.clock.monotonic() - begun >= GIVE_UP_SECONDS:
                    raise ConfigError(
                        f"{provider.name}'s metadata service cannot be reached: {trouble}, for "
                        f"{GIVE_UP_SECONDS:.0f} s; is this a machine of {provider.name}? Name another "
                        "--provider, or leave it out to watch for whatever comes"
                    ) from None
                self.clock.sleep(self.poll_seconds)
            except MetadataAway:
                return
            else:
                return

    def _await_notice(self, provider: Provider) -> Notice:
        while True:
            begun = self.clock.monotonic()
            try:
                notice = provider.look(self.poll_seconds)
            except MetadataAway as trouble:
                self._tell_of(trouble)
            else:
                if notice:
                    return notice
                self._tell(f"watching for notices of {provider.name}")
            self.clock.sleep(max(0.0, begun + self.poll_seconds - self.clock.monotonic()))

    def _is_upheld(self, draining: Draining, provider: Provider) -> bool:
        """Whether the notice still stands; a service that is away takes nothing back."""
        try:
            notice = provider.look(0)
        except MetadataAway:
            return True
        if notice:
            deadline_unix = deadline_of(notice, self.clock.unix(), self.grace_seconds)
            draining.hasten(notice.kind, deadline_unix)
        elif draining.has_begun:
            self._tell("the notice is withdrawn, but Ray takes no drain back: its nodes end once idle")
        return notice is not None

    def _tell_late(self, draining: Draining) -> None:
        if draining.trouble and not draining.has_begun:
            raise AsclepiusError(
                f"Ray was not told before the time of the notice of a {draining.kind}: {draining.trouble}"
            )
        self._tell(f"the time has come; Ray nodes that still run here: {draining.num_running}")

    def _tell_of(self, trouble: MetadataAway) -> None:
        self._tell(f"no notice can be read from the metadata address: {trouble}; watching on")

    def _tell(self, line: str) -> None:
        """Says a change of state, and what has not changed not again."""
        if line != self._said:
            self._said = line
            self.say(f"{format_time(self.clock.unix())} {line}")
