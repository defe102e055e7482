"""POST /v1/completions: a text or its token ids, continued."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.types import Send

from asclepius_ray.serving.surface.api_errors import invalid_value
from asclepius_ray.serving.surface.choice import Choice, Piece
from asclepius_ray.serving.surface.early_checks import find_ready_model
from asclepius_ray.serving.surface.event_stream import compact, encode_text
from asclepius_ray.serving.surface.generation import Answering, Asked, plan, room_for_answer
from asclepius_ray.serving.surface.logprob_shapes import completion_logprobs
from asclepius_ray.serving.surface.openai_events import ChunkFrame
from asclepius_ray.serving.surface.request_body import read_object
from asclepius_ray.serving.surface.responding import respond
from asclepius_ray.serving.surface.schemas import CompletionBody, check_completion_body
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.size_checks import check_length
from asclepius_ray.serving.surface.text_stream import text_decoding
from asclepius_ray.serving.surface.tokenizing import tokenized

DEFAULT_ANSWER_TOKENS = 16
"""OpenAI's own where a completion names no max_tokens."""


async def answer_completion(models: Mapping[str, ServedModel], request: Request, send: Send) -> None:
    values = await read_object(request)
    model = find_ready_model(models, values, request.state.account)
    body = check_completion_body(values)
    prompts = body.prompts
    for prompt in prompts:
        check_length("prompt", len(prompt), model.engine.max_context_tokens)
    size = sum(len(prompt) for prompt in prompts)
    ids = await tokenized(size, lambda: [_prompt_ids(model, prompt) for prompt in prompts])
    answering = plan_completion(model, body, ids)
    echoes = [""] * len(prompts)
    if body.echo:
        echoes = await tokenized(size, lambda: [_echo(model, prompt) for prompt in prompts])
    shape = CompletionShape(f"cmpl-{request.state.account.request_id}", answering, body, echoes)
    await respond(answering, shape, bool(body.stream), request, send)


def plan_completion(model: ServedModel, body: CompletionBody, prompts: Sequence[list[int]]) -> Answering:
    default = min(DEFAULT_ANSWER_TOKENS, model.max_new_tokens)
    longest = [room_for_answer(model, "prompt", len(ids), body.max_tokens, default) for ids in prompts]
    asked = Asked(
        num_choices=body.num_choices,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stops=body.stops,
        top_logprobs=body.logprobs,
    )
    return plan(model, prompts, longest, asked)


def _prompt_ids(model: ServedModel, prompt: str | list[int]) -> list[int]:
    if isinstance(prompt, str):
        ids = list(model.tokenizer(prompt, verbose=False)["input_ids"])
        if not ids:
            raise invalid_value("prompt", "The prompt has no token.")
        return ids
    # An id that the model does not know would end the engine, not only its request.
    if max(prompt) >= model.engine.num_embeddings:
        raise invalid_value("prompt", f"A token id of the prompt is not below {model.engine.num_embeddings}.")
    return prompt


def _echo(model: ServedModel, prompt: str | list[int]) -> str:
    return prompt if isinstance(prompt, str) else text_decoding(model.tokenizer)(prompt)


class CompletionShape:
    """A completion, and its chunks."""

    def __init__(
        self, answer_id: str, answering: Answering, body: CompletionBody, echoes: Sequence[str]
    ) -> None:
        self._answering = answering
        self._model = answering.model
        self._with_logprobs = body.logprobs is not None
        self._echoes = [echo for echo in echoes for _ in range(body.num_choices)]
        self._about = {
            "id": answer_id,
            "object": "text_completion",
            "created": int(time.time()),
            "model": self._model.name,
        }
        self._frame = ChunkFrame(self._about, answering, body.includes_usage)

    def events(self, choice: Choice, piece: Piece) -> bytes:
        index = choice.index
        text = (self._echoes[index] if self._frame.begin(index) else "") + piece.text
        logprobs = compact(self._logprobs(piece)) if self._with_logprobs else "null"
        content = f'"text":{encode_text(text)}'
        return self._frame.chunk(index, content, logprobs, choice.finish_reason).encode()

    async def closing_events(self) -> bytes:
        return self._frame.closing()

    async def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        choices = [
            {
                "index": choice.index,
                "text": echo + piece.text,
                "logprobs": self._logprobs(piece) if self._with_logprobs else None,
                "finish_reason": choice.finish_reason,
            }
            for choice, piece, echo in zip(self._answering.choices, pieces, self._echoes, strict=True)
        ]
        return {**self._about, "choices": choices, "usage": self._answering.usage}

    def _logprobs(self, piece: Piece) -> dict[str, Any]:
        return completion_logprobs(piece.tokens, self._model.token_bytes)
