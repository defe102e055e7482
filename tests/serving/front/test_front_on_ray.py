"""Two models and an adapter under one address on a real cluster: what clients see through the front."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import ray
import torch
from peft import LoraConfig, get_peft_model
from ray import serve
from served_models import API_KEY, LONG_ANSWER, save_tiny_model
from transformers import LlamaForCausalLM

from asclepius_ray.progress import Progress
from asclepius_ray.serving.access.keys import hash_key
from asclepius_ray.serving.application import build_fronted
from asclepius_ray.serving.application_settings import ApplicationSettings
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.front.names import deployment_name
from asclepius_ray.serving.stage import open_models

pytestmark = pytest.mark.whole

HEADERS = {"Authorization": f"Bearer {API_KEY}"}
NAMES = ["first", "cardiology", "second / 2"]
APPLICATION = "from-none"
PATIENCE_SECONDS = 400.0


@dataclass(frozen=True)
class Fronted:
    """One address, the folders behind it and where its audit lines are."""

    base_url: str
    folder: Path
    audit: Path

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key=API_KEY, max_retries=0, timeout=PATIENCE_SECONDS)

    def say(self, **body: Any) -> str:
        answer = self.client.chat.completions.create(
            messages=LONG_ANSWER, temperature=0, max_tokens=12, **body
        )
        return str(answer.choices[0].message.content)

    def audit_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for file in self.audit.glob("*") for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def fronted(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    root = tmp_path_factory.mktemp("front")
    first = save_tiny_model(root / "first", seed=3)
    second = save_tiny_model(root / "second", seed=4)
    config = ServingConfig(
        port=0,
        proxy="serve",
        models={"second / 2": str(second)},
        adapters={"cardiology": str(_save_adapter(first, root / "adapter"))},
        audit=str(root / "audit"),
    )
    with Progress() as progress, open_models({"first": str(first)}, config, API_KEY, progress) as base_urls:
        yield Fronted(base_urls["first"], first, root / "audit")


def _save_adapter(folder: Path, adapter_folder: Path) -> Path:
    torch.manual_seed(5)
    settings = LoraConfig(r=8, lora_alpha=32, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(LlamaForCausalLM.from_pretrained(folder), settings).save_pretrained(adapter_folder)
    return adapter_folder


def replica_of(name: str) -> Any:
    """The actor of the one replica of a model."""
    [actor] = [
        actor["name"]
        for actor in ray.util.list_named_actors(all_namespaces=True)
        if actor["namespace"] == "serve" and deployment_name(name) in actor["name"]
    ]
    return ray.get_actor(actor, namespace="serve")


def test_each_name_is_listed_and_answers_with_its_own_weights(fronted: Fronted) -> None:
    assert [model.id for model in fronted.client.models.list()] == NAMES
    assert fronted.client.models.retrieve("second / 2").id == "second / 2"
    answers = {name: fronted.say(model=name) for name in NAMES}
    assert len(set(answers.values())) == 3
    stream = fronted.client.chat.completions.create(
        model="cardiology",
        messages=LONG_ANSWER,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=12,
        stream=True,
    )
    streamed = [chunk.choices[0].delta.content or "" for chunk in stream]
    assert "".join(streamed) == answers["cardiology"]
    assert len([piece for piece in streamed if piece]) > 3


def test_who_names_no_model_gets_the_first_and_an_unknown_one_is_a_404(fronted: Fronted) -> None:
    asked = {"note": "Aspirin was started.", "question": "What?", "max_tokens": 3}
    answer = httpx.post(f"{fronted.base_url}/clinical/answers", json=asked, headers=HEADERS, timeout=60)
    assert (answer.status_code, answer.json()["model"]) == (200, "first")
    with pytest.raises(openai.NotFoundError) as refused:
        fronted.say(model="third")
    assert refused.value.code == "model_not_found"
    assert "third" not in refused.value.message


def test_without_a_key_nobody_gets_past_the_front(fronted: Fronted) -> None:
    address = fronted.base_url.removesuffix("/v1")
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/docs")):
        answer = httpx.request(method, address + path, timeout=60)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "<html" in httpx.get(f"{address}/", timeout=60).text
    assert httpx.get(f"{address}/health/ready", timeout=60).json() == {"status": "ready"}
    document = httpx.get(f"{address}/openapi.json", headers=HEADERS, timeout=60).json()
    assert document["components"]["schemas"]["ChatCompletionBody"]["properties"]["model"]["enum"] == NAMES


def test_a_refusal_of_the_replica_passes_unchanged(fronted: Fronted) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        fronted.say(model="first", extra_body={"unheard_of": 1})
    assert (refused.value.code, refused.value.param) == ("unknown_parameter", "unheard_of")


def test_the_one_audit_line_of_a_request_is_the_fronts_with_the_replicas_counts(fronted: Fronted) -> None:
    headers = {**HEADERS, "x-request-id": "front-audit-1"}
    body = {"model": "cardiology", "messages": LONG_ANSWER, "max_tokens": 5, "temperature": 0}
    answer = httpx.post(f"{fronted.base_url}/chat/completions", json=body, headers=headers, timeout=60)
    usage = answer.json()["usage"]
    line = _wait_for_line(fronted, "front-audit-1")
    assert (line["model"], line["key"], line["status"]) == ("cardiology", "operator", 200)
    assert (line["prompt_tokens"], line["completion_tokens"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert (line["route"], line["outcome"]) == ("/v1/chat/completions", "length")
    assert 0 < line["first_token_ms"] <= line["total_ms"]


def test_a_client_that_leaves_ends_the_generation_at_once(fronted: Fronted) -> None:
    body = {"model": "first", "messages": LONG_ANSWER, "max_tokens": 1900, "stream": True}
    body |= {"n": 16, "temperature": 0}
    headers = {**HEADERS, "x-request-id": "front-left-1"}
    with httpx.stream(
        "POST", f"{fronted.base_url}/chat/completions", json=body, headers=headers, timeout=60
    ) as answer:
        assert answer.status_code == 200
        next(answer.iter_bytes())
    line = _wait_for_line(fronted, "front-left-1")
    assert (line["outcome"], line["completion_tokens"] < 16 * 1900) == ("cancelled", True)
    # The replica's call ends when its engine has let go of the request.
    replica = replica_of("first")
    assert _wait_until(lambda: ray.get(replica.get_num_ongoing_requests.remote()) == 0)


def _wait_until(is_so: Any) -> bool:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if is_so():
            return True
        time.sleep(0.1)
    return False


def _wait_for_line(fronted: Fronted, request_id: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    _wait_until(lambda: found.extend(x for x in fronted.audit_lines() if x["request"] == request_id) or found)
    return found[0]


def test_a_replica_killed_in_mid_stream_is_said_in_the_stream_and_replaced(fronted: Fronted) -> None:
    body = {"model": "second / 2", "messages": LONG_ANSWER, "max_tokens": 1900, "n": 8, "stream": True}
    headers = {**HEADERS, "x-request-id": "front-killed-1"}
    replica = replica_of("second / 2")
    events: list[str] = []
    with httpx.stream(
        "POST", f"{fronted.base_url}/chat/completions", json=body, headers=headers, timeout=60
    ) as answer:
        for line in answer.iter_lines():
            if line:
                events.append(line)
            if len(events) == 3:
                ray.kill(replica)
    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_unavailable"
    assert len(events) < 1900
    assert _wait_for_line(fronted, "front-killed-1")["outcome"] == "error"
    # Held at the front until the next replica is there.
    assert fronted.say(model="second / 2")


@pytest.fixture(scope="module")
def from_none(fronted: Fronted) -> Iterator[str]:
    """The address of a model that has no replica until it is asked; one request may wait for it."""
    settings = ApplicationSettings(
        name="asleep",
        model=str(fronted.folder),
        serving=ServingConfig(held_requests=1, max_new_tokens=4),
        api_key_sha256=hash_key(API_KEY),
    )
    scaling = {"autoscaling_config": {"min_replicas": 0, "max_replicas": 1, "upscale_delay_s": 0.0}}
    serve.run(build_fronted(settings, scaling), name=APPLICATION, route_prefix="/from-none")
    yield fronted.base_url.removesuffix("/v1") + "/from-none/v1"
    serve.delete(APPLICATION)


def test_a_model_without_a_replica_is_listed_held_for_and_started(from_none: str) -> None:
    models = httpx.get(f"{from_none}/models", headers=HEADERS, timeout=60).json()["data"]
    assert [model["id"] for model in models] == ["asleep"]

    async def ask(client: httpx.AsyncClient, seconds: float) -> httpx.Response:
        headers = {**HEADERS, "x-request-timeout-seconds": str(seconds)}
        body = {"model": "asleep", "messages": LONG_ANSWER}
        return await client.post(f"{from_none}/chat/completions", json=body, headers=headers)

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
            too_short = await ask(client, 4.0)
            first = asyncio.create_task(ask(client, PATIENCE_SECONDS))
            await asyncio.sleep(0.5)
            return [too_short, await ask(client, PATIENCE_SECONDS), await first]

    too_short, refused, first = asyncio.run(ask_all())
    assert (too_short.status_code, too_short.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_starting")
    assert int(refused.headers["Retry-After"]) >= 1
    assert (first.status_code, first.json()["usage"]["completion_tokens"]) == (200, 4)
    shown = httpx.get(f"{from_none.removesuffix('/v1')}/metrics", headers=HEADERS, timeout=60).text
    assert figure(shown, "admitted_requests_total") == 1
    assert figure(shown, "completion_tokens_total") == 4
    # The start of the replica took nearly all of it.
    waited = first.elapsed.total_seconds()
    assert 0.5 * waited < figure(shown, "first_token_seconds_sum") <= waited


def figure(text: str, name: str) -> float:
    """A number of the one model in Prometheus' text."""
    [value] = re.findall(rf'^asclepius_serving_{name}\{{model="asleep"\}} (\S+)$', text, re.MULTILINE)
    return float(value)
