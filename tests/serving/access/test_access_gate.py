"""The gate over real HTTP: who passes, with what headers, and what is written down of it."""

import asyncio
import json
import logging
import re
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from gated_server import CANARY, OPERATOR_KEY, Gated, access_of, serving
from starlette.applications import Starlette

from asclepius_ray.serving.access.asgi import Message
from asclepius_ray.serving.access.audit import AuditLog
from asclepius_ray.serving.access.body_guard import BodyGuard
from asclepius_ray.serving.access.gate import Gate
from asclepius_ray.serving.access.key_file import KeyFile
from asclepius_ray.serving.access.keys import KeyLimits, hash_key, make_key
from asclepius_ray.serving.admission.admission import Admission
from asclepius_ray.serving.meters import Meters
from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.metrics_route import metrics_route

ALLOWED_ORIGIN = "https://ehr.example"
MAX_OPEN = 3
BODY_SECONDS = 1.0
AUDIT_FIELDS = {
    "time",
    "request",
    "key",
    "route",
    "model",
    "status",
    "prompt_tokens",
    "completion_tokens",
    "queue_ms",
    "first_token_ms",
    "total_ms",
    "outcome",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("access")


@pytest.fixture(scope="module")
def gated(folder: Path) -> Iterator[Gated]:
    meters = Meters()
    access = access_of(
        folder,
        meters=meters,
        audit=AuditLog(folder / "audit", "one"),
        cors_origins=frozenset({ALLOWED_ORIGIN}),
        max_open_requests=MAX_OPEN,
        longest_body_seconds=BODY_SECONDS,
    )
    with serving(Gated(access, Admission(meters=meters, name="tiny"))) as running:
        yield running


def key_with(folder: Path, *scopes: str, limits: KeyLimits | None = None) -> tuple[str, str]:
    """A key and its id."""
    secret, record = make_key("ward", scopes, limits or KeyLimits(), 0, datetime.now(UTC))
    KeyFile(str(folder)).change(lambda book: book.with_key(record))
    return secret, record.id


def ask(gated: Gated, method: str = "POST", path: str = "/v1/echo", **settings: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {OPERATOR_KEY}", **settings.pop("headers", {})}  # type: ignore[dict-item]
    return httpx.request(method, gated.url + path, headers=headers, timeout=60, **settings)  # type: ignore[arg-type]


def audit_lines(folder: Path) -> list[dict[str, object]]:
    [file] = (folder / "audit").glob("audit-*-one.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def line_of(folder: Path, response: httpx.Response) -> dict[str, object]:
    """The one audit line of an answer; it is written just after the answer's last byte."""
    wanted, give_up = response.headers["x-request-id"], time.monotonic() + 10
    while not (found := [line for line in audit_lines(folder) if line["request"] == wanted]):
        assert time.monotonic() < give_up
        time.sleep(0.02)
    [line] = found
    return line


@pytest.mark.parametrize("path", ["/", "/health/live"])
def test_the_page_and_liveness_are_open(gated: Gated, path: str) -> None:
    assert httpx.get(gated.url + path).text == "page"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/echo",
        "/metrics",
        "/docs",
        "/nothing",
        "/health",
        "/health/live/",
        "//",
        "/page.js/x",
        "/%2e/metrics",
        "/metrics%0A",
        "/health/live%0A",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
def test_everything_else_answers_to_a_key_alone(gated: Gated, method: str, path: str) -> None:
    response = httpx.request(method, gated.url + path)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


def test_an_open_path_is_open_for_reading_alone(gated: Gated) -> None:
    assert [httpx.request(method, gated.url + "/").status_code for method in ("POST", "PUT", "OPTIONS")] == [
        401
    ] * 3


def test_missing_wrong_revoked_and_expired_keys_get_the_same_answer(gated: Gated, folder: Path) -> None:
    revoked, key_id = key_with(folder, "generate")
    KeyFile(str(folder)).change(lambda book: book.with_revoked(key_id, datetime.now(UTC)))
    expired, record = make_key("ward", ["generate"], KeyLimits(), 1e-9, datetime.now(UTC))
    KeyFile(str(folder)).change(lambda book: book.with_key(record))
    gated.access.keys.refresh()
    answers = [
        httpx.post(gated.url + "/v1/echo", headers=headers)
        for headers in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": f"Basic {OPERATOR_KEY}"},
            {"X-Api-Key": OPERATOR_KEY},
            *({"Authorization": f"Bearer {key}"} for key in ("wrong", revoked, expired, OPERATOR_KEY[:-1])),
        )
    ]
    unique = {"x-request-id", "date"}
    told = {
        (answer.status_code, answer.text, str({k: v for k, v in answer.headers.items() if k not in unique}))
        for answer in answers
    }
    assert len(told) == 1
    assert answers[0].status_code == 401


def test_a_revoked_key_is_refused_within_two_seconds_over_http(gated: Gated, folder: Path) -> None:
    key, key_id = key_with(folder, "generate")
    headers = {"Authorization": f"Bearer {key}"}

    def seconds_until(status: int) -> float:
        started = time.monotonic()
        while ask(gated, "GET", "/v1/models/a", headers=headers).status_code != status:
            assert time.monotonic() - started < 30
        return time.monotonic() - started

    assert seconds_until(200) < 2
    KeyFile(str(folder)).change(lambda book: book.with_revoked(key_id, datetime.now(UTC)))
    assert seconds_until(401) < 2


def test_a_key_without_the_scope_is_told_which_one(gated: Gated, folder: Path) -> None:
    generate, metrics = key_with(folder, "generate")[0], key_with(folder, "metrics")[0]
    gated.access.keys.refresh()
    for key, path, needed in ((generate, "/metrics", "metrics"), (metrics, "/v1/models/a", "generate")):
        response = ask(gated, "GET", path, headers={"Authorization": f"Bearer {key}"})
        assert response.status_code == 403
        assert response.json()["error"]["code"] == "missing_scope"
        assert needed in response.json()["error"]["message"]
    assert ask(gated, "GET", "/metrics", headers={"Authorization": f"Bearer {metrics}"}).status_code == 200
    assert (
        ask(gated, "GET", "/v1/models/a", headers={"Authorization": f"Bearer {generate}"}).status_code == 200
    )


@pytest.mark.parametrize(
    "path",
    [
        "/metrics%0A",
        "/metrics%0a",
        "/metrics%0D%0A",
        "/metrics%00",
        "/metrics%E2%80%A8",
        "/metrics/",
        "//metrics",
        "/./metrics",
        "/%2e/metrics",
        "/%6Detrics",
        "/metrics%2F",
        "/metrics%250A",
        "/METRICS",
        "/v1/../metrics",
        "/metrics;x",
        "/metrics%3Fx",
    ],
)
def test_no_spelling_of_the_path_shows_the_figures_without_their_scope(
    gated: Gated, folder: Path, path: str
) -> None:
    key = key_with(folder, "generate")[0]
    gated.access.keys.refresh()
    answer = raw_answer(gated, f"GET {path} HTTP/1.1", key)
    assert re.match(r"HTTP/1.1 40[34] ", answer)
    assert "asclepius_serving" not in answer
    assert re.search(r'"code":"(missing_scope|not_found)"|"detail":"Not Found"', answer)


@pytest.mark.parametrize("root", ["", "/clinic"])
def test_the_scope_is_that_of_the_route_below_any_root(folder: Path, root: str) -> None:
    key = key_with(folder, "generate")[0]
    access = access_of(folder)
    gate = Gate(Starlette(routes=[metrics_route(access.meters).mounted]), access)

    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(gate, root_path=root)
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            headers = {"Authorization": f"Bearer {key}"}
            paths = (f"{root}/metrics", "/metrics", f"{root}{root}/metrics", f"{root}x/metrics")
            return [(await client.get(path, headers=headers)).status_code for path in paths]

    first, *others = asyncio.run(statuses())
    assert first == 403
    assert not {200, 500} & set(others)


def test_every_answer_carries_the_policies_and_none_is_kept(gated: Gated) -> None:
    for response in (
        ask(gated, content=b"abc"),
        ask(gated, "GET", "/none"),
        httpx.get(gated.url + "/v1/echo"),
    ):
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    ("sent", "is_kept"),
    [
        ("job-7.a:b_2", True),
        ("a" * 128, True),
        ("a" * 129, False),
        (f"{CANARY} has pain", False),
        ("", False),
    ],
)
def test_a_sane_request_id_is_kept_and_another_is_made_anew(gated: Gated, sent: str, is_kept: bool) -> None:
    found = ask(gated, "GET", "/v1/models/a", headers={"X-Request-Id": sent}).headers["x-request-id"]
    assert (found == sent) is is_kept
    assert re.fullmatch(r"[\w.:-]{1,128}", found)


def test_the_deadline_is_what_the_client_says_less_a_margin(gated: Gated) -> None:
    ask(gated, "GET", "/v1/models/a", headers={"X-Request-Timeout-Seconds": "10"})
    account = gated.seen[-1]
    assert account.deadline is not None
    assert account.deadline - account.started == pytest.approx(9, abs=0.01)
    ask(gated, "GET", "/v1/models/a")
    assert gated.seen[-1].deadline is None


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "nan", "inf", ""])
def test_a_deadline_that_is_no_time_is_refused(gated: Gated, seconds: str) -> None:
    response = ask(gated, "GET", "/v1/models/a", headers={"X-Request-Timeout-Seconds": seconds})
    assert response.status_code == 400
    assert "x-request-timeout-seconds" in response.json()["error"]["message"]


def test_nobody_can_ask_that_a_request_outlives_its_client(gated: Gated) -> None:
    response = ask(gated, headers={"X-Request-Disconnect-Disabled": "?1"}, content=b"abc")
    assert response.status_code == 400
    assert "disconnect" in response.json()["error"]["message"]


def test_a_body_beyond_the_limit_is_refused_announced_or_not(gated: Gated) -> None:
    large = CANARY.encode() * 400_000
    for content in (large, (large[at : at + 65536] for at in range(0, len(large), 65536))):
        response = ask(gated, content=content)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "request_too_large"
        assert CANARY not in response.text


def raw_answer(gated: Gated, first_line: str, key: str) -> str:
    """What comes for a request line as it is: a client would rewrite its path."""
    host, port = gated.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(
            f"{first_line}\r\nHost: x\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n\r\n".encode()
        )
        return read_all(connection)


def raw_request(gated: Gated, more: str) -> socket.socket:
    """A connection on which a POST has begun, with a body of ten bytes to come."""
    host, port = gated.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(
        f"POST /v1/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {OPERATOR_KEY}\r\n"
        f"Content-Length: 10\r\n\r\n{more}".encode()
    )
    return connection


def read_all(connection: socket.socket) -> str:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts).decode()


def test_a_body_that_does_not_come_is_dropped_and_holds_nothing(gated: Gated) -> None:
    started = time.monotonic()
    connections = [raw_request(gated, "abc") for _ in range(MAX_OPEN)]
    time.sleep(0.2)
    assert gated.admission.num_open == 0
    full = ask(gated, content=b"abc")
    assert (full.status_code, full.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    answers = [read_all(connection) for connection in connections]
    assert all(" 408 " in answer.splitlines()[0] and "request_timeout" in answer for answer in answers)
    assert time.monotonic() - started < BODY_SECONDS + 20
    assert ask(gated, content=b"abc").status_code == 200


def test_the_figures_are_shown_while_a_replica_takes_nothing_more(gated: Gated) -> None:
    connections = [raw_request(gated, "abc") for _ in range(MAX_OPEN)]
    time.sleep(0.2)
    assert ask(gated, "GET", "/v1/models/a").status_code == 429
    assert ask(gated, "GET", "/metrics").status_code == 200
    for connection in connections:
        read_all(connection)


def test_a_body_announced_with_thousands_of_digits_is_too_large() -> None:
    async def announce() -> None:
        scope = {"headers": [(b"content-length", b"1" * 5000)]}
        BodyGuard(scope, _receive_nothing, 1.0)

    with pytest.raises(ApiError, match="larger than 4 MiB"):
        asyncio.run(announce())


async def _receive_nothing() -> Message:
    raise AssertionError("nobody reads such a body")


def test_a_replica_that_cannot_check_keys_is_not_ready_and_alive(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b"{")
    access = access_of(tmp_path)
    with serving(Gated(access, Admission())) as closed:
        for path, key in (("/health/ready", "none"), ("/v1/models/a", "any-other-key")):
            response = httpx.get(closed.url + path, headers={"Authorization": f"Bearer {key}"})
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "keys_unavailable"
        assert httpx.get(closed.url + "/health/live").status_code == 200
        (tmp_path / "keys.json").unlink()
        key_with(tmp_path, "generate")
        access.keys.refresh()
        assert httpx.get(closed.url + "/health/ready").status_code == 200


def test_an_answer_may_take_longer_than_a_body_may(gated: Gated) -> None:
    gated.token_seconds = BODY_SECONDS / 6
    try:
        assert ask(gated, content=b"abc").text == "x" * 10
    finally:
        gated.token_seconds = 0.0


def preflight(gated: Gated, origin: str) -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-stainless-os",
    }
    return httpx.options(gated.url + "/v1/echo", headers=headers)


def test_a_named_origin_may_ask_and_another_may_not(gated: Gated) -> None:
    allowed = preflight(gated, ALLOWED_ORIGIN)
    assert allowed.status_code == 204
    assert allowed.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    assert allowed.headers["access-control-allow-headers"] == "authorization, content-type, x-stainless-os"
    assert allowed.headers["vary"] == "Origin"
    answered = ask(gated, headers={"Origin": ALLOWED_ORIGIN}, content=b"abc")
    assert answered.headers["access-control-allow-origin"] == ALLOWED_ORIGIN
    refused = httpx.post(gated.url + "/v1/echo", headers={"Origin": ALLOWED_ORIGIN})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == ALLOWED_ORIGIN, "else a page cannot read it"
    for origin in ("https://evil.example", f"{ALLOWED_ORIGIN}.evil.example", "http://ehr.example", "null"):
        other = preflight(gated, origin)
        assert other.status_code == 401
        assert "access-control-allow-origin" not in other.headers
    for response in (allowed, answered, refused):
        assert "access-control-allow-credentials" not in response.headers


def test_without_a_setting_no_other_origin_is_answered() -> None:
    with serving(Gated(access_of(), Admission())) as closed:
        assert preflight(closed, ALLOWED_ORIGIN).status_code == 401
        answered = ask(closed, headers={"Origin": ALLOWED_ORIGIN}, content=b"abc")
        assert not [name for name in answered.headers if name.startswith("access-control")]


def test_an_audit_line_says_all_of_a_request_and_nothing_of_its_text(gated: Gated, folder: Path) -> None:
    key, key_id = key_with(folder, "generate")
    gated.access.keys.refresh()
    content = CANARY.encode()
    line = line_of(folder, ask(gated, headers={"Authorization": f"Bearer {key}"}, content=content))
    assert set(line) == AUDIT_FIELDS
    expected = {
        "key": key_id,
        "route": "/v1/echo",
        "model": "tiny",
        "status": 200,
        "prompt_tokens": len(content),
        "completion_tokens": 10,
        "queue_ms": 0.0,
        "outcome": "stop",
    }
    assert {name: line[name] for name in expected} == expected
    assert 0 < float(str(line["first_token_ms"])) <= float(str(line["total_ms"]))
    file = next((folder / "audit").iterdir())
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_route_is_written_as_its_template_and_an_unknown_one_not_at_all(gated: Gated, folder: Path) -> None:
    known, unknown = (ask(gated, "GET", path) for path in (f"/v1/models/{CANARY}", f"/v1/{CANARY}"))
    assert line_of(folder, known)["route"] == "/v1/models/{name:path}"
    line = line_of(folder, unknown)
    assert (line["route"], line["status"], line["outcome"]) == ("(none)", 404, "refused")


def test_refused_requests_have_their_line_too(gated: Gated, folder: Path) -> None:
    for response, outcome in (
        (httpx.post(gated.url + "/v1/echo"), "key"),
        (ask(gated, headers={"X-Request-Timeout-Seconds": "x"}), "header"),
        (ask(gated, content=b"a" * (5 << 20)), "body"),
        (ask(gated, headers={"X-Request-Timeout-Seconds": "0.00001"}, content=b"abc"), "deadline"),
    ):
        line = line_of(folder, response)
        assert (line["status"], line["outcome"]) == (response.status_code, outcome)


def test_a_client_that_goes_away_is_written_down_as_gone(gated: Gated, folder: Path) -> None:
    gated.token_seconds = 0.05
    try:
        with httpx.stream(
            "POST",
            gated.url + "/v1/echo",
            content=b"abc",
            headers={"Authorization": f"Bearer {OPERATOR_KEY}"},
        ) as response:
            next(response.iter_raw())
        line = line_of(folder, response)
    finally:
        gated.token_seconds = 0.0
    assert line["outcome"] == "cancelled"
    assert 0 < int(str(line["completion_tokens"])) < 10


def test_no_text_and_no_key_stands_in_lines_logs_or_figures(
    gated: Gated, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "ask_" + "s" * 43
    with caplog.at_level(logging.DEBUG):
        ask(gated, content=CANARY.encode())
        ask(gated, "GET", f"/{CANARY}?note={CANARY}", headers={"X-Request-Id": f"{CANARY} x"})
        ask(gated, headers={"Authorization": f"Bearer {secret}", "X-Request-Timeout-Seconds": CANARY})
        ask(gated, headers={"X-Request-Timeout-Seconds": CANARY})
    kept = "".join(file.read_text() for file in (folder / "audit").iterdir())
    ours = "".join(record.getMessage() for record in caplog.records if record.name.startswith("ray.serve"))
    assert ours.count("answered") >= 4
    for text in (kept, ours, ask(gated, "GET", "/metrics").text):
        assert CANARY not in text
        assert secret not in text
        assert OPERATOR_KEY not in text
        assert hash_key(OPERATOR_KEY) not in text


def test_the_figures_say_what_was_admitted_and_refused_and_why(gated: Gated) -> None:
    ask(gated, content=b"abcde")
    httpx.post(gated.url + "/v1/echo")
    response = ask(gated, "GET", "/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    figures = dict(line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    prefix = "asclepius_serving"
    assert float(figures[f'{prefix}_admitted_requests_total{{model="tiny"}}']) >= 1
    assert float(figures[f'{prefix}_completion_tokens_total{{model="tiny"}}']) >= 10
    assert float(figures[f'{prefix}_prompt_tokens_total{{model="tiny"}}']) >= 5
    assert float(figures[f'{prefix}_refused_requests_total{{model="",reason="key"}}']) >= 1
    assert float(figures[f'{prefix}_first_token_seconds_count{{model="tiny"}}']) >= 1
    assert float(figures[f'{prefix}_token_seconds_count{{model="tiny"}}']) >= 1
    assert float(figures[f'{prefix}_queue_seconds_count{{model="tiny"}}']) >= 1
    assert float(figures[f'{prefix}_running_requests{{model="tiny"}}']) == 0
    assert float(figures[f'{prefix}_http_requests_total{{route="/v1/echo",status="200"}}']) >= 1


def test_limits_and_draining_are_refused_with_when_to_come_again(folder: Path) -> None:
    access = access_of(folder)
    key, _ = key_with(folder, "generate", limits=KeyLimits(requests_per_minute=60))
    access.keys.refresh()
    with serving(Gated(access, Admission(limits=access.limits))) as limited:
        headers = {"Authorization": f"Bearer {key}"}
        assert ask(limited, headers=headers, content=b"abc").status_code == 200
        refused = ask(limited, headers=headers, content=b"abc")
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert ask(limited, content=b"abc").status_code == 200, "the operator's key has no limits"
        time.sleep(int(refused.headers["retry-after"]))
        assert ask(limited, headers=headers, content=b"abc").status_code == 200
        limited.admission.drain()
        drained = ask(limited, content=b"abc")
        assert (drained.status_code, drained.json()["error"]["code"]) == (503, "draining")
        assert int(drained.headers["retry-after"]) >= 1
