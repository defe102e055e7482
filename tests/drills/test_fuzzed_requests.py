"""Ten thousand requests that no client should send: no fault, no hang, and nothing is left behind."""

import asyncio
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SERVING = Path(__file__).parents[1] / "serving"
sys.path[:0] = [str(SERVING), str(SERVING / "surface")]

from fuzzed_requests import send_all  # noqa: E402
from served_models import save_tiny_model  # noqa: E402
from surfaces import Surface, open_surface, serve_model  # noqa: E402

NUM_REQUESTS = 10_000
WARM_UP_REQUESTS = 2_000
MOST_GROWTH_BYTES = 48 << 20


@pytest.fixture(scope="module")
def surface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Surface]:
    model = serve_model("trained", save_tiny_model(tmp_path_factory.mktemp("served") / "trained", seed=1))
    with open_surface({"trained": model}) as opened:
        yield opened
    model.engine.stop()


def test_ten_thousand_odd_requests_leave_nothing_behind(surface: Surface) -> None:
    process = psutil.Process()
    before = send_and_measure(surface, process, seed=0, num_requests=WARM_UP_REQUESTS)
    after = send_and_measure(surface, process, seed=1, num_requests=NUM_REQUESTS)
    growth = [late - early for early, late in zip(before, after, strict=True)]
    assert growth[0] < MOST_GROWTH_BYTES, f"{growth[0] >> 20} MiB more than before"
    assert growth[1] <= 0, f"{growth[1]} more connections and files than before"


def send_and_measure(
    surface: Surface, process: psutil.Process, seed: int, num_requests: int
) -> tuple[int, int]:
    """The memory in bytes and the open files and connections, after these requests."""
    findings = asyncio.run(send_all(surface.address, seed, num_requests))
    assert findings.faults == []
    assert findings.statuses.total() - findings.statuses["streams"] == num_requests
    assert findings.statuses["streams"] > num_requests / 100
    assert findings.statuses["200"] > num_requests / 20
    assert surface.is_idle()
    gc.collect()
    print(f"{findings.statuses} {process.memory_info().rss >> 20} MiB, {process.num_fds()} open")  # noqa: T201
    return process.memory_info().rss, process.num_fds()
