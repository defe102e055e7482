"""What the routes give, as the OpenAPI page shows it and its tests check it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from asclepius_ray.serving.surface.clinical_schemas import TaskId


class Given(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, protected_namespaces=())


class ErrorFields(Given):
    message: str
    """What is wrong and what to do; it repeats nothing of the request's text."""
    type: Literal["invalid_request_error", "rate_limit_error", "server_error"]
    param: str | None
    """The parameter that it is about."""
    code: str
    """For programs: model_not_found, context_length_exceeded, ..."""


class ErrorBody(Given):
    error: ErrorFields


class Usage(Given):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ModelCard(Given):
    id: str
    object: Literal["model"]
    created: int
    """Seconds since 1970."""
    owned_by: str
    max_model_len: int | None = None
    """The longest prompt and answer together, in tokens; absent where a front stands before the models."""


class ModelList(Given):
    object: Literal["list"]
    data: list[ModelCard]


FinishReason = Literal["stop", "length"]


class ChatAnswer(Given):
    role: Literal["assistant"]
    content: str
    refusal: None


class TopToken(Given):
    token: str
    logprob: float
    bytes: list[int]


class ScoredChatToken(TopToken):
    top_logprobs: list[TopToken]


class ChatLogprobs(Given):
    content: list[ScoredChatToken]
    refusal: None


class ChatChoice(Given):
    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Given):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class ChatDelta(Given):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChatChunkChoice(Given):
    index: int
    delta: ChatDelta
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason | None


class ChatChunk(Given):
    """One event of a streamed chat completion; `data: [DONE]` is the last one."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChatChunkChoice]
    usage: Usage | None = None


class CompletionLogprobs(Given):
    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(Given):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason


class Completion(Given):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class CompletionChunkChoice(Given):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None


class CompletionChunk(Given):
    """One event of a streamed completion; `data: [DONE]` is the last one."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChunkChoice]
    usage: Usage | None = None


class PassageFound(Given):
    start: int
    """The first character, counted from 0 in the note as it was sent."""
    end: int
    """Behind the last one."""
    score: Annotated[float, Field(ge=0, le=1)]


class Seconds(Given):
    queue: float | None
    """Until there was room for it."""
    first_token: float | None
    """Since the request; of an item of a batch, since there was room for it."""
    total: float
    """As `first_token`, until the end."""


class ClinicalAnswer(Given):
    id: str
    answer: str
    model: str
    usage: Usage
    finish_reason: FinishReason
    note_was_shortened: bool
    passages: list[PassageFound]
    """Where in the note the answer leans."""
    seconds: Seconds


class AnswerDelta(Given):
    """One event of a streamed clinical answer."""

    type: Literal["answer.delta"]
    delta: str


class AnswerDone(ClinicalAnswer):
    """The last event before `data: [DONE]`: the whole answer."""

    type: Literal["answer.done"]


class SettledItem(Given):
    index: int
    id: str | None
    answer: ClinicalAnswer | None
    error: ErrorFields | None


class BatchAnswer(Given):
    id: str
    model: str
    items: list[SettledItem]
    """In the order of the request, each with an answer or an error."""
    usage: Usage


class ClinicalTask(Given):
    id: TaskId
    object: Literal["clinical.task"]
    name: str
    question: str
    """What is asked where a request has no question of its own."""


class ClinicalTaskList(Given):
    object: Literal["list"]
    data: list[ClinicalTask]


class Health(Given):
    status: Literal["alive", "ready"]
