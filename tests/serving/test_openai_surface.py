"""The HTTP surface as its clients see it: the official client, real models, a real cluster."""

import asyncio
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import ray
from served_models import (
    CANARY,
    CONTEXT_TOKENS,
    LONG_ANSWER,
    SHORT_ANSWER,
    Served,
    chat_ids,
    generate_greedily,
)
from transformers import AutoTokenizer

from asclepius_ray.prompts.rendering import render_instruction
from asclepius_ray.serving.engines.engine import EngineStats
from asclepius_ray.tokens.rendering import prompt_ids, shorten_note

QUESTION = f"What is the diagnosis of {CANARY}?"
NOTE = f"A 63-year-old man named {CANARY} came with chest pain. Troponin was 2.4 ng/mL. Aspirin was given."


def post(served: Served, path: str, body: object, headers: dict[str, str] | None = None) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = served.headers if headers is None else headers
    return httpx.post(served.url(path), content=content, headers=sent, timeout=60)


def chat_body(**changes: object) -> dict[str, Any]:
    return {"model": "trained", "messages": LONG_ANSWER, "max_tokens": 4, **changes}


def greedy_answer(served: Served, messages: list[dict[str, str]], max_tokens: int) -> tuple[list[int], str]:
    """The answer's ids and text by the model alone, and never empty."""
    tokenizer = AutoTokenizer.from_pretrained(served.folders["trained"])
    generated = generate_greedily(served.folders["trained"], chat_ids(tokenizer, messages), max_tokens)
    decoded = tokenizer.decode(generated, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert decoded
    return generated, decoded


def ask(served: Served, stream: bool, **changes: object) -> tuple[str, str, Any]:
    """Text, finish reason and usage of one greedy completion, streamed or not."""
    body = {"temperature": 0, **chat_body(**changes)}
    if not stream:
        whole = served.client().chat.completions.create(**body)
        choice = whole.choices[0]
        return choice.message.content or "", choice.finish_reason, whole.usage
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(served.client().chat.completions.create(**body))
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert [choice.finish_reason for choice in choices[:-1]] == [None] * (len(choices) - 1)
    text = "".join(choice.delta.content or "" for choice in choices)
    return text, choices[-1].finish_reason or "", chunks[-1].usage


def engine_stats(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(served.url("/health/ready")).json()
    return found


def wait_until_idle(served: Served, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if engine_stats(served)["running_requests"] == 0:
            return True
        time.sleep(0.05)
    return False


def test_the_served_model_is_listed_by_its_name(served: Served) -> None:
    assert [model.id for model in served.client().models.list()] == ["trained"]
    assert served.client().models.retrieve("trained").id == "trained"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_greedy_completion_is_what_the_model_generates_alone(served: Served, stream: bool) -> None:
    ids, expected = greedy_answer(served, LONG_ANSWER, 40)
    text, finish_reason, usage = ask(served, stream, max_tokens=40)
    assert (text, finish_reason, usage.completion_tokens) == (expected, "length", len(ids))
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_end_token_ends_the_answer_and_is_not_shown(served: Served, stream: bool) -> None:
    ids, expected = greedy_answer(served, SHORT_ANSWER, 200)
    assert len(ids) < 200, "the tiny model never ends its answer: the test shows nothing"
    text, finish_reason, usage = ask(served, stream, messages=SHORT_ANSWER, max_tokens=200)
    assert (text, finish_reason, usage.completion_tokens) == (expected, "stop", len(ids))


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_stop_string_over_a_token_border_ends_the_answer(served: Served, stream: bool) -> None:
    ids, whole = greedy_answer(served, LONG_ANSWER, 40)
    tokenizer = AutoTokenizer.from_pretrained(served.folders["trained"])
    pieces = [tokenizer.decode([token]) for token in ids]
    border = next(
        at
        for at in range(5, len(ids) - 5)
        if all(p.isascii() and p.isprintable() for p in pieces[at : at + 2])
    )
    stop = pieces[border][-1] + pieces[border + 1][0]
    expected = whole[: whole.index(stop)]
    text, finish_reason, usage = ask(served, stream, max_tokens=40, stop=["never in it", stop])
    assert (text, finish_reason) == (expected, "stop")
    assert usage.completion_tokens < len(ids)


def test_answers_made_together_are_those_made_alone(served: Served) -> None:
    prompts = [[{"role": "user", "content": "pain " * count}] for count in range(1, 8)]
    alone = [ask(served, False, messages=prompt, max_tokens=24)[0] for prompt in prompts]

    async def ask_all() -> list[str]:
        async with openai.AsyncOpenAI(
            base_url=served.base_urls["trained"], api_key=served.api_key, max_retries=0
        ) as client:
            requests = [
                client.chat.completions.create(model="trained", messages=prompt, max_tokens=24, temperature=0)
                for prompt in prompts
            ]
            return [whole.choices[0].message.content or "" for whole in await asyncio.gather(*requests)]

    assert asyncio.run(ask_all()) == alone
    assert len(set(alone)) > 1


def test_sampling_varies_and_a_narrow_top_p_does_not(served: Served) -> None:
    def texts(**settings: object) -> set[str]:
        return {ask(served, False, max_tokens=16, **settings)[0] for _ in range(4)}

    assert len(texts(temperature=1.5)) > 1
    assert texts(temperature=1.5, top_p=0.0) == {greedy_answer(served, LONG_ANSWER, 16)[1]}


def test_two_models_are_served_at_once_each_under_its_name(served: Served) -> None:
    body = {"messages": LONG_ANSWER, "max_tokens": 16, "temperature": 0}
    texts = {
        name: served.client(name).chat.completions.create(model=name, **body).choices[0].message.content
        for name in ("trained", "untrained")
    }
    assert texts["trained"] != texts["untrained"]
    with pytest.raises(openai.NotFoundError) as refused:
        served.client("untrained").chat.completions.create(model="trained", **body)
    assert refused.value.code == "model_not_found"


def test_the_clinical_route_answers_the_exact_prompt_of_the_training(served: Served) -> None:
    tokenizer = AutoTokenizer.from_pretrained(served.folders["trained"])
    ids = prompt_ids(tokenizer, NOTE, QUESTION)
    generated = generate_greedily(served.folders["trained"], ids, served.max_new_tokens)
    found = post(served, "/v1/clinical/answers", {"note": NOTE, "question": QUESTION}).json()
    assert found["answer"] == tokenizer.decode(generated, skip_special_tokens=True)
    assert found["usage"]["prompt_tokens"] == len(ids)
    assert (found["model"], found["note_was_shortened"]) == ("trained", False)
    turn = [{"role": "user", "content": render_instruction(NOTE, QUESTION)}]
    text, _, usage = ask(served, False, messages=turn, max_tokens=served.max_new_tokens)
    assert (text, usage.prompt_tokens) == (found["answer"], len(ids))


def test_a_note_that_is_too_long_is_shortened_and_the_answer_says_so(served: Served) -> None:
    note = "\n".join(f"Day {day}: {CANARY} had a temperature of 38.{day % 10} °C." for day in range(300))
    tokenizer = AutoTokenizer.from_pretrained(served.folders["trained"])
    limit = CONTEXT_TOKENS - served.max_new_tokens
    kept = shorten_note(tokenizer, note, QUESTION, limit)
    found = post(served, "/v1/clinical/answers", {"note": note, "question": QUESTION}).json()
    assert found["note_was_shortened"] is True
    assert found["usage"]["prompt_tokens"] == len(prompt_ids(tokenizer, kept, QUESTION)) <= limit


CHAT, CLINICAL = "/v1/chat/completions", "/v1/clinical/answers"
LONG = [{"role": "user", "content": f"{CANARY} " * CONTEXT_TOKENS}]
REFUSED = {
    "not JSON": (CHAT, b'{"model": "trained", zebrafinch-canary', 400, "invalid_json", None),
    "not an object": (CHAT, [CANARY], 400, "invalid_json", None),
    "no messages": (CHAT, {"model": "trained"}, 400, "missing_required_parameter", "messages"),
    "empty messages": (CHAT, chat_body(messages=[]), 400, "invalid_value", "messages"),
    "unknown parameter": (CHAT, chat_body(temprature=1), 400, "unknown_parameter", "temprature"),
    "text as a parameter": (CHAT, chat_body(**{f"{CANARY} has pain": 1}), 400, "unknown_parameter", "(name)"),
    "seed": (CHAT, chat_body(seed=1), 400, "unsupported_parameter", "seed"),
    "n": (CHAT, chat_body(n=2), 400, "unsupported_parameter", "n"),
    "logprobs": (CHAT, chat_body(logprobs=True), 400, "unsupported_parameter", "logprobs"),
    "tools": (CHAT, chat_body(tools=[{"type": CANARY}]), 400, "unsupported_parameter", "tools"),
    "role": (
        CHAT,
        chat_body(messages=[{"role": CANARY, "content": ""}]),
        400,
        "invalid_value",
        "messages.0.role",
    ),
    "content": (
        CHAT,
        chat_body(messages=[{"role": "user", "content": [CANARY]}]),
        400,
        "invalid_type",
        "messages.0.content",
    ),
    "half a character": (
        CHAT,
        b'{"model": "trained", "messages": [{"role": "user", "content": "zebrafinch-canary \\ud800"}]}',
        400,
        "invalid_json",
        None,
    ),
    "deep nesting": (CHAT, b'{"messages": ' + b"[" * 100_000, 400, "invalid_json", None),
    "not a number": (CHAT, b'{"model": "trained", "temperature": NaN}', 400, "invalid_json", None),
    "temperature": (CHAT, chat_body(temperature=3), 400, "invalid_value", "temperature"),
    "temperature text": (CHAT, chat_body(temperature=CANARY), 400, "invalid_type", "temperature"),
    "max_tokens": (CHAT, chat_body(max_tokens=0), 400, "invalid_value", "max_tokens"),
    "both limits": (CHAT, chat_body(max_completion_tokens=4), 400, "invalid_value", "max_tokens"),
    "stop": (CHAT, chat_body(stop=["a", "b", "c", "d", "e"]), 400, "invalid_value", "stop"),
    "empty stop": (CHAT, chat_body(stop=""), 400, "invalid_value", "stop"),
    "stream_options": (CHAT, chat_body(stream_options={}), 400, "invalid_value", "stream_options"),
    "model": (CHAT, chat_body(model=CANARY), 404, "model_not_found", "model"),
    "long prompt": (CHAT, chat_body(messages=LONG), 400, "context_length_exceeded", "messages"),
    "long answer": (CHAT, chat_body(max_tokens=CONTEXT_TOKENS), 400, "context_length_exceeded", "messages"),
    "large body": (CHAT, CANARY.encode() * 400_000, 413, "request_too_large", None),
    "route": ("/v1/completions", chat_body(), 404, "not_found", None),
    "no note": (CLINICAL, {"question": CANARY}, 400, "missing_required_parameter", "note"),
    "empty note": (CLINICAL, {"note": "", "question": CANARY}, 400, "invalid_value", "note"),
    "clinical extra": (
        CLINICAL,
        {"note": CANARY, "question": CANARY, "top_k": 1},
        400,
        "unknown_parameter",
        "top_k",
    ),
    "long question": (
        CLINICAL,
        {"note": NOTE, "question": f"{CANARY} " * CONTEXT_TOKENS},
        400,
        "context_length_exceeded",
        "question",
    ),
}


@pytest.mark.parametrize(("path", "body", "status", "code", "param"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_request_is_refused_by_name_and_its_text_is_not_repeated(
    served: Served, path: str, body: object, status: int, code: str, param: str | None
) -> None:
    response = post(served, path, body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (status, code, param)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert CANARY not in response.text + str(response.headers)


def test_values_that_change_nothing_are_taken(served: Served) -> None:
    body = chat_body(n=1, logprobs=False, presence_penalty=0, stop=None, seed=None, stream=False)
    assert post(served, CHAT, body).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic test-key-nothing-secret-4711"},
        {"X-Api-Key": "test-key-nothing-secret-4711"},
    ],
    ids=["no key", "wrong key", "empty key", "another scheme", "another header"],
)
@pytest.mark.parametrize(
    "path", [CHAT, CLINICAL, "/v1/models", "/docs", "/openapi.json", "/nothing", "/health/x"]
)
def test_nothing_answers_without_the_key(served: Served, path: str, headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        response = httpx.request(method, served.url(path), headers=headers, json=chat_body(), timeout=60)
        assert response.status_code == 401
        assert response.json()["error"]["code"] == "invalid_api_key"


def test_health_is_open_and_holds_no_more_than_counts(served: Served) -> None:
    response = httpx.get(served.url("/health/ready"))
    assert response.status_code == 200
    assert set(response.json()) == {
        "status",
        "keys",
        *(field.name for field in dataclasses.fields(EngineStats)),
    }


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_client_that_goes_away_ends_the_generation(served: Served, stream: bool) -> None:
    assert wait_until_idle(served, 20)
    before = engine_stats(served)["generated_tokens"]
    body = chat_body(stream=stream, max_tokens=CONTEXT_TOKENS - 200, temperature=0)
    with httpx.Client(timeout=httpx.Timeout(60, read=60 if stream else 0.5)) as client:
        if stream:
            with client.stream("POST", served.url(CHAT), json=body, headers=served.headers) as response:
                next(response.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(served.url(CHAT), json=body, headers=served.headers)
    assert wait_until_idle(served, 3)
    assert engine_stats(served)["generated_tokens"] - before < body["max_tokens"] / 2


def test_beyond_the_limit_a_request_is_refused_with_retry_after(served: Served) -> None:
    assert wait_until_idle(served, 20)
    body = chat_body(stream=True, max_tokens=1500, temperature=0)

    async def fill_and_ask() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(headers=served.headers, timeout=60, limits=limits) as client:
            streams = [
                await client.send(client.build_request("POST", served.url(CHAT), json=body), stream=True)
                for _ in range(served.max_concurrent_requests)
            ]
            assert [stream.status_code for stream in streams] == [200] * len(streams)
            refused = await client.post(served.url(CHAT), json=chat_body())
            health = await client.get(served.url("/health/ready"))
            for stream in streams:
                await stream.aclose()
            return [refused, health]

    refused, health = asyncio.run(fill_and_ask())
    assert refused.status_code == 429
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert health.status_code == 200
    assert wait_until_idle(served, 5)
    assert post(served, CHAT, chat_body()).status_code == 200


def test_a_long_note_does_not_hold_up_the_others(served: Served) -> None:
    note = f"{NOTE}\n" * 10_000

    async def ask_both() -> tuple[httpx.Response, list[float]]:
        async with httpx.AsyncClient(headers=served.headers, timeout=120) as client:
            asked = asyncio.create_task(
                client.post(served.url(CLINICAL), json={"note": note, "question": QUESTION})
            )
            waits = []
            while not asked.done():
                started = time.monotonic()
                assert (await client.get(served.url("/health/ready"))).status_code == 200
                waits.append(time.monotonic() - started)
                await asyncio.sleep(0.05)
            return await asked, waits

    started = time.monotonic()
    answer, waits = asyncio.run(ask_both())
    total_seconds = time.monotonic() - started
    assert answer.json()["note_was_shortened"]
    assert max(waits) < total_seconds / 3, f"{max(waits):.1f} of {total_seconds:.1f} s"


def test_neither_text_nor_key_stands_in_a_log_and_every_answer_has_its_line(served: Served) -> None:
    whole = served.client().chat.completions.create(**chat_body())
    post(served, CLINICAL, {"note": NOTE, "question": QUESTION})
    time.sleep(1)
    logs = Path(ray._private.worker._global_node.get_session_dir_path()) / "logs"
    texts = {file: file.read_text(errors="replace") for file in logs.rglob("*") if file.is_file()}
    lines = [line for text in texts.values() for line in text.splitlines() if whole.id in line]
    assert len(lines) == 1
    assert f'"prompt_tokens": {whole.usage.prompt_tokens}' in lines[0]
    for file, text in texts.items():
        assert CANARY not in text, file.name
        assert served.api_key not in text, file.name
