"""What the OpenAI routes take, field by field; the descriptions stand on the OpenAPI page."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from asclepius_ray.serving.surface.api_errors import invalid_value
from asclepius_ray.serving.surface.body_checks import Body, check_body, without_neutral

LARGEST_COUNT = 1_000_000_000
MOST_CHOICES = 128
MOST_PROMPTS = 128
MOST_STOPS = 4
MOST_LOGPROBS, MOST_LEGACY_LOGPROBS = 20, 5

# What OpenAI's API knows and this surface does not: allowed only with the value that changes nothing.
_NEUTRAL_FOR_BOTH: dict[str, tuple[object, ...]] = {
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "user": (),
}
NEUTRAL_IN_CHAT: dict[str, tuple[object, ...]] = _NEUTRAL_FOR_BOTH | {
    "audio": (),
    "function_call": ("none",),
    "functions": ([],),
    "metadata": ({},),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (),
    "prediction": (),
    "prompt_cache_key": (),
    "prompt_cache_options": (),
    "prompt_cache_retention": (),
    "reasoning_effort": (),
    "response_format": ({"type": "text"},),
    "safety_identifier": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none",),
    "tools": ([],),
    "verbosity": (),
    "web_search_options": (),
}
NEUTRAL_IN_COMPLETIONS: dict[str, tuple[object, ...]] = _NEUTRAL_FOR_BOTH | {
    "best_of": (1,),
    "suffix": ("",),
}


class TextPart(Body):
    """A part of a message; only text is understood."""

    type: Literal["text"]
    text: str


def _text_or_parts(content: object) -> str:
    return "<parts>" if isinstance(content, list) else "<text>"


class ChatMessage(Body):
    """One turn of the chat."""

    role: Literal["system", "developer", "user", "assistant"]
    """`developer` is another name of `system`."""
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[list[TextPart], Tag("<parts>")],
        Discriminator(_text_or_parts),
    ]
    refusal: None = None
    """Taken as null only, and so are the others that a client sends back of an answer."""
    name: None = None
    audio: None = None
    annotations: Annotated[list[str], Field(max_length=0)] | None = None
    tool_calls: Annotated[list[str], Field(max_length=0)] | None = None
    function_call: None = None

    @property
    def turn(self) -> dict[str, str]:
        """As chat templates take it."""
        content = self.content
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


Stop = Annotated[str, Field(min_length=1)]


class StreamOptions(Body):
    include_usage: bool = False
    """One more event before [DONE], with the usage of the whole request."""


class NamedModel(Body):
    """Whom a body of OpenAI's routes asks."""

    model: str
    """The name of a model of GET /v1/models."""


class NamedOrFirstModel(Body):
    """Whom a body of the clinical routes asks."""

    model: Annotated[str | None, Field(min_length=1)] = None
    """The name of a model of GET /v1/models; the first of them where it is not given."""


class Sampling(NamedModel):
    """What both routes share."""

    max_tokens: Annotated[int | None, Field(ge=1, le=LARGEST_COUNT)] = None
    """The longest answer, in tokens."""
    n: Annotated[int | None, Field(ge=1, le=MOST_CHOICES)] = None
    """How many answers to each prompt."""
    temperature: Annotated[float | None, Field(ge=0, le=2, allow_inf_nan=False)] = None
    """0 = always the likeliest token; 1 where it is not given."""
    top_p: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    seed: Annotated[int | None, Field(ge=-(2**63), le=2**63 - 1)] = None
    """The same seed gives a request that runs alone the same text again."""
    stop: (
        Annotated[
            Annotated[Stop, Tag("<text>")]
            | Annotated[list[Stop], Field(max_length=MOST_STOPS), Tag("<parts>")],
            Discriminator(_text_or_parts),
        ]
        | None
    ) = None
    """One to four strings that end the answer; they are not part of it."""
    stream: bool | None = None
    """Server-sent events while the answer grows."""
    stream_options: StreamOptions | None = None
    """Only with `stream`."""

    @model_validator(mode="after")
    def _check(self) -> "Sampling":
        if self.stream_options is not None and not self.stream:
            raise invalid_value("stream_options", "stream_options is only allowed with stream = true.")
        return self

    @property
    def stops(self) -> list[str]:
        if self.stop is None:
            return []
        return [self.stop] if isinstance(self.stop, str) else self.stop

    @property
    def num_choices(self) -> int:
        return self.n or 1

    @property
    def includes_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatCompletionBody(Sampling):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    """The turns so far, the last one to be answered."""
    max_completion_tokens: Annotated[int | None, Field(ge=1, le=LARGEST_COUNT)] = None
    """The newer name of `max_tokens`; only one of them can be set."""
    logprobs: bool | None = None
    """With the log-probability of each token of the answer."""
    top_logprobs: Annotated[int | None, Field(ge=0, le=MOST_LOGPROBS)] = None
    """And of so many likeliest tokens at each place; only with `logprobs`."""

    @model_validator(mode="after")
    def _check_chat(self) -> "ChatCompletionBody":
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise invalid_value("max_tokens", "Set max_tokens or max_completion_tokens, not both.")
        if self.top_logprobs and not self.logprobs:
            raise invalid_value("top_logprobs", "top_logprobs is only allowed with logprobs = true.")
        return self

    @property
    def answer_tokens(self) -> int | None:
        return self.max_tokens if self.max_tokens is not None else self.max_completion_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """How many likeliest tokens at each place; None = no log-probabilities at all."""
        return (self.top_logprobs or 0) if self.logprobs else None


def _kind_of_prompt(prompt: object) -> str:
    if not isinstance(prompt, list):
        return "<text>"
    first = prompt[0] if prompt else ""
    if isinstance(first, list):
        return "<token_lists>"
    return "<texts>" if isinstance(first, str) else "<tokens>"


TokenId = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]


class CompletionBody(Sampling):
    """The body of POST /v1/completions."""

    prompt: Annotated[
        Annotated[str, Field(min_length=1), Tag("<text>")]
        | Annotated[
            list[Annotated[str, Field(min_length=1)]],
            Field(min_length=1, max_length=MOST_PROMPTS),
            Tag("<texts>"),
        ]
        | Annotated[list[TokenId], Field(min_length=1), Tag("<tokens>")]
        | Annotated[
            list[Annotated[list[TokenId], Field(min_length=1)]],
            Field(min_length=1, max_length=MOST_PROMPTS),
            Tag("<token_lists>"),
        ],
        Discriminator(_kind_of_prompt),
    ]
    """A text, its token ids, or a list of either; the answers to several stand in their order."""
    echo: bool | None = None
    """The prompt stands before the answer; not together with `logprobs`."""
    logprobs: Annotated[int | None, Field(ge=0, le=MOST_LEGACY_LOGPROBS)] = None
    """The log-probability of each token of the answer, and of so many likeliest ones at each place."""

    @model_validator(mode="after")
    def _check_completion(self) -> "CompletionBody":
        if self.echo and self.logprobs is not None:
            raise invalid_value(
                "logprobs", "logprobs is not supported with echo: a prompt's own are not computed."
            )
        if len(self.prompts) * self.num_choices > MOST_CHOICES:
            raise invalid_value("n", f"All prompts together have at most {MOST_CHOICES} answers.")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        if isinstance(prompt[0], int):
            return [[token for token in prompt if isinstance(token, int)]]
        return [part for part in prompt if not isinstance(part, int)]


def check_chat_body(values: dict[str, Any]) -> ChatCompletionBody:
    return check_body(ChatCompletionBody, without_neutral(values, NEUTRAL_IN_CHAT))


def check_completion_body(values: dict[str, Any]) -> CompletionBody:
    return check_body(CompletionBody, without_neutral(values, NEUTRAL_IN_COMPLETIONS))
