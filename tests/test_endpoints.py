import asyncio
import errno
import time

import httpx
import pytest

from asclepius_ray.chat.client import ChatClient
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.chat.exchange import Completion, Request
from asclepius_ray.chat.gate import LocalGate
from asclepius_ray.chat.limiter import Limits
from asclepius_ray.endpoints import check_endpoint_config, open_endpoint
from asclepius_ray.errors import ConfigError, EndpointError
from asclepius_ray.prompts.rendering import render_note_prompt
from asclepius_ray.ray_session import cause_of

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


def test_the_offline_teacher_answers_from_every_node_and_is_gone_afterwards(ray_cluster: str) -> None:
    import ray

    with open_endpoint(EndpointConfig(base_url="offline")) as teacher:
        request = Request("note", tuple(render_note_prompt(REPORT)), 1.0, 500)

        async def ask() -> object:
            client = ChatClient(teacher, LocalGate(Limits(), 1))
            try:
                return await client.complete(request)
            finally:
                await client.close()

        nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
        strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        asked = [
            ray.remote(lambda: asyncio.run(ask()))
            .options(num_cpus=0, scheduling_strategy=strategy(node, soft=False))
            .remote()
            for node in nodes
        ]
        replies = ray.get(asked)
        assert len(replies) == 2
        assert all(isinstance(reply, Completion) and "amoxicillin" in reply.text for reply in replies)
        assert httpx.get(f"{teacher.base_url}/models").status_code == 401
        assert (teacher.model, teacher.is_offline) == ("offline-rules", True)
        address = teacher.base_url
    assert is_gone(f"{address}/models")


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
        ({"base_url": "http://127.0.0.1:1/v1"}, "teacher.model is not set"),
        ({"base_url": "offline", "model": "gpt"}, "teacher.model is 'gpt'"),
    ],
    ids=["none", "no scheme", "no model", "a model for the rules"],
)
def test_an_endpoint_that_cannot_work_is_refused(settings: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        check_endpoint_config(EndpointConfig(**settings), "teacher", sends_real_notes=False)


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
