"""What the suite asks: a started engine, the loop of its streams, and the model itself to compare with."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from served_models import LONG_ANSWER, SHORT_ANSWER, chat_ids, save_tiny_model
from transformers import AutoTokenizer, LlamaForCausalLM

from asclepius_ray.serving.engines.engine import Engine, GenerationRequest, TokenLogprob
from asclepius_ray.tokens.reference_logits import REFERENCE_NAME, pack_reference, reference_rows

T = TypeVar("T")
ADAPTER = "cardiology"
GIVE_UP_SECONDS = 60.0


@dataclass(frozen=True)
class Models:
    """A tiny model with its export's logits, the same one with the logits of another, and an adapter."""

    folder: Path
    changed_folder: Path
    adapter_folder: Path
    own: Any
    merged: Any
    prompts: list[list[int]]
    ending_prompt: list[int]
    """Its greedy answer ends soon, with an end token."""

    def greedy(self, prompt_ids: list[int], num_tokens: int, model: Any = None) -> list[int]:
        """What the model says without any engine."""
        with torch.no_grad():
            whole = (model or self.own).generate(
                torch.tensor([prompt_ids]), max_new_tokens=num_tokens, do_sample=False
            )
        return [int(token) for token in whole[0, len(prompt_ids) :]]

    def logits(self, ids: list[int]) -> torch.Tensor:
        """Behind each id, (positions, vocabulary)."""
        with torch.no_grad():
            found: torch.Tensor = self.own(torch.tensor([ids])).logits[0]
        return found


@dataclass(frozen=True)
class Subject:
    """An engine that is told nothing but what the protocol says."""

    engine: Engine
    models: Models
    loop: asyncio.Runner
    kill: Callable[[Engine], None]
    """Has it die as it would of a fault of its own."""

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(asyncio.wait_for(work, GIVE_UP_SECONDS))

    def ids(self, prompt_ids: list[int], num_tokens: int, **settings: Any) -> list[int]:
        return self.run(answer(self.engine, prompt_ids, num_tokens, **settings))[0]


async def answer(
    engine: Engine, prompt_ids: list[int], num_tokens: int, name: str = "only", **settings: Any
) -> tuple[list[int], list[TokenLogprob]]:
    """All ids of one request and all their log-probabilities."""
    ids: list[int] = []
    logprobs: list[TokenLogprob] = []
    async with aclosing(engine.stream(GenerationRequest(name, prompt_ids, num_tokens, **settings))) as chunks:
        async for chunk in chunks:
            ids += chunk.ids
            logprobs += chunk.logprobs or ()
    return ids, logprobs


@contextmanager
def started(engine: Engine, models: Models, kill: Callable[[Engine], None]) -> Iterator[Subject]:
    with asyncio.Runner() as loop:
        yield Subject(engine, models, loop, kill)
        engine.stop()


def make_models(root: Path) -> Models:
    folder = save_tiny_model(root / "model", seed=1)
    own = LlamaForCausalLM.from_pretrained(folder)
    changed_folder = root / "changed"
    own.save_pretrained(changed_folder)
    with torch.no_grad():
        logits = own(reference_rows(own.config.vocab_size), use_cache=False).logits[:, -1]
    (folder / REFERENCE_NAME).write_bytes(pack_reference(logits))
    (changed_folder / REFERENCE_NAME).write_bytes(pack_reference(logits.flip(-1)))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompts = [[10 + 7 * place + step for step in range(3 + 11 * place)] for place in range(8)]
    return Models(
        folder,
        changed_folder,
        adapter_folder=_save_adapter(folder, root / "adapter"),
        own=own,
        merged=PeftModel.from_pretrained(
            LlamaForCausalLM.from_pretrained(folder), root / "adapter"
        ).merge_and_unload(),
        prompts=[*prompts, chat_ids(tokenizer, LONG_ANSWER)],
        ending_prompt=chat_ids(tokenizer, SHORT_ANSWER),
    )


def _save_adapter(folder: Path, adapter_folder: Path) -> Path:
    torch.manual_seed(5)
    settings = LoraConfig(
        r=8, lora_alpha=32, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
    )
    get_peft_model(LlamaForCausalLM.from_pretrained(folder), settings).save_pretrained(adapter_folder)
    return adapter_folder
