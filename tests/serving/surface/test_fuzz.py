"""A few hundred requests that no client should send; tests/drills sends ten thousand."""

import asyncio
import logging

import pytest
from fuzzed_requests import send_all
from surfaces import Surface

NUM_REQUESTS = 300


def test_odd_requests_are_refused_without_a_fault_a_hang_or_a_trace_in_a_log(
    surface: Surface, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        findings = asyncio.run(send_all(surface.address, seed=1, num_requests=NUM_REQUESTS))
    assert findings.faults == []
    assert findings.statuses["200"] > 20
    assert findings.statuses["400"] > 50
    assert findings.statuses["broken off"] > 20
    assert findings.statuses["streams"] > 3
    assert surface.is_idle()
    assert "zebrafinch" not in caplog.text
    assert surface.post("/v1/clinical/answers", {"note": "a", "question": "b"}).status_code == 200
