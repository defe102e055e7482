"""What a reply means and how long to wait: pure functions."""

import random
from datetime import UTC, datetime

import pytest

from asclepius_ray.chat.config import EndpointConfig, SamplingConfig
from asclepius_ray.chat.endpoint import Endpoint, check_trusted, is_loopback
from asclepius_ray.chat.replies import Refusal, read_refusal, read_reply
from asclepius_ray.chat.retry_after import LONGEST_BACKOFF_SECONDS, backoff_seconds, retry_after_seconds
from asclepius_ray.errors import ConfigError

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
SENT = {"model", "messages", "temperature", "max_tokens", "top_k"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Thu, 01 Jan 2026 12:00:30 GMT"}, 30.0),
        ({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-3"}, None),
        ({"retry-after": "nan"}, None),
        ({}, None),
    ],
    ids=["seconds", "fraction", "milliseconds first", "date", "past", "word", "negative", "nan", "none"],
)
def test_retry_after_is_read_in_all_its_forms(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after_seconds(headers, NOW) == seconds


def test_backoff_doubles_up_to_its_limit() -> None:
    waits = [backoff_seconds(tries, random.Random(1)) for tries in range(1, 40)]
    assert 0.25 <= waits[0] <= 0.5
    assert waits[3] > waits[0]
    assert max(waits) <= LONGEST_BACKOFF_SECONDS
    assert len({backoff_seconds(3, random.Random(seed)) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("status", "error", "refusal"),
    [
        (429, {"code": "rate_limit_exceeded"}, Refusal.WAIT),
        (429, {"code": "insufficient_quota"}, Refusal.NO_QUOTA),
        (429, {"type": "insufficient_quota"}, Refusal.NO_QUOTA),
        (402, {}, Refusal.NO_QUOTA),
        (401, {}, Refusal.BAD_KEY),
        (403, {}, Refusal.BAD_KEY),
        (404, {}, Refusal.NOT_FOUND),
        (405, {}, Refusal.NO_CHAT_ENDPOINT),
        (307, {}, Refusal.NO_CHAT_ENDPOINT),
        (408, {}, Refusal.RETRY_TIMEOUT),
        (503, None, Refusal.RETRY_SERVER_ERROR),
        (529, "overloaded", Refusal.RETRY_SERVER_ERROR),
        (400, {"code": "context_length_exceeded", "param": "messages"}, Refusal.CONTEXT_TOO_LONG),
        (400, {"message": "This model's maximum context length is 9", "code": 400}, Refusal.CONTEXT_TOO_LONG),
        (400, {"code": "content_filter"}, Refusal.CONTENT_FILTER),
        (400, {"code": "unsupported_parameter", "param": "max_tokens"}, Refusal.RENAME_MAX_TOKENS),
        (400, {"code": "unsupported_value", "param": "temperature"}, Refusal.DROP_TEMPERATURE),
        (400, {"code": "unknown", "param": "messages"}, Refusal.BAD_REQUEST),
        (400, {"param": "a secret that the server echoes"}, Refusal.BAD_REQUEST),
        (422, None, Refusal.BAD_REQUEST),
    ],
    ids=str,
)
def test_a_status_is_read_as_what_it_asks_of_the_client(status: int, error: object, refusal: Refusal) -> None:
    read, parameter = read_refusal(status, error, SENT)
    assert read is refusal
    assert parameter in {"", *SENT}


@pytest.mark.parametrize(
    "body",
    [b"", b"no json", b"[]", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b'{"choices": [7]}',
     b'{"choices": [{"message": {"content": {"a": 1}}}]}', b'{"choices": {"0": 1}}', b"\xff\xfe",
     b'{"choices": ' + 100_000 * b"["],
    ids=range(11),
)  # fmt: skip
def test_a_malformed_body_is_no_reply(body: bytes) -> None:
    assert read_reply(body) is None


def test_a_reply_without_usage_has_unknown_tokens() -> None:
    reply = read_reply(b'{"choices": [{"message": {"content": "a"}}], "usage": null}')
    assert reply is not None
    assert (reply.text, reply.prompt_tokens, reply.completion_tokens) == ("a", None, None)


def test_real_notes_go_to_no_host_that_nobody_allowed() -> None:
    config = EndpointConfig(
        base_url="https://api.example.com/v1", model="m", trusted_hosts=("other.example.com",)
    )
    with pytest.raises(ConfigError, match=r"api\.example\.com.*trusted_hosts"):
        check_trusted(config, started_by_run=False)


@pytest.mark.parametrize(
    "config",
    [
        EndpointConfig(base_url="offline"),
        EndpointConfig(base_url="http://127.0.0.1:8000/v1"),
        EndpointConfig(base_url="http://[::1]:8000/v1"),
        EndpointConfig(base_url="http://localhost:8000/v1"),
        EndpointConfig(base_url="https://API.example.com./v1", trusted_hosts=("api.example.com",)),
    ],
    ids=lambda config: config.base_url,
)
def test_real_notes_go_to_loopback_and_to_trusted_hosts(config: EndpointConfig) -> None:
    assert check_trusted(config, started_by_run=False) is None


def test_real_notes_go_to_what_the_run_started() -> None:
    config = EndpointConfig(base_url="http://10.0.0.7:8000/v1", model="m")
    assert check_trusted(config, started_by_run=True) is None


@pytest.mark.parametrize(
    "url", ["http://localhost.evil.com/v1", "http://127.0.0.1.evil.com/v1", "http://10.0.0.1/v1"]
)
def test_a_name_that_only_looks_like_loopback_is_none(url: str) -> None:
    assert not is_loopback(url)


@pytest.mark.parametrize("url", ["", "api.example.com/v1", "ftp://host/v1", "http:///v1", "http://[::1/v1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        Endpoint.from_config(EndpointConfig(base_url=url, model="m"), url, "")


@pytest.mark.parametrize("key", ["sk-\u043a\u043b\u044e\u0447", "sk-first\nsecond"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    config = EndpointConfig(base_url="http://localhost/v1", model="m")
    with pytest.raises(ConfigError, match="API key") as caught:
        Endpoint.from_config(config, config.base_url, key)
    assert "sk-" not in str(caught.value)


def test_each_step_has_its_own_sampling() -> None:
    config = EndpointConfig(
        base_url="http://localhost/v1", sampling={"note": SamplingConfig(temperature=0.3)}
    )
    endpoint = Endpoint.from_config(config, config.base_url, "")
    assert endpoint.sampling_of("note").temperature == 0.3
    assert endpoint.sampling_of("answer").temperature == 1.0
    assert endpoint.sampling_of("judge").temperature == 0.0


def test_a_judge_with_a_length_of_its_own_still_says_the_likeliest() -> None:
    config = EndpointConfig(
        base_url="http://localhost/v1", sampling={"judge": SamplingConfig(max_tokens=2000)}
    )
    sampling = Endpoint.from_config(config, config.base_url, "").sampling_of("judge")
    assert (sampling.temperature, sampling.max_tokens) == (0.0, 2000)
