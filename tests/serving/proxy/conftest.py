"""HAProxy in front of three replicas that are processes of their own, so that a test can kill one."""

from collections.abc import Iterator

import pytest
from proxy_here import ProxyHere
from replicas_here import Replicas


@pytest.fixture(scope="module")
def running_replicas() -> Iterator[Replicas]:
    running = Replicas()
    yield running
    running.close()


@pytest.fixture
def replicas(running_replicas: Replicas) -> Replicas:
    """All of them up: those that an earlier test has killed are started anew."""
    running_replicas.start()
    return running_replicas


@pytest.fixture(scope="module")
def running_proxy(running_replicas: Replicas) -> Iterator[ProxyHere]:
    running = ProxyHere()
    try:
        running_replicas.start()
        running.start(running_replicas.ports)
        yield running
    finally:
        running.close()


@pytest.fixture
def proxy(running_proxy: ProxyHere, replicas: Replicas) -> ProxyHere:
    """HAProxy as it leads to all replicas, through the guard."""
    running_proxy.wait_for(replicas.ports)
    running_proxy.wait_for_guard()
    return running_proxy
