"""The node of a worker, when it has been told to go: by a cloud's notice, an operator, or by hand."""

import asyncio
import logging
from concurrent.futures import Future

import ray
from ray.exceptions import RayError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""A cloud gives 30 s (Google) or two minutes (Amazon); what is in flight has to come in meanwhile."""


async def until_drained(node_id: str) -> None:
    """Returns once Ray drains the node."""
    while not await asyncio.to_thread(_is_drained, node_id):
        await asyncio.sleep(LOOK_SECONDS)


def _is_drained(node_id: str) -> bool:
    """False where the cluster does not answer: the next look may find it again."""
    try:
        return node_id in ray._private.state.state.get_draining_nodes()
    except RayError:
        return False


def warn_if_it_fails(looking: "Future[None]") -> None:
    """Says when nobody looks any more: at a notice the rows of this worker are bought again then."""
    if looking.cancelled() or (error := looking.exception()) is None:
        return
    # Its text may hold anything; its type is enough to find the fault.
    logger.warning("this worker no longer sees whether its node is to go: %s", type(error).__name__)
