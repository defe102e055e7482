"""Every route of the surface with its words and examples; `surface.py` mounts, `openapi.py` shows them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from asclepius_ray.serving.access.body_guard import LONGEST_BODY_BYTES
from asclepius_ray.serving.access.gate import LIVE_PATH, READY_PATH
from asclepius_ray.serving.surface.chat import answer_chat
from asclepius_ray.serving.surface.clinical import answer_clinical, list_tasks
from asclepius_ray.serving.surface.clinical_batch import answer_batch
from asclepius_ray.serving.surface.clinical_schemas import MOST_BATCH_ITEMS, BatchBody, ClinicalBody
from asclepius_ray.serving.surface.completions import answer_completion
from asclepius_ray.serving.surface.health import show_live, show_ready
from asclepius_ray.serving.surface.model_routes import list_models, show_model
from asclepius_ray.serving.surface.response_schemas import (
    AnswerDelta,
    AnswerDone,
    BatchAnswer,
    ChatChunk,
    ChatCompletion,
    ClinicalAnswer,
    ClinicalTaskList,
    Completion,
    CompletionChunk,
    Health,
    ModelCard,
    ModelList,
)
from asclepius_ray.serving.surface.route import ApiRoute
from asclepius_ray.serving.surface.schemas import ChatCompletionBody, CompletionBody
from asclepius_ray.serving.surface.served_model import ServedModel

GENERATION_ERRORS = (400, 404, 413, 503, 504)
NOTE = (
    "A 63-year-old man was admitted with chest pain. Troponin was 2.4 ng/mL. "
    "Aspirin and metoprolol were started."
)
QUESTION = "Which medications were started?"
_USAGE = {"prompt_tokens": 61, "completion_tokens": 9, "total_tokens": 70}
_ANSWER = {
    "id": "clinical-7f3a",
    "answer": "Aspirin and metoprolol were started.",
    "model": "trained",
    "usage": _USAGE,
    "finish_reason": "stop",
    "note_was_shortened": False,
    "passages": [{"start": 74, "end": 110, "score": 1.0}],
    "seconds": {"queue": 0.0, "first_token": 0.04, "total": 0.21},
}


def api_routes(models: Mapping[str, ServedModel], name: str) -> list[ApiRoute]:
    """The routes for these models; examples name the one called `name`."""
    return [*_health_routes(models), *_openai_routes(models, name), *_clinical_routes(models, name)]


def _health_routes(models: Mapping[str, ServedModel]) -> list[ApiRoute]:
    return [
        ApiRoute(
            "GET",
            LIVE_PATH,
            "Whether the process lives",
            "Open. For a liveness probe.",
            answers=show_live,
            response=Health,
            response_example={"status": "alive"},
            is_open=True,
        ),
        ApiRoute(
            "GET",
            READY_PATH,
            "Whether all models can answer",
            "Open. For a readiness probe.",
            answers=partial(show_ready, models),
            response=Health,
            response_example={"status": "ready"},
            errors=(503,),
            is_open=True,
        ),
    ]


def _openai_routes(models: Mapping[str, ServedModel], name: str) -> list[ApiRoute]:
    card = {"id": name, "object": "model", "created": 1, "owned_by": "asclepius-ray", "max_model_len": 4096}
    return [
        ApiRoute(
            "GET",
            "/v1/models",
            "The models of this endpoint",
            "The names that `model` of a request can have.",
            answers=partial(list_models, models),
            response=ModelList,
            response_example={"object": "list", "data": [card]},
        ),
        ApiRoute(
            "GET",
            "/v1/models/{model:path}",
            "One model",
            "What GET /v1/models says of it.",
            answers=partial(show_model, models),
            response=ModelCard,
            response_example=card,
            errors=(404,),
        ),
        ApiRoute(
            "POST",
            "/v1/chat/completions",
            "A chat, answered",
            "As OpenAI's. A parameter that is not supported is refused by name; with its neutral value it is "
            "taken. For the prompt of the training, use POST /v1/clinical/answers.",
            streams=partial(answer_chat, models),
            request=ChatCompletionBody,
            request_examples=_chat_examples(name),
            response=ChatCompletion,
            response_example=_chat_completion(name),
            events=(ChatChunk,),
            errors=GENERATION_ERRORS,
        ),
        ApiRoute(
            "POST",
            "/v1/completions",
            "A text, continued",
            "As OpenAI's older route, for texts and token ids without a chat template. `suffix` is refused.",
            streams=partial(answer_completion, models),
            request=CompletionBody,
            request_examples=_completion_examples(name),
            response=Completion,
            response_example=_completion(name),
            events=(CompletionChunk,),
            errors=GENERATION_ERRORS,
        ),
    ]


def _clinical_routes(models: Mapping[str, ServedModel], name: str) -> list[ApiRoute]:
    return [
        ApiRoute(
            "GET",
            "/v1/clinical/tasks",
            "The eight tasks",
            "Each with the question that is asked where a request names the task alone.",
            answers=list_tasks,
            response=ClinicalTaskList,
        ),
        ApiRoute(
            "POST",
            "/v1/clinical/answers",
            "A question about a note, answered",
            "The note and the question are put into the prompt that the model was trained with; the "
            "answer is the likeliest one. Give `question` or `task`.",
            streams=partial(answer_clinical, models),
            request=ClinicalBody,
            request_examples=_clinical_examples(),
            response=ClinicalAnswer,
            response_example=_ANSWER | {"model": name},
            events=(AnswerDelta, AnswerDone),
            errors=GENERATION_ERRORS,
        ),
        ApiRoute(
            "POST",
            "/v1/clinical/answers/batch",
            "Many notes, answered in one request",
            f"Up to {MOST_BATCH_ITEMS} items in a body of up to {LONGEST_BODY_BYTES >> 20} MiB. Each is "
            "answered or fails on its own; they wait for room among the other requests.",
            streams=partial(answer_batch, models),
            request=BatchBody,
            request_examples={
                "two notes": {"items": [_item("a"), {"id": "b", "note": NOTE, "task": "summarization"}]}
            },
            response=BatchAnswer,
            response_example=_batch_answer(name),
            errors=GENERATION_ERRORS,
        ),
    ]


def _chat_examples(name: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": QUESTION}]
    return {
        "an answer": {"model": name, "messages": messages, "max_tokens": 40, "temperature": 0},
        "a stream": {
            "model": name,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    }


def _chat_completion(name: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": "Aspirin and metoprolol.", "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return {
        "id": "chatcmpl-7f3a",
        "object": "chat.completion",
        "created": 1,
        "model": name,
        "choices": [choice],
        "usage": _USAGE,
    }


def _completion_examples(name: str) -> dict[str, Any]:
    return {
        "a text": {"model": name, "prompt": "The patient was", "max_tokens": 20, "temperature": 0},
        "token ids": {"model": name, "prompt": [5, 6, 7], "max_tokens": 20, "seed": 1},
    }


def _completion(name: str) -> dict[str, Any]:
    choice = {"index": 0, "text": " admitted with chest pain.", "logprobs": None, "finish_reason": "stop"}
    return {
        "id": "cmpl-7f3a",
        "object": "text_completion",
        "created": 1,
        "model": name,
        "choices": [choice],
        "usage": _USAGE,
    }


def _clinical_examples() -> dict[str, Any]:
    return {
        "a question": {"note": NOTE, "question": QUESTION},
        "a task": {"note": NOTE, "task": "summarization"},
        "a stream": {"note": NOTE, "question": QUESTION, "stream": True, "long_note": "refuse"},
    }


def _item(item_id: str) -> dict[str, str]:
    return {"id": item_id, "note": NOTE, "question": QUESTION}


def _batch_answer(name: str) -> dict[str, Any]:
    error = {
        "message": "Missing required parameter: note.",
        "type": "invalid_request_error",
        "param": "note",
        "code": "missing_required_parameter",
    }
    items = [
        {"index": 0, "id": "a", "answer": _ANSWER | {"model": name}, "error": None},
        {"index": 1, "id": "b", "answer": None, "error": error},
    ]
    return {"id": "clinical-batch-7f3a", "model": name, "items": items, "usage": _USAGE}
