"""Ten thousand requests that no client should send: no fault, no hang, and nothing is left behind."""

import asyncio
import contextlib
import gc
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SERVING = Path(__file__).parents[1] / "serving"
sys.path[:0] = [str(SERVING), str(SERVING / "surface")]

from fuzzed_requests import send_all  # noqa: E402
from served_models import save_tiny_model  # noqa: E402
from surfaces import Surface, open_surface, serve_model  # noqa: E402

pytestmark = pytest.mark.long

NUM_REQUESTS = 10_000
WARM_UP_REQUESTS = 2_000
MOST_GROWTH_BYTES = 48 << 20
CLOSING_SECONDS = 20.0
"""So long the server may take to close a connection whose client is gone; one that leaks stays open."""


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    model = serve_model("trained", save_tiny_model(tmp_path_factory.mktemp("served") / "trained", seed=1))
    with open_surface({"trained": model}) as opened:
        yield opened
    model.engine.stop()


def test_ten_thousand_odd_requests_leave_nothing_behind(surface: Surface) -> None:
    process = psutil.Process()
    memory_before = memory_after_requests(surface, process, seed=0, num_requests=WARM_UP_REQUESTS)
    open_before = open_by_kind()
    memory = memory_after_requests(surface, process, seed=1, num_requests=NUM_REQUESTS)
    growth = memory - memory_before
    assert growth < MOST_GROWTH_BYTES, f"{growth >> 20} MiB more than before"
    give_up = time.monotonic() + CLOSING_SECONDS
    while (more := open_by_kind() - open_before) and time.monotonic() < give_up:
        time.sleep(0.1)
    assert more == Counter(), "open now, and not before"


def open_by_kind() -> Counter[str]:
    """How many sockets, pipes and files this process holds."""
    kinds: Counter[str] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        # One that is closed while this goes through them, such as that of the listing itself.
        with contextlib.suppress(FileNotFoundError):
            kinds[str(descriptor.readlink()).split(":[")[0]] += 1
    return kinds


def memory_after_requests(surface: Surface, process: psutil.Process, seed: int, num_requests: int) -> int:
    """In bytes."""
    findings = asyncio.run(send_all(surface.address, seed, num_requests))
    assert findings.faults == []
    assert findings.statuses.total() - findings.statuses["streams"] == num_requests
    assert findings.statuses["streams"] > num_requests / 100
    assert findings.statuses["200"] > num_requests / 20
    assert surface.is_idle()
    gc.collect()
    print(f"{findings.statuses} {process.memory_info().rss >> 20} MiB, {process.num_fds()} open")  # noqa: T201
    return process.memory_info().rss
