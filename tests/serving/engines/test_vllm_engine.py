"""The engine on vLLM: the suite of all engines (`make test-vllm`), and what is of this one alone."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conformance import *  # noqa: F403
from subject import ADAPTER, Models, Subject, make_models, started

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.start import start_engine

pytest.importorskip("vllm", reason="vLLM has an environment of its own: make test-vllm")
pytestmark = pytest.mark.timeout(900)

CONFIG = ServingConfig(engine="vllm", cache_gib=0.25)
CANARY = "zebrafinch-canary"


def kill_engine_core(engine: Any) -> None:
    """As the kernel does where the memory is used up."""
    for process in engine._llm.engine_core.resources.engine_manager.processes:
        psutil.Process(process.pid).kill()


def assert_no_socket_is_open(engine: Any) -> None:
    """With one, this process would never end."""
    resources = engine._llm.engine_core.resources
    assert resources.input_socket.closed
    assert resources.output_socket.closed


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def subject(models: Models) -> Iterator[Subject]:
    engine = start_engine(CONFIG, str(models.folder), frozenset(), 1.0, {ADAPTER: str(models.adapter_folder)})
    with started(engine, models, kill_engine_core) as found:
        yield found
    assert_no_socket_is_open(engine)


@pytest.fixture(scope="module")
def refused(models: Models) -> Iterator[tuple[Subject, str]]:
    """One of a model whose stored logits are not its own, with a short context; what its warm-up said."""
    config = CONFIG.model_copy(update={"max_context_tokens": 1900})
    # With an adapter, for which vLLM compiles nothing: half of its start.
    adapters = {ADAPTER: str(models.adapter_folder)}
    engine = start_engine(config, str(models.changed_folder), frozenset(), 1.0, adapters)
    with started(engine, models, kill_engine_core) as found:
        with pytest.raises(ServingError) as error:
            found.run(engine.warm_up())
        yield found, str(error.value)
    assert_no_socket_is_open(engine)


@pytest.fixture(scope="module")
def doomed(refused: tuple[Subject, str]) -> Subject:
    return refused[0]


def test_a_model_that_says_other_than_at_its_export_is_noticed_at_its_warm_up(
    refused: tuple[Subject, str],
) -> None:
    assert "does not say what the trained model said" in refused[1]


class FailingLlm:
    """vLLM's part where it cannot do what it is told, which it does not do on demand."""

    async def abort(self, _: str) -> None:
        raise RuntimeError(CANARY)

    async def add_lora(self, _: object) -> None:
        raise RuntimeError


def failing_engine() -> Any:
    from asclepius_ray.serving.engines.vllm_engine import VllmEngine

    engine: Any = object.__new__(VllmEngine)
    engine._llm, engine._open, engine._folder = FailingLlm(), {}, "a-model"
    return engine


def test_an_abort_that_fails_is_told_with_its_request_and_without_its_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine = failing_engine()
    caplog.clear()

    async def cancel_it() -> None:
        engine._open["request-7"] = asyncio.get_running_loop()
        engine.cancel("request-7")
        while not caplog.messages:
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(cancel_it(), 10))
    assert caplog.messages == ["request request-7 could not be cancelled (RuntimeError)"]
    assert CANARY not in caplog.text


REPLICA = """
import sys
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.start import start_engine

if __name__ == "__main__":
    config = ServingConfig(engine="vllm", cache_gib=0.25)
    engine = start_engine(config, sys.argv[1], frozenset(), 1.0, {"cardiology": sys.argv[2]})
    processes = engine._llm.engine_core.resources.engine_manager.processes
    print("processes:", *(each.pid for each in processes), flush=True)
    sys.stdin.read()
"""


def test_the_engine_of_a_replica_that_is_killed_goes_with_it(models: Models, tmp_path: Path) -> None:
    script = tmp_path / "replica.py"
    script.write_text(REPLICA)
    command = [sys.executable, str(script), str(models.folder), str(models.adapter_folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as replica:
        assert replica.stdout is not None
        # vLLM warns there too.
        line = next(line for line in replica.stdout if line.startswith("processes: "))
        engines = [psutil.Process(int(number)) for number in line.split()[1:]]
        assert engines
        assert all(each.is_running() for each in engines)
        replica.kill()
        assert psutil.wait_procs(engines, timeout=30)[1] == []


def test_an_adapter_that_fails_without_a_word_is_told_with_the_kind_of_its_error() -> None:
    engine = failing_engine()
    engine._adapters = {ADAPTER: None}
    with pytest.raises(ServingError, match="adapters onto a-model: RuntimeError"):
        asyncio.run(engine.warm_up())


def test_the_settings_cap_the_context(doomed: Subject) -> None:
    assert doomed.engine.max_context_tokens == 1900
