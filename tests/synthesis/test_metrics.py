"""The figures of a synthesis, as the metrics port of a real Ray node exports them."""

import math
import re
import time
from typing import Any

import httpx
import pytest
import ray

from asclepius_ray.synthesis.metrics import Metrics

SECONDS = 40.0


def exported() -> str:
    """What all nodes of the cluster tell a Prometheus."""
    pages = []
    for node in ray.nodes():
        if node["Alive"]:
            address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            pages.append(httpx.get(address, timeout=10, trust_env=False).text)
    return "\n".join(pages)


def value_of(page: str, name: str, label: str = "") -> float | None:
    labels = rf'(?=[^}}]*run="mine")(?=[^}}]*{label})'
    found = re.search(rf"^{name}\{{{labels}[^}}]*\}} (\S+)$", page, re.MULTILINE)
    return float(found[1]) if found else None


@pytest.mark.usefixtures("ray_cluster")
def test_a_prometheus_reads_every_figure_that_is_known_now() -> None:
    status: dict[str, Any] = {
        "rows": {"input": 50, "readable": 48, "done": 9, "ok": 5, "rejected": 3, "failed": 1},
        "calls": 31, "tokens": 45_000, "cost_usd": None, "unsettled_usd": 0.5, "refusals": 4,
        "requests_per_minute": 2980.0, "tokens_per_minute": None, "in_flight": 12, "waiting": 7,
        "seconds_left": 90.0, "workers": 3, "lost": {"refusal": 2, "too_short": 1, "server_error": 1},
        "budget_usd": 0.0, "awaits_batches": False, "last_row_unix": 1_700_000_000.5,
    }  # fmt: skip
    metrics = Metrics("mine")
    metrics.set(status | {"requests_per_minute": 3000.0, "tokens_per_minute": 90_000.0})
    metrics.set(status)
    hidden = ("rows", "lost", "cost_usd", "tokens_per_minute", "budget_usd", "last_row_unix")
    known = {name: value for name, value in status.items() if name not in hidden}
    known |= {"active": 1.0, "last_row_timestamp_seconds": status["last_row_unix"]}
    expected = {f"ray_asclepius_synthesis_{name}": value for name, value in known.items()}
    page = wait_for("ray_asclepius_synthesis_seconds_left", 90.0)
    assert {name: value_of(page, name) for name in expected} == expected
    for state, number in status["rows"].items():
        assert value_of(page, "ray_asclepius_synthesis_rows", f'state="{state}"') == number
    for reason, number in status["lost"].items():
        assert value_of(page, "ray_asclepius_synthesis_lost_rows", f'reason="{reason}"') == number
    for name in ("cost_usd", "budget_usd"):
        assert value_of(page, f"ray_asclepius_synthesis_{name}") is None
    # A limit that is not known any more does not stay at what it was.
    limit = value_of(page, "ray_asclepius_synthesis_tokens_per_minute")
    assert limit is None or math.isnan(limit)


def wait_for(name: str, value: float) -> str:
    deadline = time.monotonic() + SECONDS
    while value_of(page := exported(), name) != value:
        assert time.monotonic() < deadline, re.findall(r"^ray_asclepius.*$", page, re.MULTILINE)
        time.sleep(1.0)
    return page
