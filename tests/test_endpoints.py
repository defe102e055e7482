import asyncio
import errno
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from ray.util.state import list_actors
from transformers import LlamaConfig, LlamaForCausalLM

from asclepius_ray.chat.client import ChatClient
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.chat.endpoint import Endpoint, check_trusted
from asclepius_ray.chat.exchange import Completion, Request
from asclepius_ray.chat.gate import LocalGate
from asclepius_ray.chat.limiter import Limits
from asclepius_ray.config import told_apart
from asclepius_ray.endpoints import check_endpoint_config, open_endpoint, reach_endpoint
from asclepius_ray.errors import ConfigError, EndpointError, ServingError
from asclepius_ray.progress import Progress
from asclepius_ray.prompts.rendering import render_note_prompt
from asclepius_ray.ray_session import cause_of
from asclepius_ray.records import Message
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.tokenizer import train_tokenizer

AZURE = "https://a.openai.azure.com/openai/deployments/m"
REPORT = "A 40-year-old man came with fever for 3 days. He was given amoxicillin 500 mg. He recovered."


def is_gone(url: str) -> bool:
    """Whether nothing listens there any more, 20 s after it was told to end at the latest."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            httpx.get(url)
        except httpx.ConnectError:
            return True
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    return False


def ask_from_every_node(endpoint: Endpoint, request: Request) -> list[Any]:
    import ray

    # Inside, so that it travels by its content: the workers cannot import a test.
    async def ask() -> object:
        client = ChatClient(endpoint, LocalGate(Limits(), 1))
        try:
            return await client.complete(request)
        finally:
            await client.close()

    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    assert len(nodes) == 2
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    return ray.get(
        [
            ray.remote(lambda: asyncio.run(ask()))
            .options(num_cpus=0, scheduling_strategy=strategy(node, soft=False))
            .remote()
            for node in nodes
        ]
    )


def save_tiny_model(folder: Path) -> None:
    tokenizer = train_tokenizer([REPORT] * 4, vocabulary_size=300)
    ensure_chat_template(tokenizer)
    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=512, **ids,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_the_offline_teacher_answers_from_every_node_and_is_gone_afterwards(ray_cluster: str) -> None:
    with Progress() as progress:
        config = EndpointConfig(base_url="offline")
        with open_endpoint(config, ServingConfig(), progress) as teacher:
            replies = ask_from_every_node(
                teacher, Request("note", tuple(render_note_prompt(REPORT)), 1.0, 500)
            )
            assert all(isinstance(reply, Completion) and "amoxicillin" in reply.text for reply in replies)
            assert httpx.get(f"{teacher.base_url}/models").status_code == 401
            assert (teacher.model, teacher.is_offline) == ("offline-rules", True)
            address = teacher.base_url
    assert is_gone(f"{address}/models")


def test_the_offline_teacher_stands_on_the_drivers_node_as_no_other_loss_may_end_the_run(
    ray_cluster: str,
) -> None:
    with ExitStack() as opened:
        for _ in range(9):
            opened.enter_context(
                open_endpoint(EndpointConfig(base_url="offline"), ServingConfig(), Progress())
            )
        filters = [("class_name", "=", "OfflineTeacherActor"), ("state", "=", "ALIVE")]
        nodes = [teacher.node_id for teacher in list_actors(ray_cluster, filters=filters)]
    assert nodes == [ray.get_runtime_context().get_node_id()] * 9


@pytest.mark.long
def test_a_model_by_its_path_is_served_to_every_node_for_as_long_as_it_is_asked(
    ray_cluster: str, tmp_path: Path
) -> None:
    save_tiny_model(tmp_path / "model")
    path = str(tmp_path / "model")
    config = EndpointConfig(model_path=path)
    check_endpoint_config(config, "teacher", sends_real_notes=True)
    assert reach_endpoint(config) is None
    request = Request("note", (Message("user", "Write."),), 1.0, 8, accept_truncated=True, accept_empty=True)
    with Progress() as progress, open_endpoint(config, ServingConfig(port=0), progress) as teacher:
        replies = ask_from_every_node(teacher, request)
        assert all(isinstance(reply, Completion) and reply.model == told_apart(path) for reply in replies)
        assert all(0 < reply.completion_tokens <= 8 for reply in replies)
        assert httpx.get(f"{teacher.base_url}/models").status_code == 401
        assert not teacher.may_use_proxy
        address = teacher.base_url
    assert is_gone(f"{address}/models")


def test_a_model_that_is_not_there_is_missed_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="not there"):
        reach_endpoint(EndpointConfig(model_path=str(tmp_path / "nothing")))


def test_rules_at_an_address_are_known_for_what_they_are_and_trusted_no_more_than_another_host() -> None:
    config = EndpointConfig(base_url="https://far.example/v1", model="offline-rules")
    assert config.is_offline
    assert not config.starts_offline_teacher
    with pytest.raises(ConfigError, match=r"far\.example"):
        check_endpoint_config(config, "teacher", sends_real_notes=True)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "teacher.base_url is not set"),
        ({"base_url": "teacher.example/v1", "model": "m"}, "is not an address"),
        ({"base_url": "http://teacher..example/v1", "model": "m"}, "is not an address"),
        ({"base_url": "http://teacher.example/v1?key=1", "model": "m"}, "without a"),
        ({"base_url": "http://127.0.0.1:1/v1"}, "teacher.model is not set"),
        ({"base_url": "offline", "model": "gpt"}, "teacher.model is 'gpt'"),
        ({"base_url": "offline", "api_version": "1"}, "teacher.api_version"),
        ({"base_url": "offline", "model_path": "m"}, "model_path and teacher.base_url exclude"),
        ({"model_path": "m", "transport": "batch"}, "model_path and teacher.transport exclude"),
        ({"base_url": "https://a.example/openai/v1", "model": "m", "api_version": "1"}, "drop teacher.api_v"),
        ({"base_url": AZURE, "model": "m", "api_version": "1", "transport": "batch"}, "/openai/v1"),
        ({"base_url": "offline", "extra_body": {"messages": []}}, "teacher.extra_body.messages"),
        ({"base_url": "offline", "extra_body": {"top_k": 3, "stream": True}}, "teacher.extra_body.stream"),
    ],
    ids=[
        "none", "no scheme", "an empty label", "a query", "no model",
        "a model for the rules", "rules with a version", "two teachers",
        "a batch of a served model", "a version at the newer address", "a batch at the older address",
        "messages", "a stream",
    ],
)  # fmt: skip
def test_an_endpoint_that_cannot_work_is_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check_endpoint_config(EndpointConfig(**settings), "teacher", sends_real_notes=False)


PUBLIC = {"base_url": "http://far.example/v1", "model": "m"}


@pytest.mark.parametrize(
    ("settings", "real_notes", "named"),
    [
        (
            {"allow_real_notes": True, "api_key_env": ""},
            True,
            "real notes would go to far.example in the clear",
        ),
        ({"api_key_env": "A_KEY"}, False, "the API key would go to far.example in the clear"),
        ({"api_key_env": "", "headers": {"X-Key": "k"}}, False, "the headers would go to far.example in the"),
    ],
    ids=["notes", "key", "headers"],
)
def test_nothing_secret_goes_through_a_public_network_in_the_clear(
    settings: dict[str, Any], real_notes: bool, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "sk-1")
    with pytest.raises(ConfigError, match=named):
        check_endpoint_config(EndpointConfig(**PUBLIC, **settings), "teacher", real_notes)
    for change in ({"base_url": "https://far.example/v1"}, {"trusted_hosts": ("far.example",)}):
        config = EndpointConfig(**(PUBLIC | settings | change))
        assert check_endpoint_config(config, "teacher", real_notes) is None


@pytest.mark.parametrize(
    "host", ["10.1.2.3", "192.168.0.9", "[fd00::7]", "gpu-box", "vllm.default.svc", "a.local"]
)
def test_a_key_goes_to_a_host_in_the_house_in_the_clear(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "sk-1")
    config = EndpointConfig(base_url=f"http://{host}:8000/v1", model="m", api_key_env="A_KEY")
    assert check_endpoint_config(config, "teacher", sends_real_notes=False) is None


def test_real_notes_go_anywhere_only_where_the_section_says_so() -> None:
    far = {"base_url": "https://far.example/v1", "model": "m", "api_key_env": ""}
    allowed = EndpointConfig(**far, allow_real_notes=True)
    assert check_endpoint_config(allowed, "teacher", sends_real_notes=True) is None
    with pytest.raises(ConfigError, match=r"trusted_hosts = .*allow_real_notes"):
        check_endpoint_config(EndpointConfig(**far), "judge", sends_real_notes=True)
    with pytest.raises(ConfigError, match=r"10\.1\.2\.3"):
        check_trusted(EndpointConfig(base_url="http://10.1.2.3/v1", model="m"), started_by_run=False)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), EndpointError("the key is refused")], ids=repr
)
def test_the_error_of_a_worker_reaches_the_user_without_rays_wrapping(
    ray_cluster: str, error: Exception
) -> None:
    import ray

    def fail() -> None:
        raise error

    with pytest.raises(ray.exceptions.RayTaskError) as caught:
        ray.get(ray.remote(fail).remote())
    found = cause_of(caught.value)
    assert type(found) is type(error)
    assert str(found) == str(error)
