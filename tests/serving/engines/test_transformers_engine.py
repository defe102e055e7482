"""The engine on transformers: the suite of all engines, and what is of this one alone."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance import *  # noqa: F403
from conformance import LONG_TOKENS
from subject import ADAPTER, Models, Subject, make_models, started

from asclepius_ray.errors import ServingError
from asclepius_ray.serving.access.account import Account, Caller
from asclepius_ray.serving.access.limit_link import LimitLink, LocalDesk
from asclepius_ray.serving.admission.ticket import Size
from asclepius_ray.serving.application import LoadedModel
from asclepius_ray.serving.application_settings import ApplicationSettings
from asclepius_ray.serving.config import ServingConfig
from asclepius_ray.serving.engines.engine import EngineError, EngineStats, GenerationRequest
from asclepius_ray.serving.engines.start import start_engine
from asclepius_ray.serving.meters import Meters

CONFIG = ServingConfig()


def break_model(engine: Any) -> None:
    """The next step of the model raises."""
    engine._batches[""]._manager.model.lm_head = None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def subject(models: Models) -> Iterator[Subject]:
    engine = start_engine(CONFIG, str(models.folder), frozenset(), 1.0, {ADAPTER: str(models.adapter_folder)})
    with started(engine, models, break_model) as found:
        yield found


@pytest.fixture
def doomed(models: Models) -> Iterator[Subject]:
    engine = start_engine(CONFIG, str(models.folder), frozenset(), 1.0, {})
    with started(engine, models, break_model) as found:
        yield found


def test_a_model_that_says_other_than_at_its_export_does_not_start(models: Models) -> None:
    with pytest.raises(ServingError, match="does not say what the trained model said"):
        start_engine(CONFIG, str(models.changed_folder), frozenset(), 1.0, {})


def test_a_folder_that_is_no_adapter_does_not_start(models: Models, tmp_path: Path) -> None:
    with pytest.raises(ServingError, match="not a folder of a LoRA adapter"):
        start_engine(CONFIG, str(models.folder), frozenset(), 1.0, {"empty": str(tmp_path)})


def test_the_settings_cap_the_context_and_the_cache(models: Models) -> None:
    config = ServingConfig(max_context_tokens=100, cache_gib=0.001)
    with started(start_engine(config, str(models.folder), frozenset(), 1.0, {}), models, break_model) as one:
        assert one.engine.max_context_tokens == 100
        assert len(one.ids([5] * 90, 10)) == 10
        per_token = 2 * 2 * 32 * 4  # keys and values of two layers with a head of 32 numbers of 4 bytes
        assert one.engine.stats().cache_tokens <= 0.001 * 2**30 / per_token


def test_a_context_that_the_model_does_not_have_is_refused_with_both_numbers(models: Models) -> None:
    positions = models.own.config.max_position_embeddings
    config = ServingConfig(max_context_tokens=positions + 1)
    with pytest.raises(ServingError, match=f"= {positions + 1}, but .* has {positions} positions"):
        start_engine(config, str(models.folder), frozenset(), 1.0, {})


def test_a_request_that_the_dying_thread_has_failed_already_is_told_that_the_engine_has_ended(
    doomed: Subject,
) -> None:
    batch = doomed.engine._batches[""]  # type: ignore[attr-defined]
    take_in = batch._manager.add_request

    def take_in_and_die(**settings: Any) -> Any:
        accepted = take_in(**settings)
        break_model(doomed.engine)
        batch._manager._generation_thread.join(20)
        assert not batch._asked, "the thread has not failed it"
        return accepted

    batch._manager.add_request = take_in_and_die
    with pytest.raises(EngineError, match="must be started anew"):
        doomed.ids(doomed.models.prompts[0], LONG_TOKENS)


def test_each_adapter_has_a_batch_of_its_own_and_its_part_of_the_cache(models: Models) -> None:
    adapters = {ADAPTER: str(models.adapter_folder)}
    engine = start_engine(CONFIG, str(models.folder), frozenset(), 1.0, adapters)

    async def look() -> EngineStats:
        chunks = engine.stream(GenerationRequest("own", models.prompts[0], LONG_TOKENS, adapter=ADAPTER))
        await anext(chunks)
        stats = engine.stats()
        await chunks.aclose()
        return stats

    with started(engine, models, break_model) as one:
        stats = one.run(look())
    assert {name: one.running_requests for name, one in stats.by_adapter.items()} == {"": 0, ADAPTER: 1}
    assert stats.running_requests == 1
    assert stats.by_adapter[ADAPTER].cache_use == pytest.approx(2 * stats.cache_use) != 0
    for name in ("cache_tokens", "batch_requests", "generated_tokens"):
        assert sum(getattr(one, name) for one in stats.by_adapter.values()) == getattr(stats, name) > 0


def test_a_replica_admits_to_each_batch_what_that_batch_runs(models: Models) -> None:
    async def play() -> None:
        config = ServingConfig(adapters={ADAPTER: str(models.adapter_folder)}, max_queue_seconds=0.0)
        replica = object.__new__(LoadedModel)
        await LoadedModel.__init__(
            replica, ApplicationSettings(name="tiny", model=str(models.folder), serving=config)
        )
        _, admission = replica._serve(Meters(), LimitLink(LocalDesk(), "replica"))
        places = replica._engine.stats().by_adapter[""].batch_requests
        for name in ("tiny", ADAPTER):
            tickets = [
                admission.admit_now(Account("r", "", Caller("k")), Size(name, 5, 5)) for _ in range(places)
            ]
            assert all(ticket.placed_at is not None for ticket in tickets)
            late = admission.admit_now(Account("r", "", Caller("k")), Size(name, 5, 5))
            assert late.placed_at is None
        replica._engine.stop()

    asyncio.run(play())


def test_where_vllm_is_missing_its_engine_says_what_to_install(models: Models) -> None:
    config = ServingConfig(engine="vllm")
    with pytest.raises(ServingError, match=r"pip install --no-deps -r cluster/image/requirements\.txt"):
        start_engine(config, str(models.folder), frozenset(), 1.0, {})


def test_a_model_is_divided_over_gpus_by_vllm_alone() -> None:
    with pytest.raises(ValueError, match="tensor_parallel = 2 needs"):
        ServingConfig(tensor_parallel=2)
