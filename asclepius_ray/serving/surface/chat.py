"""POST /v1/chat/completions."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError
from starlette.requests import Request
from starlette.types import Send

from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.choice import Choice, Piece
from asclepius_ray.serving.surface.early_checks import find_ready_model
from asclepius_ray.serving.surface.event_stream import compact, encode_text
from asclepius_ray.serving.surface.generation import Answering, Asked, plan, room_for_answer
from asclepius_ray.serving.surface.logprob_shapes import chat_logprobs
from asclepius_ray.serving.surface.openai_events import ChunkFrame
from asclepius_ray.serving.surface.request_body import read_object
from asclepius_ray.serving.surface.responding import respond
from asclepius_ray.serving.surface.schemas import ChatCompletionBody, check_chat_body
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.size_checks import check_length
from asclepius_ray.serving.surface.tokenizing import tokenized

CHARACTERS_A_TURN = 100
"""A turn without a word takes as long in the chat template as so many characters in the tokenizer."""
ROLE_DELTA = '"delta":{"role":"assistant","content":""}'


async def answer_chat(models: Mapping[str, ServedModel], request: Request, send: Send) -> None:
    values = await read_object(request)
    model = find_ready_model(models, values, request.state.account)
    body = check_chat_body(values)
    turns = [message.turn for message in body.messages]
    size = sum(len(turn["content"]) for turn in turns)
    check_length("messages", size, model.engine.max_context_tokens)
    ids = await tokenized(size + CHARACTERS_A_TURN * len(turns), lambda: chat_ids(model.tokenizer, turns))
    answering = plan_chat(model, body, ids)
    shape = ChatShape(f"chatcmpl-{request.state.account.request_id}", answering, body)
    await respond(answering, shape, bool(body.stream), request, send)


def plan_chat(model: ServedModel, body: ChatCompletionBody, ids: list[int]) -> Answering:
    longest = room_for_answer(model, "messages", len(ids), body.answer_tokens, model.max_new_tokens)
    asked = Asked(
        num_choices=body.num_choices,
        temperature=1.0 if body.temperature is None else body.temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
        seed=body.seed,
        stops=body.stops,
        top_logprobs=body.wanted_logprobs,
    )
    return plan(model, [ids], [longest], asked)


def chat_ids(tokenizer: Any, turns: Sequence[Mapping[str, str]]) -> list[int]:
    """The ids of a chat; for the rendered instruction as the only user turn they are `prompt_ids`."""
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError):
        message = "The model's chat template does not take this order of roles."
        raise ApiError(400, "invalid_value", message, "messages") from None
    # The template's text holds the special tokens already.
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


class ChatShape:
    """A chat completion, and its chunks."""

    def __init__(self, answer_id: str, answering: Answering, body: ChatCompletionBody) -> None:
        self._answering = answering
        self._model = answering.model
        self._with_logprobs = body.wanted_logprobs is not None
        self._about = {"id": answer_id, "created": int(time.time()), "model": self._model.name}
        frame = {"object": "chat.completion.chunk", **self._about}
        self._frame = ChunkFrame(frame, answering, body.includes_usage)

    def events(self, choice: Choice, piece: Piece) -> bytes:
        index = choice.index
        events = self._frame.chunk(index, ROLE_DELTA) if self._frame.begin(index) else ""
        if piece.text or piece.tokens:
            logprobs = compact(self._logprobs(piece)) if self._with_logprobs else "null"
            events += self._frame.chunk(index, f'"delta":{{"content":{encode_text(piece.text)}}}', logprobs)
        if choice.finish_reason:
            events += self._frame.chunk(index, '"delta":{}', finish_reason=choice.finish_reason)
        return events.encode()

    async def closing_events(self) -> bytes:
        return self._frame.closing()

    async def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        choices = [
            {
                "index": choice.index,
                "message": {"role": "assistant", "content": piece.text, "refusal": None},
                "logprobs": self._logprobs(piece) if self._with_logprobs else None,
                "finish_reason": choice.finish_reason,
            }
            for choice, piece in zip(self._answering.choices, pieces, strict=True)
        ]
        usage = self._answering.usage
        return {"object": "chat.completion", **self._about, "choices": choices, "usage": usage}

    def _logprobs(self, piece: Piece) -> dict[str, Any]:
        return chat_logprobs(piece.tokens, self._model.token_bytes)
