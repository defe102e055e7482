"""What follows one notice: Ray is asked until it drains this machine's nodes, and their end is awaited."""

from collections.abc import Callable
from dataclasses import dataclass, field

from asclepius_ray.launch.drain_watch.local_nodes import RayAway, RayNode
from asclepius_ray.launch.drain_watch.notices import format_time

Say = Callable[[str], None]
FindNodes = Callable[[], list[RayNode]]
DrainNode = Callable[[RayNode, float, str], bool]
SHOWN_ID_CHARACTERS = 12


@dataclass
class Draining:
    """The nodes of one machine on their way out; a step a second moves them on."""

    kind: str
    deadline_unix: float
    find_nodes: FindNodes
    drain_node: DrainNode
    tell: Say
    num_running: int = 0
    trouble: str = ""
    """Why Ray could not be told the last time."""
    _asked: set[RayNode] = field(default_factory=set)
    _confirmed: set[RayNode] = field(default_factory=set)

    @property
    def has_begun(self) -> bool:
        """Whether Ray knows of it, and Ray takes no drain back."""
        return bool(self._asked)

    @property
    def is_over(self) -> bool:
        return self.has_begun and self.num_running == 0

    def step(self) -> None:
        """Asks for every node of which Ray has not said yet that it drains."""
        nodes = self.find_nodes()
        self.num_running = len(nodes)
        if not nodes and not self.has_begun:
            self.tell("no Ray node runs on this machine")
        for node in nodes:
            if node not in self._confirmed:
                self._ask(node)

    def hasten(self, kind: str, deadline_unix: float) -> None:
        """Takes a notice that leaves less time: Ray is told anew."""
        if deadline_unix < self.deadline_unix:
            self.kind, self.deadline_unix = kind, deadline_unix
            self._confirmed.clear()
            self.tell(f"notice of a {kind}: this machine goes sooner, at {format_time(deadline_unix)}")

    def _ask(self, node: RayNode) -> None:
        try:
            is_draining = self.drain_node(node, self.deadline_unix, self.kind)
        except RayAway as trouble:
            self.trouble = str(trouble)
            self.tell(f"Ray could not be told: {trouble}; asking on until {format_time(self.deadline_unix)}")
            return
        if is_draining:
            self._confirmed.add(node)
        if self.trouble or node not in self._asked:
            shown = node.node_id[:SHOWN_ID_CHARACTERS]
            self.tell(f"Ray drains the node {shown}, until {format_time(self.deadline_unix)}")
        self.trouble = ""
        self._asked.add(node)
