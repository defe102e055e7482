"""The files of audit lines: a new one each day, and none that ends a request."""

import io
import json
import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import ray.serve.context
from ray.serve._private.logging_utils import ServeContextFilter, ServeFormatter

from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.access.audit import AuditLog


def test_each_day_has_its_file(tmp_path: Path) -> None:
    now = datetime(2026, 11, 28, 23, 59, tzinfo=UTC)
    audit = AuditLog(tmp_path / "audit", "one", clock=lambda: now)
    for number in range(3):
        audit.write(Account(str(number), "/v1/models", Caller("k")), 200)
        now += timedelta(minutes=1)
    audit.close()
    found = {
        file.name: [json.loads(line)["request"] for line in file.read_text().splitlines()]
        for file in (tmp_path / "audit").iterdir()
    }
    assert found == {"audit-2026-11-28-one.jsonl": ["0"], "audit-2026-11-29-one.jsonl": ["1", "2"]}


def test_a_folder_that_takes_nothing_is_told_once_and_the_log_has_the_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "audit").write_text("no folder")
    lost: list[bool] = []
    audit = AuditLog(tmp_path / "audit", "one", lambda: lost.append(True))
    with caplog.at_level(logging.INFO, logger="ray.serve"):
        for number in range(3):
            audit.write(Account(f"request-{number}", "", Caller("k")), 200)
    assert len(lost) == 3
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert all(f"request-{number}" in caplog.text for number in range(3))


def test_serves_own_log_gets_no_header_of_the_client_with_a_line(tmp_path: Path) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(ServeContextFilter())
    handler.setFormatter(ServeFormatter("replica", "one"))
    log = logging.getLogger("ray.serve.asclepius.audit")
    log.addHandler(handler)
    (tmp_path / "audit").write_text("no folder")
    ray.serve.context._set_request_context(request_id="zebrafinch has pain")
    try:
        log.info("in the request's context")
        audit = AuditLog(tmp_path / "audit", "one")
        audit.write(Account("request-1", "", Caller("k")), 200)
    finally:
        ray.serve.context._set_request_context(request_id="")
        log.removeHandler(handler)
    before, *ours = written.getvalue().splitlines()
    assert "zebrafinch" in before, "else nothing is shown by the lines after it"
    assert len(ours) == 2
    assert "request-1" in ours[0]
    assert "zebrafinch" not in "".join(ours)
