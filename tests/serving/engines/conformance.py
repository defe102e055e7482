"""What every engine must do, as the tests of each one.

A module that takes them in brings the fixture `subject`, a started engine, and `doomed`, another one.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import pairwise
from typing import Any

import pytest
import torch
from subject import ADAPTER, Subject, answer

from asclepius_ray.errors import InputError
from asclepius_ray.serving.engines.engine import (
    Engine,
    EngineError,
    EngineStats,
    GenerationRequest,
    TokenChunk,
)

LONG_TOKENS = 1800
FREED_WITHIN_SECONDS = 20.0


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """The distribution to draw from, (vocabulary)."""
    probabilities = (logits / temperature).softmax(-1)
    order = probabilities.argsort(descending=True)
    before = probabilities[order].cumsum(-1) - probabilities[order]
    kept = torch.zeros_like(probabilities)
    kept[order[before < top_p]] = probabilities[order[before < top_p]]
    return kept / kept.sum()


async def wait_until_idle(engine: Engine) -> float:
    """How many seconds it took until nothing was running, waiting or held in the cache."""
    started = time.monotonic()
    while time.monotonic() - started < FREED_WITHIN_SECONDS:
        stats = engine.stats()
        if not (stats.running_requests or stats.waiting_requests or stats.cache_use):
            return time.monotonic() - started
        await asyncio.sleep(0.02)
    pytest.fail(f"still {engine.stats()}")


async def read_on(chunks: AsyncGenerator[TokenChunk, None]) -> None:
    async for _ in chunks:
        pass


def test_a_greedy_answer_is_what_the_model_generates_itself(subject: Subject) -> None:
    for prompt in subject.models.prompts:
        assert subject.ids(prompt, 40) == subject.models.greedy(prompt, 40)


def test_an_end_token_is_the_last_of_an_answer(subject: Subject) -> None:
    expected = subject.models.greedy(subject.models.ending_prompt, 200)
    assert len(expected) < 200
    assert expected[-1] in subject.engine.end_token_ids
    assert subject.ids(subject.models.ending_prompt, 200) == expected


@pytest.mark.parametrize("num_tokens", [1, 2, 33])
def test_an_answer_is_as_long_as_it_may_be(subject: Subject, num_tokens: int) -> None:
    assert len(subject.ids(subject.models.prompts[0], num_tokens)) == num_tokens


def test_a_draw_follows_temperature_and_top_p(subject: Subject) -> None:
    prompt = subject.models.prompts[2]
    logits = subject.models.logits(prompt)[-1]

    async def draw(num: int, temperature: float, top_p: float) -> Counter[int]:
        answers = [
            answer(subject.engine, prompt, 1, f"draw {seed}", seed=seed, temperature=temperature, top_p=top_p)
            for seed in range(num)
        ]
        return Counter(ids[0] for ids, _ in await asyncio.gather(*answers))

    settings = [(0.5, 0.9), (1.0, 0.6), (1.6, 0.8)]
    expected = [nucleus(logits, *one) for one in settings]
    assert all((one - other).abs().sum() > 0.5 for one, other in pairwise(expected))
    for one, distribution in zip(settings, expected, strict=True):
        found = torch.zeros_like(distribution)
        for token_id, count in subject.run(draw(400, *one)).items():
            found[token_id] = count / 400
        assert not found[distribution == 0].any()
        noise = float((distribution / 400).sqrt().sum())
        assert (found - distribution).abs().sum() < noise + 0.05


def test_a_tiny_top_p_and_a_tiny_temperature_are_greedy(subject: Subject) -> None:
    prompt = subject.models.prompts[1]
    expected = subject.models.greedy(prompt, 30)
    assert subject.ids(prompt, 30, temperature=1.0, top_p=1e-6) == expected
    assert subject.ids(prompt, 30, temperature=1.0, top_p=0.0) == expected
    assert subject.ids(prompt, 30, temperature=1e-4) == expected


@pytest.mark.parametrize("seed", [0, 7, -1, 2**63 - 1, -(2**63)])
def test_the_same_seed_gives_the_same_answer_again(subject: Subject, seed: int) -> None:
    prompt = subject.models.prompts[3]
    first = subject.ids(prompt, 40, temperature=1.0, top_p=0.95, seed=seed)
    assert subject.ids(prompt, 40, temperature=1.0, top_p=0.95, seed=seed) == first
    assert subject.ids(prompt, 40, temperature=1.0, top_p=0.95, seed=seed // 2 + 3) != first


def test_without_a_seed_answers_differ(subject: Subject) -> None:
    answers = [subject.ids(subject.models.prompts[3], 20, temperature=1.0) for _ in range(3)]
    assert len({tuple(ids) for ids in answers}) == 3


def test_a_seed_gives_the_same_answer_in_company(subject: Subject) -> None:
    prompts = subject.models.prompts
    settings: dict[str, Any] = {"temperature": 1.0, "top_p": 0.9}
    alone = [subject.ids(prompt, 24, seed=place, **settings) for place, prompt in enumerate(prompts)]

    async def together() -> list[list[int]]:
        answers = [
            answer(subject.engine, prompt, 24, f"seeded {place}", seed=place, **settings)
            for place, prompt in enumerate(prompts)
        ]
        return [ids for ids, _ in await asyncio.gather(*answers)]

    assert subject.run(together()) == alone


@pytest.mark.parametrize("num_top", [0, 1, 5])
def test_logprobs_are_those_of_the_models_own_distribution(subject: Subject, num_top: int) -> None:
    prompt = subject.models.prompts[4]
    asked = answer(subject.engine, prompt, 30, temperature=1.7, top_p=0.9, seed=3, top_logprobs=num_top)
    ids, logprobs = subject.run(asked)
    assert ids != subject.models.greedy(prompt, 30)
    expected = subject.models.logits(prompt + ids)[len(prompt) - 1 : -1].log_softmax(-1)
    assert len(logprobs) == len(ids) == 30
    for token_id, logprob, row in zip(ids, logprobs, expected, strict=True):
        assert logprob.logprob == pytest.approx(float(row[token_id]), abs=1e-3)
        likeliest = row.topk(num_top)
        assert [found for _, found in logprob.top] == pytest.approx(likeliest.values.tolist(), abs=1e-3)
        assert [found for found, _ in logprob.top] == likeliest.indices.tolist()


def test_nobody_gets_logprobs_who_did_not_ask(subject: Subject) -> None:
    async def both() -> tuple[Any, Any]:
        prompt = subject.models.prompts[0]
        return await asyncio.gather(
            answer(subject.engine, prompt, 10, "without"),
            answer(subject.engine, prompt, 10, "with", top_logprobs=2),
        )

    (ids, without), (same_ids, logprobs) = subject.run(both())
    assert (ids, without, len(logprobs)) == (same_ids, [], 10)


def test_many_at_once_get_what_each_gets_alone(subject: Subject) -> None:
    prompts = subject.models.prompts * 4
    expected = [subject.models.greedy(prompt, 24) for prompt in subject.models.prompts] * 4

    async def together() -> list[list[int]]:
        answers = [
            answer(subject.engine, prompt, 24, f"many {place}") for place, prompt in enumerate(prompts)
        ]
        return [ids for ids, _ in await asyncio.gather(*answers)]

    assert subject.run(together()) == expected


def test_a_reader_that_lags_loses_nothing(subject: Subject) -> None:
    prompt = subject.models.prompts[0]

    async def read_slowly() -> tuple[list[int], int]:
        ids: list[int] = []
        num_chunks = 0
        async with aclosing(subject.engine.stream(GenerationRequest("slow", prompt, 60))) as chunks:
            async for chunk in chunks:
                ids += chunk.ids
                num_chunks += 1
                await asyncio.sleep(0.2)
        return ids, num_chunks

    ids, num_chunks = subject.run(read_slowly())
    assert ids == subject.models.greedy(prompt, 60)
    assert num_chunks < 60


def test_a_cancelled_request_is_freed_at_once_and_yields_nothing_more(subject: Subject) -> None:
    engine = subject.engine

    async def cancel_it() -> int:
        before = engine.stats().generated_tokens
        chunks = engine.stream(GenerationRequest("cancelled", subject.models.prompts[0], LONG_TOKENS))
        await anext(chunks)
        engine.cancel("cancelled")
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
        await wait_until_idle(engine)
        return engine.stats().generated_tokens - before

    assert subject.run(cancel_it()) < LONG_TOKENS / 2
    engine.cancel("cancelled")
    engine.cancel("never asked")


def test_who_closes_a_stream_cancels_its_request(subject: Subject) -> None:
    engine = subject.engine

    async def close_it() -> int:
        before = engine.stats().generated_tokens
        chunks = engine.stream(GenerationRequest("closed", subject.models.prompts[0], LONG_TOKENS))
        await anext(chunks)
        assert engine.stats().running_requests == 1
        await chunks.aclose()
        await wait_until_idle(engine)
        return engine.stats().generated_tokens - before

    assert subject.run(close_it()) < LONG_TOKENS / 2


def test_a_prompt_may_fill_the_context_and_no_more(subject: Subject) -> None:
    context = subject.engine.max_context_tokens
    prompt = [3 + place % 390 for place in range(context - 2)]
    assert subject.ids(prompt, 2) == subject.models.greedy(prompt, 2)
    with pytest.raises(InputError, match=f"do not fit into the context of {context}"):
        subject.ids(prompt, 3)
    assert len(subject.ids(prompt[:5], 3)) == 3


@pytest.mark.parametrize("prompt", [[], [5, -1], [5, 1_000_000]], ids=["empty", "negative", "too large"])
def test_ids_that_the_model_does_not_have_are_refused(subject: Subject, prompt: list[int]) -> None:
    with pytest.raises(InputError):
        subject.ids(prompt, 2)
    assert len(subject.ids([5], 2)) == 2


def test_stats_say_what_the_engine_is_doing(subject: Subject) -> None:
    engine = subject.engine
    before = engine.stats()
    assert (before.running_requests, before.waiting_requests, before.cache_use) == (0, 0, 0.0)
    assert before.cache_tokens >= engine.max_context_tokens
    assert before.batch_requests >= len(subject.models.prompts)

    async def look() -> tuple[list[EngineStats], int]:
        prompts = subject.models.prompts
        answers = [
            asyncio.create_task(answer(engine, prompt, 200, f"seen {place}"))
            for place, prompt in enumerate(prompts)
        ]
        seen = []
        while not all(one.done() for one in answers):
            seen.append(engine.stats())
            await asyncio.sleep(0.002)
        return seen, sum(len(ids) for ids, _ in await asyncio.gather(*answers))

    seen, num_tokens = subject.run(look())
    num_prompts = len(subject.models.prompts)
    assert max(stats.running_requests + stats.waiting_requests for stats in seen) == num_prompts
    assert max(stats.running_requests for stats in seen) > 1
    held_tokens = sum(len(prompt) for prompt in subject.models.prompts) / 2
    assert held_tokens / before.cache_tokens < max(stats.cache_use for stats in seen) < 1
    after = engine.stats()
    assert after.generated_tokens - before.generated_tokens == num_tokens > 200
    subject.run(wait_until_idle(engine))


def test_an_adapter_answers_as_the_model_it_is_merged_into(subject: Subject) -> None:
    models = subject.models
    own = [models.greedy(prompt, 24) for prompt in models.prompts]
    merged = [models.greedy(prompt, 24, models.merged) for prompt in models.prompts]
    assert all(one != other for one, other in zip(own, merged, strict=True))

    async def together() -> list[list[int]]:
        answers = [
            answer(subject.engine, prompt, 24, f"{adapter} {place}", adapter=adapter)
            for adapter in ("", ADAPTER)
            for place, prompt in enumerate(models.prompts)
        ]
        return [ids for ids, _ in await asyncio.gather(*answers)]

    assert subject.run(together()) == own + merged


def test_an_adapter_that_is_not_there_is_refused_by_name(subject: Subject) -> None:
    with pytest.raises(InputError, match=r"no adapter 'radiology'.*cardiology"):
        subject.ids(subject.models.prompts[0], 2, adapter="radiology")


def test_the_models_own_logits_are_accepted_at_its_warm_up(subject: Subject) -> None:
    subject.run(subject.engine.warm_up())


def test_an_engine_that_is_stopped_fails_its_streams(doomed: Subject) -> None:
    engine = doomed.engine
    engine.check()

    async def stop_it() -> None:
        chunks = engine.stream(GenerationRequest("stopped", doomed.models.prompts[0], LONG_TOKENS))
        await anext(chunks)
        engine.stop()
        with pytest.raises(EngineError):
            await read_on(chunks)

    doomed.run(stop_it())
    with pytest.raises(EngineError, match="must be started anew"):
        engine.check()
    with pytest.raises(EngineError, match="must be started anew"):
        doomed.ids(doomed.models.prompts[0], 2)


# The last test: it leaves nothing of the engine.
def test_an_engine_that_died_is_noticed_and_fails_its_streams(subject: Subject) -> None:
    engine = subject.engine
    engine.check()

    async def have_it_die() -> None:
        chunks = engine.stream(GenerationRequest("left", subject.models.prompts[0], LONG_TOKENS))
        await anext(chunks)
        subject.kill(engine)
        with pytest.raises(EngineError):
            await read_on(chunks)

    subject.run(have_it_die())
    with pytest.raises(EngineError, match="must be started anew"):
        engine.check()
    with pytest.raises(EngineError, match="must be started anew"):
        subject.ids(subject.models.prompts[0], 2)
