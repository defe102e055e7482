"""The guard behind a real HAProxy: a cut stream ends in words, and a guard that dies comes back."""

import json
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from canaries import leaking_files
from proxy_here import ACTOR, ProxyHere, wait_until
from replicas_here import Replicas
from streaming_replica import NUM_EVENTS_HEADER

from asclepius_ray.serving.proxy.event_relay import ERROR_EVENT
from asclepius_ray.serving.proxy.launch import GUARD_LOG, set_guard
from asclepius_ray.serving.proxy.rewriting import GUARD_SOCKET, INNER_SOCKET

STREAM = "/v1/stream"
BODY = b"x" * (2 << 20)


def events_until_killed(proxy: ProxyHere, replicas: Replicas, headers: dict[str, str]) -> list[str]:
    """The events of a stream whose replica is killed when five of them are here."""
    text = ""
    url = proxy.address + STREAM
    with httpx.stream("POST", url, content=BODY, headers=headers, timeout=60) as answer:
        assert answer.status_code == 200
        for piece in answer.iter_text():
            text += piece
            if text.count("\n\n") == 5:
                replicas.kill(int(answer.headers["x-replica"]))
    return text.split("\n\n")


def assert_ends_in_words(events: list[str]) -> None:
    assert events.pop() == "", "the last event is not whole"
    assert events.pop() + "\n\n" == ERROR_EVENT.decode()
    assert 5 <= len(events) < 2000
    for number, event in enumerate(events):
        assert json.loads(event.removeprefix("data: "))["number"] == number


@pytest.mark.parametrize("headers", [{}, {"Expect": "100-continue"}], ids=["plain", "100-continue"])
def test_a_stream_whose_replica_dies_ends_with_an_error_event(
    proxy: ProxyHere, replicas: Replicas, headers: dict[str, str]
) -> None:
    assert_ends_in_words(events_until_killed(proxy, replicas, headers))


def test_a_stream_arrives_whole_and_every_other_answer_as_it_is(proxy: ProxyHere) -> None:
    headers = {NUM_EVENTS_HEADER: "20"}
    text = httpx.post(proxy.address + STREAM, content=BODY, headers=headers, timeout=60).text
    events = text.split("\n\n")
    assert events[20:] == ["data: [DONE]", ""]
    assert [json.loads(event.removeprefix("data: "))["number"] for event in events[:20]] == list(range(20))
    assert isinstance(httpx.post(f"{proxy.address}/headers", content=b"{}", timeout=60).json(), list)


def test_a_client_that_leaves_ends_the_request_at_the_replica(proxy: ProxyHere, replicas: Replicas) -> None:
    with httpx.stream("POST", proxy.address + STREAM, content=b"{}", timeout=60) as answer:
        pieces = answer.iter_bytes()
        next(pieces)
        assert replicas.num_open() == 1
    wait_until(lambda: replicas.num_open() == 0, "the replica's stream ends")


def test_a_guard_that_is_killed_comes_back_and_the_log_says_so(proxy: ProxyHere, replicas: Replicas) -> None:
    keeper, standing = proxy.guards()
    standing.send_signal(signal.SIGKILL)
    url = proxy.address + STREAM
    # HAProxy may take a moment to go straight on, and retries what it could not deliver.
    wait_until(lambda: httpx.post(url, headers={NUM_EVENTS_HEADER: "1"}, timeout=60).is_success, "an answer")
    wait_until(lambda: len(proxy.guards()) == 2 and standing not in proxy.guards(), "another guard")
    assert proxy.guards()[0] == keeper
    proxy.wait_for_guard()
    assert "the guard ended with exit code -9" in (proxy.folder / GUARD_LOG).read_text()
    assert_ends_in_words(events_until_killed(proxy, replicas, {}))


def test_a_proxy_that_has_a_guard_gets_no_second_one(proxy: ProxyHere) -> None:
    before = proxy.guards()
    set_guard(proxy.folder, proxy.actors[-1].pid)
    wait_until(lambda: len(proxy.guards()) > len(before), "the other one is started")
    wait_until(lambda: proxy.guards() == before, "the other one ends")


def test_a_proxy_that_follows_at_once_gets_a_guard_of_its_own(proxy: ProxyHere, replicas: Replicas) -> None:
    earlier = proxy.guards()
    # The earlier one, which looks once a second whether its proxy lives, does not get to it yet.
    for each in earlier:
        each.suspend()
    proxy.end_actor()
    proxy.start(replicas.ports)
    ours = str(proxy.actors[-1].pid)
    wait_until(lambda: any(ours in each.cmdline() for each in proxy.guards()), "the new proxy's guard")
    time.sleep(1.0)
    for each in earlier:
        each.resume()
    wait_until(lambda: not any(each.is_running() for each in earlier), "the earlier guard ends")
    proxy.wait_for_guard()
    assert len(proxy.guards()) == 2
    assert all(ours in each.cmdline() for each in proxy.guards())
    assert_ends_in_words(events_until_killed(proxy, replicas, {}))


def test_haproxy_leaves_the_port_when_its_proxy_is_gone_and_ends_with_the_last_stream(
    replicas: Replicas,
) -> None:
    proxy = ProxyHere()
    proxy.start(replicas.ports)
    proxy.wait_for_guard()
    try:
        [haproxy] = proxy.haproxies()
        with httpx.stream("POST", proxy.address + STREAM, content=b"{}", timeout=60) as answer:
            pieces = answer.iter_bytes()
            next(pieces)
            # The actor alone, as Ray's end does; HAProxy does not notice it.
            proxy.actors[-1].kill()
            proxy.actors[-1].wait()
            wait_until(lambda: is_free(proxy.port), "the port is free")
            assert haproxy.is_running()
            next(pieces)
        wait_until(lambda: not haproxy.is_running(), "HAProxy ends")
    finally:
        proxy.close()


def test_haproxy_starts_where_the_folder_of_the_jobs_code_is_gone(replicas: Replicas, tmp_path: Path) -> None:
    leave_nothing = f"import os; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r}); "
    proxy = ProxyHere()
    try:
        proxy.start(replicas.ports, leave_nothing + ACTOR)
        proxy.wait_for_guard()
    finally:
        proxy.close()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _answer_one_request(inner: socket.socket, answer: bytes) -> None:
    # Only once the request is there: who answers and leaves before has the connection reset, not ended.
    connection, _ = inner.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(answer)


def test_what_the_guard_cannot_read_is_in_no_log(tmp_path: Path) -> None:
    folder = tmp_path
    answer = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        b"zebracanary\r\n"
    )
    with socket.socket(socket.AF_UNIX) as inner:
        inner.bind(str(folder / INNER_SOCKET))
        inner.listen()
        answering = threading.Thread(target=_answer_one_request, args=(inner, answer))
        answering.start()
        parent = psutil.Popen(["sleep", "60"])
        set_guard(folder, parent.pid)
        wait_until((folder / GUARD_SOCKET).exists, "the guard listens")
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(folder / GUARD_SOCKET))
            client.sendall(b"POST / HTTP/1.1\r\n\r\n")
            with client.makefile("rb") as answered:
                assert ERROR_EVENT in answered.read()
        answering.join()
    parent.kill()
    parent.wait()
    log = folder / GUARD_LOG
    wait_until(lambda: "ValueError" in log.read_text(), "the log says what failed")
    assert leaking_files(folder) == []
    assert log.stat().st_size < 1000
