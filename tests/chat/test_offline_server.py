"""The offline teacher as a server: what any OpenAI client meets."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import urllib.request

import httpx
import openai
import pytest

from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.offline.faults import Fault, Faults
from asclepius_ray.chat.offline.server import OfflineTeacher, serve_forever
from asclepius_ray.errors import ConfigError, EndpointError
from asclepius_ray.prompts.rendering import (
    render_answer_prompt,
    render_judge_prompt,
    render_note_prompt,
    render_question_prompt,
)
from asclepius_ray.records import Message, Task

NOTE = (
    "Hospital Course:\nA 40-year-old woman came with fever for 2 days. MRI showed an abscess. "
    "She was given vancomycin."
)


def chat_of(teacher: OfflineTeacher, api_key: str = "any") -> openai.OpenAI:
    return openai.OpenAI(base_url=teacher.base_url, api_key=api_key, max_retries=0)


def turns_of(messages: list[Message]) -> list[dict[str, str]]:
    return [{"role": turn.role, "content": turn.content} for turn in messages]


def test_the_official_client_gets_a_completion_of_the_rules() -> None:
    with OfflineTeacher() as teacher:
        reply = chat_of(teacher).chat.completions.create(
            model=OFFLINE_MODEL, messages=turns_of(render_note_prompt(NOTE))
        )
    assert reply.model == OFFLINE_MODEL
    assert reply.choices[0].finish_reason == "stop"
    assert "abscess" in reply.choices[0].message.content
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


def test_a_stream_holds_the_same_text_and_the_usage() -> None:
    ask = {"model": OFFLINE_MODEL, "messages": turns_of(render_note_prompt(NOTE))}
    with OfflineTeacher() as teacher:
        whole = chat_of(teacher).chat.completions.create(**ask)
        chunks = list(
            chat_of(teacher).chat.completions.create(
                **ask, stream=True, stream_options={"include_usage": True}
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


def test_the_list_of_models_says_that_these_are_rules() -> None:
    with OfflineTeacher() as teacher, urllib.request.urlopen(f"{teacher.base_url}/models") as reply:
        [model] = json.load(reply)["data"]
    assert model["id"] == OFFLINE_MODEL
    assert "not a language model" in model["description"].lower()


def test_a_key_is_asked_for_where_one_is_set() -> None:
    with OfflineTeacher(api_key="right") as teacher:
        assert chat_of(teacher, "right").models.list().data[0].id == OFFLINE_MODEL
        with pytest.raises(openai.AuthenticationError):
            chat_of(teacher, "wrong").models.list()
        with pytest.raises(openai.AuthenticationError):
            chat_of(teacher, "wrong").chat.completions.create(model=OFFLINE_MODEL, messages=[])


@pytest.mark.parametrize(
    ("change", "status", "code", "parameter"),
    [
        ({"messages": [{"role": "user", "content": "Hello"}]}, 400, "unknown_prompt", "messages"),
        ({"messages": []}, 400, "missing_required_parameter", "messages"),
        ({"model": "other"}, 404, "model_not_found", "model"),
        ({"tools": []}, 400, "unsupported_parameter", "tools"),
        ({"n": 2}, 400, "unsupported_parameter", "n"),
    ],
    ids=["no tag", "no messages", "other model", "tools", "two choices"],
)
def test_what_the_rules_cannot_do_is_refused_by_name(
    change: dict[str, object], status: int, code: str, parameter: str
) -> None:
    body = {"model": OFFLINE_MODEL, "messages": turns_of(render_note_prompt(NOTE)), **change}
    with OfflineTeacher() as teacher:
        reply = httpx.post(f"{teacher.base_url}/chat/completions", json=body)
    assert reply.status_code == status
    assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == (code, parameter)


def test_every_step_is_known_by_its_prompt_and_counted() -> None:
    prompts = [
        render_note_prompt(NOTE),
        render_question_prompt(NOTE, Task.SUMMARIZATION, ["Sum it up."]),
        render_answer_prompt(NOTE, "What did the MRI show?"),
        render_judge_prompt(NOTE, "What did the MRI show?", [("A", "An abscess."), ("B", "")]),
    ]
    with OfflineTeacher() as teacher:
        replies = [
            chat_of(teacher).chat.completions.create(model=OFFLINE_MODEL, messages=turns_of(prompt))
            for prompt in prompts
        ]
        assert teacher.requests_answered == {"note": 1, "question": 1, "answer": 1, "judge": 1}
    assert replies[3].choices[0].message.content in {"4 1", "3 1"}


def test_tags_inside_of_a_report_or_note_mean_nothing() -> None:
    text = f'{NOTE} <answer label="A">x</answer> <question>?</question> <examples>- n</examples>'
    prompts = [render_note_prompt(text), render_answer_prompt(text, "What did the MRI show?")]
    with OfflineTeacher() as teacher:
        for prompt in prompts:
            chat_of(teacher).chat.completions.create(model=OFFLINE_MODEL, messages=turns_of(prompt))
        assert teacher.requests_answered == {"note": 1, "answer": 1}


def test_a_rate_limit_is_told_with_retry_after() -> None:
    body = {"model": OFFLINE_MODEL, "messages": turns_of(render_note_prompt(NOTE))}
    with OfflineTeacher(faults=Faults(requests_per_minute=30)) as teacher:
        replies = [httpx.post(f"{teacher.base_url}/chat/completions", json=body) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 429]
    assert replies[1].headers["Retry-After"] in {"1", "2"}


def test_faults_strike_their_share_of_requests_and_always_the_same() -> None:
    faults = Faults(server_error=0.2, empty=0.1)
    drawn = [faults.draw(f"request {number}", 1) for number in range(2000)]
    assert drawn == [faults.draw(f"request {number}", 1) for number in range(2000)]
    assert drawn.count(Fault.SERVER_ERROR) == pytest.approx(400, abs=80)
    assert drawn.count(Fault.EMPTY) == pytest.approx(200, abs=60)
    assert len(set(drawn)) == 3


def test_a_lasting_fault_strikes_every_attempt_of_its_request() -> None:
    faults = Faults(empty=0.3, lasting=1)
    drawn = [{faults.draw(f"request {number}", attempt) for attempt in range(1, 5)} for number in range(100)]
    assert all(len(of_request) == 1 for of_request in drawn)
    assert {Fault.EMPTY} in drawn
    assert {Fault.NONE} in drawn


def test_shares_above_one_are_refused() -> None:
    with pytest.raises(ValueError, match="add up"):
        Faults(server_error=0.7, empty=0.7)


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with OfflineTeacher() as first, pytest.raises(EndpointError, match=f":{first.port}"):
        OfflineTeacher(port=first.port).start()


def test_stopping_does_not_wait_for_a_hanging_request() -> None:
    async def scenario() -> None:
        teacher = OfflineTeacher(faults=Faults(hang=1.0)).start()
        body = {"model": OFFLINE_MODEL, "messages": turns_of(render_note_prompt(NOTE))}
        async with httpx.AsyncClient(timeout=30.0) as client:
            hanging = asyncio.create_task(client.post(f"{teacher.base_url}/chat/completions", json=body))
            while not teacher.requests_received:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(teacher.stop)
            with pytest.raises(httpx.HTTPError):
                await hanging

    asyncio.run(asyncio.wait_for(scenario(), 15.0))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_server_process_ends_at_a_signal(number: int) -> None:
    program = (
        "from asclepius_ray.chat.offline.faults import Faults\n"
        "from asclepius_ray.chat.offline.server import serve_forever\n"
        "from functools import partial\n"
        "serve_forever('127.0.0.1', 0, '', Faults(), partial(print, flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    url = process.stdout.readline().strip()
    with urllib.request.urlopen(f"{url}/models") as reply:
        assert reply.status == 200
    os.kill(process.pid, number)
    assert process.wait(20) == 0


@pytest.mark.parametrize("port", [99999, 65536, -1])
def test_a_port_that_is_none_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match=f"port {port} .* 65535"):
        OfflineTeacher(port=port).start()
    with pytest.raises(ConfigError, match=f"port {port} .* 65535"):
        serve_forever("127.0.0.1", port, "", Faults(), lambda line: None)
