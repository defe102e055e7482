"""The HTTP surface of one model: OpenAI's chat completions, and the clinical route.

GET  /health/live            open
GET  /health/ready           open; 200 while the engine answers
GET  /v1/models
POST /v1/chat/completions    streamed or whole
POST /v1/clinical/answers    {note, question} -> {answer, model, usage, note_was_shortened}
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from jinja2 import TemplateError

from asclepius_ray.errors import InputError
from asclepius_ray.serving.access.access import Access
from asclepius_ray.serving.access.gate import LIVE_PATH, READY_PATH, Gate, read_body
from asclepius_ray.serving.engines.engine import Engine, EngineError, GenerationRequest
from asclepius_ray.serving.surface.api_errors import ApiError, context_length_exceeded
from asclepius_ray.serving.surface.completions import Answer, stream_text
from asclepius_ray.serving.surface.event_stream import EventStreamResponse, chat_events
from asclepius_ray.serving.surface.schemas import ChatMessage, parse_chat_body, parse_clinical_body
from asclepius_ray.tokens.rendering import prompt_ids, shorten_note

CHAT_PATH = "/v1/chat/completions"
CLINICAL_PATH = "/v1/clinical/answers"


@dataclass(frozen=True)
class ServedModel:
    """A loaded model with its public name and the longest answer where a request sets no limit."""

    name: str
    engine: Engine
    tokenizer: Any
    max_new_tokens: int
    created: int = field(default_factory=lambda: int(time.time()))


def build_surface(model: ServedModel, access: Access) -> FastAPI:
    """The web application of one replica."""
    # No generated documentation: its routes would answer before the key is looked at.
    application = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    application.add_middleware(Gate, access=access)
    for kind, handler in _ERROR_HANDLERS.items():
        application.add_exception_handler(kind, handler)

    @application.get(LIVE_PATH)
    async def live() -> Response:
        return JSONResponse({"status": "live"})

    @application.get(READY_PATH)
    async def ready() -> Response:
        model.engine.check()
        keys = access.keys.trouble or "current"
        return JSONResponse({"status": "ready", "keys": keys, **asdict(model.engine.stats())})

    @application.get("/v1/models")
    async def list_models() -> Response:
        return JSONResponse({"object": "list", "data": [_describe_model(model)]})

    @application.get("/v1/models/{name:path}")
    async def show_model(name: str) -> Response:
        _check_name(model, name)
        return JSONResponse(_describe_model(model))

    @application.post(CHAT_PATH)
    async def chat(request: Request) -> Response:
        return await answer_chat(model, await read_body(request))

    @application.post(CLINICAL_PATH)
    async def clinical(request: Request) -> Response:
        return await answer_clinical_question(model, await read_body(request))

    return application


async def answer_chat(model: ServedModel, raw: bytes) -> Response:
    """POST /v1/chat/completions."""
    body = parse_chat_body(raw)
    _check_name(model, body.model)
    # In a thread, here and below: a long text takes seconds, in which every other stream would stand still.
    ids = await asyncio.to_thread(chat_ids, model.tokenizer, body.messages)
    temperature = 1.0 if body.temperature is None else body.temperature
    generation = GenerationRequest(
        request_id=f"chatcmpl-{uuid.uuid4().hex}",
        prompt_ids=ids,
        max_new_tokens=_answer_tokens(model, len(ids), body.answer_tokens),
        temperature=temperature,
        top_p=1.0 if body.top_p is None else body.top_p,
    )
    model.engine.check()
    answer = Answer(generation, CHAT_PATH, model.name)
    if body.stream:
        include_usage = body.stream_options is not None and body.stream_options.include_usage
        pieces = stream_text(model.engine, model.tokenizer, answer, body.stops)
        return EventStreamResponse(chat_events(answer, pieces, include_usage))
    text = await _whole_text(model, answer, body.stops)
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": answer.finish_reason}
    return JSONResponse(
        {
            "id": generation.request_id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model.name,
            "choices": [choice],
            "usage": answer.usage,
        }
    )


async def answer_clinical_question(model: ServedModel, raw: bytes) -> Response:
    """POST /v1/clinical/answers: the prompt of the training, the likeliest answer."""
    body = parse_clinical_body(raw)
    context = model.engine.max_context_tokens
    answer_tokens = min(model.max_new_tokens, context // 2)
    note, ids = await asyncio.to_thread(
        clinical_ids, model.tokenizer, body.note, body.question, context, answer_tokens
    )
    generation = GenerationRequest(
        request_id=f"clinical-{uuid.uuid4().hex}",
        prompt_ids=ids,
        max_new_tokens=answer_tokens,
    )
    model.engine.check()
    answer = Answer(generation, CLINICAL_PATH, model.name)
    text = await _whole_text(model, answer, ())
    return JSONResponse(
        {
            "answer": text,
            "model": model.name,
            "usage": answer.usage,
            "note_was_shortened": note != body.note,
        }
    )


def clinical_ids(
    tokenizer: Any, note: str, question: str, context_tokens: int, answer_tokens: int
) -> tuple[str, list[int]]:
    """The note as it fits beside its answer, and the prompt's ids; an ApiError if the question does not."""
    try:
        kept = shorten_note(tokenizer, note, question, context_tokens - answer_tokens)
    except InputError:
        needed = len(prompt_ids(tokenizer, "", question))
        raise context_length_exceeded("question", context_tokens, needed, answer_tokens) from None
    return kept, prompt_ids(tokenizer, kept, question)


def chat_ids(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[int]:
    """The ids of a chat; for the rendered instruction as the only user turn they are `prompt_ids`."""
    turns = [message.model_dump() for message in messages]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    except (TemplateError, TypeError):
        message = "The model's chat template does not take this order of roles."
        raise ApiError(400, "invalid_value", message, "messages") from None
    # The template's text holds the special tokens already.
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


async def _whole_text(model: ServedModel, answer: Answer, stops: Sequence[str]) -> str:
    async with aclosing(stream_text(model.engine, model.tokenizer, answer, stops)) as pieces:
        return "".join([piece async for piece in pieces])


def _answer_tokens(model: ServedModel, prompt_tokens: int, wanted: int | None) -> int:
    """How long the answer may be; an ApiError where prompt and answer do not fit into the context."""
    context = model.engine.max_context_tokens
    needed = 1 if wanted is None else wanted
    if prompt_tokens + needed > context:
        raise context_length_exceeded("messages", context, prompt_tokens, needed)
    return min(model.max_new_tokens, context - prompt_tokens) if wanted is None else wanted


def _check_name(model: ServedModel, name: str) -> None:
    if name != model.name:
        message = f"There is no such model here; this endpoint serves {model.name}."
        raise ApiError(404, "model_not_found", message, "model")


def _describe_model(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "asclepius-ray",
        "max_model_len": model.engine.max_context_tokens,
    }


async def _on_api_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def _on_engine_error(_: Request, error: Exception) -> Response:
    return ApiError(503, "engine_unavailable", "The model cannot answer now; try again soon.").response()


async def _on_unknown_route(_: Request, error: Exception) -> Response:
    return ApiError(404, "not_found", "There is no such route.").response()


async def _on_wrong_method(_: Request, error: Exception) -> Response:
    return ApiError(405, "method_not_allowed", "This route does not take this method.").response()


async def _on_fault(_: Request, error: Exception) -> Response:
    return ApiError(500, "internal_error", "The server failed on this request.").response()


_ERROR_HANDLERS: dict[Any, Any] = {
    ApiError: _on_api_error,
    EngineError: _on_engine_error,
    404: _on_unknown_route,
    405: _on_wrong_method,
    500: _on_fault,
}
