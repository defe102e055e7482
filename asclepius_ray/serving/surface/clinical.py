"""POST /v1/clinical/answers: a note and a question in the prompt of the training → the likeliest answer.

GET /v1/clinical/tasks lists the eight tasks with their default questions.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Send

from asclepius_ray.errors import InputError
from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.surface.api_errors import context_length_exceeded
from asclepius_ray.serving.surface.body_checks import check_body
from asclepius_ray.serving.surface.choice import Choice, Piece
from asclepius_ray.serving.surface.clinical_schemas import Asking, ClinicalBody, Settings, default_questions
from asclepius_ray.serving.surface.early_checks import find_ready_model
from asclepius_ray.serving.surface.event_stream import DONE_EVENT, encode_text, event
from asclepius_ray.serving.surface.generation import Answering, Asked, plan
from asclepius_ray.serving.surface.kept_note import KeptNote
from asclepius_ray.serving.surface.request_body import read_object
from asclepius_ray.serving.surface.responding import respond
from asclepius_ray.serving.surface.schemas import NamedOrFirstModel
from asclepius_ray.serving.surface.served_model import ServedModel
from asclepius_ray.serving.surface.size_checks import check_length
from asclepius_ray.serving.surface.tokenizing import tokenized
from asclepius_ray.tokens.rendering import prompt_ids, shorten_note


async def answer_clinical(models: Mapping[str, ServedModel], request: Request, send: Send) -> None:
    account: Account = request.state.account
    values = await read_object(request)
    model = find_ready_model(models, values, account, NamedOrFirstModel)
    body = check_body(ClinicalBody, values)
    answering, note = await plan_clinical(model, body, body)
    shape = ClinicalShape(f"clinical-{account.request_id}", answering, note, account)
    await respond(answering, shape, bool(body.stream), request, send)


async def list_tasks(_: Request) -> Response:
    """GET /v1/clinical/tasks."""
    tasks = [
        {"id": task.slug, "object": "clinical.task", "name": task.value, "question": question}
        for task, question in default_questions().items()
    ]
    return JSONResponse({"object": "list", "data": tasks})


async def plan_clinical(model: ServedModel, asking: Asking, settings: Settings) -> tuple[Answering, KeptNote]:
    """The generation, and what of the note it is given; an ApiError if it does not fit."""
    context = model.engine.max_context_tokens
    check_length("note", len(asking.note), context)
    check_length("question", len(asking.asked), context)
    longest = settings.max_tokens or min(model.max_new_tokens, context // 2)
    size = len(asking.note) + len(asking.asked)
    kept, ids = await tokenized(size, lambda: clinical_ids(model.tokenizer, asking, context, longest))
    note = KeptNote(asking.note, kept)
    if note.was_shortened and settings.long_note == "refuse":
        needed = await tokenized(size, lambda: len(prompt_ids(model.tokenizer, asking.note, asking.asked)))
        raise context_length_exceeded("note", context, needed, longest)
    return plan(model, [ids], [longest], Asked()), note


def clinical_ids(
    tokenizer: Any, asking: Asking, context_tokens: int, answer_tokens: int
) -> tuple[str, list[int]]:
    """The note as it fits beside its answer, and the prompt's ids; an ApiError if the question does not."""
    try:
        kept = shorten_note(tokenizer, asking.note, asking.asked, context_tokens - answer_tokens)
    except InputError:
        needed = len(prompt_ids(tokenizer, "", asking.asked))
        param = "question" if answer_tokens < context_tokens else "max_tokens"
        raise context_length_exceeded(param, context_tokens, needed, answer_tokens) from None
    return kept, prompt_ids(tokenizer, kept, asking.asked)


class ClinicalShape:
    """A clinical answer, and its events."""

    def __init__(self, answer_id: str, answering: Answering, note: KeptNote, account: Account) -> None:
        self._answer_id = answer_id
        self._answering = answering
        self._note = note
        self._account = account
        self._texts: list[str] = []

    def events(self, choice: Choice, piece: Piece) -> bytes:
        if not piece.text:
            return b""
        self._texts.append(piece.text)
        return f'data: {{"type":"answer.delta","delta":{encode_text(piece.text)}}}\n\n'.encode()

    async def closing_events(self) -> bytes:
        done = {"type": "answer.done", **await self._body("".join(self._texts))}
        return event(done) + DONE_EVENT

    async def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        return await self._body(pieces[0].text)

    async def _body(self, answer: str) -> dict[str, Any]:
        # In a thread: a long note takes a while, in which every other stream would stand still.
        passages = await asyncio.to_thread(self._note.passages, answer)
        account = self._account
        return {
            "id": self._answer_id,
            "answer": answer,
            "model": self._answering.model.name,
            "usage": self._answering.usage,
            "finish_reason": self._answering.outcome,
            "note_was_shortened": self._note.was_shortened,
            "passages": [asdict(passage) for passage in passages],
            "seconds": {
                "queue": account.queue_seconds,
                "first_token": account.first_token_seconds,
                "total": time.monotonic() - account.started,
            },
        }
