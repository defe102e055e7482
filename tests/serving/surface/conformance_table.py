"""What OpenAI's API promises, as one table of checks for any endpoint: its address, key and model's name.

The model may be any that answers a question with more than twenty tokens when it is greedy.
"""

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import openai

CANARY = "zebrafinch-canary"
TURN = [{"role": "user", "content": f"{CANARY}: chest pain and dyspnea"}]
PROMPT = "The patient was admitted with"


@dataclass(frozen=True)
class Endpoint:
    """What is checked."""

    base_url: str
    api_key: str
    model: str

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.base_url, api_key=self.api_key, max_retries=0, timeout=120)

    def chat(self, **changes: Any) -> Any:
        body = {"model": self.model, "messages": TURN, "max_tokens": 12, "temperature": 0, **changes}
        return self.client.chat.completions.create(**body)

    def complete(self, **changes: Any) -> Any:
        body = {"model": self.model, "prompt": PROMPT, "max_tokens": 6, "temperature": 0, **changes}
        return self.client.completions.create(**body)

    def post(self, path: str, body: object, key: str | None = None) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {key or self.api_key}", "Content-Type": "application/json"}
        return httpx.post(self.base_url + path, content=content, headers=headers, timeout=120)


Check = Callable[[Endpoint], None]


def the_model_is_listed_and_shown(to: Endpoint) -> None:
    assert to.model in [model.id for model in to.client.models.list()]
    shown = to.client.models.retrieve(to.model)
    assert (shown.id, shown.object) == (to.model, "model")


def a_whole_chat_has_all_its_fields(to: Endpoint) -> None:
    whole = to.chat(max_tokens=5)
    [choice] = whole.choices
    assert whole.object == "chat.completion"
    assert (whole.model, choice.index, choice.finish_reason) == (to.model, 0, "length")
    assert (choice.message.role, choice.logprobs) == ("assistant", None)
    assert choice.message.content
    assert whole.id
    assert whole.created > 0
    assert whole.usage.completion_tokens == 5
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 5


def streamed_text(chunks: list[Any], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    assert [choice.finish_reason for choice in choices[:-1]] == [None] * (len(choices) - 1)
    assert choices[-1].finish_reason in ("stop", "length")
    return "".join(choice.delta.content or "" for choice in choices)


def a_stream_says_what_the_whole_says(to: Endpoint) -> None:
    chunks = list(to.chat(stream=True))
    assert streamed_text(chunks) == to.chat().choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert all(chunk.usage is None for chunk in chunks)


def a_stream_ends_with_done(to: Endpoint) -> None:
    body = {"model": to.model, "messages": TURN, "max_tokens": 3, "stream": True}
    answer = to.post("/chat/completions", body)
    events = [line for line in answer.text.split("\n\n") if line]
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert events[-1] == "data: [DONE]"
    assert all(event.startswith("data: {") for event in events[:-1])


def usage_ends_a_stream_that_asked_for_it(to: Endpoint) -> None:
    chunks = list(to.chat(stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == to.chat().usage


def both_names_of_the_limit_limit(to: Endpoint) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        body = {"max_tokens": openai.omit, name: 4}
        whole = to.chat(**body)
        assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (4, "length")


def a_stop_string_over_a_token_border_ends_the_answer(to: Endpoint) -> None:
    chunks = list(to.chat(stream=True, max_tokens=40))
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    whole = "".join(pieces)
    border = next(at for at in range(5, len(pieces) - 1) if (pieces[at] + pieces[at + 1]).isprintable())
    stop = pieces[border][-1] + pieces[border + 1][0]
    expected = whole[: whole.index(stop)]
    for stops in (stop, ["\0never", stop], ["\0a", "\0b", stop, "\0c"]):
        found = to.chat(max_tokens=40, stop=stops)
        assert (found.choices[0].message.content, found.choices[0].finish_reason) == (expected, "stop")
        assert found.usage.completion_tokens < 40
        assert streamed_text(list(to.chat(max_tokens=40, stop=stops, stream=True))) == expected


def n_choices_have_an_index_each(to: Endpoint) -> None:
    whole = to.chat(n=3, max_tokens=6)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in whole.choices}) == 1
    assert whole.usage.completion_tokens == 18
    chunks = list(to.chat(n=3, max_tokens=6, stream=True))
    assert {streamed_text(chunks, index) for index in range(3)} == {whole.choices[0].message.content}


def sampling_varies_and_a_seed_repeats_it(to: Endpoint) -> None:
    def texts(**changes: Any) -> list[str]:
        whole = to.chat(n=2, temperature=1.8, max_tokens=16, **changes)
        return [choice.message.content for choice in whole.choices]

    seeded = texts(seed=7)
    assert texts(seed=7) == seeded
    assert seeded[0] != seeded[1]
    assert to.chat(seed=7, temperature=1.8, max_tokens=16).choices[0].message.content == seeded[0]
    assert texts(seed=8) != seeded
    assert len({*texts(), *texts()}) > 1


def a_narrow_top_p_is_greedy(to: Endpoint) -> None:
    greedy = to.chat().choices[0].message.content
    assert to.chat(temperature=1.5, top_p=1e-6).choices[0].message.content == greedy


def logprobs_hold_the_bytes_of_the_text(to: Endpoint) -> None:
    whole = to.chat(logprobs=True, top_logprobs=3, max_tokens=20)
    content = whole.choices[0].logprobs.content
    said = b"".join(bytes(token.bytes) for token in content)
    assert said.decode(errors="replace") == whole.choices[0].message.content
    assert len(content) == whole.usage.completion_tokens
    for token in content:
        assert token.logprob <= 0
        assert [top.logprob for top in token.top_logprobs] == sorted(
            (top.logprob for top in token.top_logprobs), reverse=True
        )
        assert len(token.top_logprobs) == 3
        # The answer is greedy: what was said is the likeliest.
        assert abs(token.top_logprobs[0].logprob - token.logprob) < 1e-4
    assert to.chat(logprobs=True, max_tokens=2).choices[0].logprobs.content[0].top_logprobs == []
    assert len(to.chat(logprobs=True, top_logprobs=20, max_tokens=1).choices[0].logprobs.content) == 1


def streamed_logprobs_are_those_of_the_whole(to: Endpoint) -> None:
    whole = to.chat(logprobs=True, top_logprobs=2).choices[0].logprobs.content
    chunks = to.chat(logprobs=True, top_logprobs=2, stream=True)
    choices = [choice for chunk in chunks for choice in chunk.choices]
    streamed = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert [token.token for token in streamed] == [token.token for token in whole]
    assert all(abs(a.logprob - b.logprob) < 1e-3 for a, b in zip(streamed, whole, strict=True))


def text_parts_are_their_text(to: Endpoint) -> None:
    parts = [
        {"type": "text", "text": TURN[0]["content"][:7]},
        {"type": "text", "text": TURN[0]["content"][7:]},
    ]
    found = to.chat(messages=[{"role": "user", "content": parts}])
    assert found.choices[0].message.content == to.chat().choices[0].message.content


def all_roles_are_taken_and_a_developer_is_a_system(to: Endpoint) -> None:
    def answer(role: str) -> Any:
        turns = [
            {"role": role, "content": "Be brief."},
            *TURN,
            {"role": "assistant", "content": "Yes."},
            *TURN,
        ]
        return to.chat(messages=turns)

    assert answer("developer").choices == answer("system").choices
    assert answer("system").usage.prompt_tokens > to.chat().usage.prompt_tokens


def an_answer_can_be_sent_back(to: Endpoint) -> None:
    said = to.chat().choices[0].message
    assert to.chat(messages=[*TURN, said, *TURN]).choices[0].message.content


def values_that_change_nothing_are_taken(to: Endpoint) -> None:
    neutral = {"n": 1, "presence_penalty": 0, "frequency_penalty": 0, "logit_bias": {}, "stop": None}
    more = {"logprobs": False, "tools": [], "response_format": {"type": "text"}, "store": False}
    whole = to.chat(**neutral, **more, seed=None, top_logprobs=None, stream=False)
    assert whole.choices[0].message.content == to.chat().choices[0].message.content


def a_completion_has_all_its_fields(to: Endpoint) -> None:
    whole = to.complete()
    [choice] = whole.choices
    assert (whole.object, whole.model, choice.index) == ("text_completion", to.model, 0)
    assert (choice.finish_reason, choice.logprobs) == ("length", None)
    assert choice.text
    assert (whole.usage.completion_tokens, whole.usage.total_tokens) == (6, whole.usage.prompt_tokens + 6)


def completions_take_lists_of_prompts(to: Endpoint) -> None:
    prompts = [PROMPT, "Troponin was", PROMPT]
    whole = to.complete(prompt=prompts, n=2)
    alone = [to.complete(prompt=prompt) for prompt in prompts]
    assert [choice.index for choice in whole.choices] == list(range(6))
    assert [choice.text for choice in whole.choices] == [one.choices[0].text for one in alone for _ in "ab"]
    assert whole.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone)
    assert whole.usage.completion_tokens == 36


def completions_take_token_ids(to: Endpoint) -> None:
    ids = [11, 12, 13, 14]
    one = to.complete(prompt=ids)
    assert one.usage.prompt_tokens == 4
    both = to.complete(prompt=[ids, ids[:3]])
    assert both.choices[0].text == one.choices[0].text
    assert both.usage.prompt_tokens == 7


def an_echo_stands_before_the_answer(to: Endpoint) -> None:
    text = to.complete().choices[0].text
    assert to.complete(echo=True).choices[0].text == PROMPT + text
    assert "".join(chunk.choices[0].text for chunk in to.complete(echo=True, stream=True)) == PROMPT + text


def a_streamed_completion_says_what_the_whole_says(to: Endpoint) -> None:
    whole = to.complete(prompt=[PROMPT, "Aspirin"])
    chunks = list(
        to.complete(prompt=[PROMPT, "Aspirin"], stream=True, stream_options={"include_usage": True})
    )
    for expected in whole.choices:
        choices = [each for chunk in chunks for each in chunk.choices if each.index == expected.index]
        assert "".join(choice.text for choice in choices) == expected.text
        assert choices[-1].finish_reason == "length"
    assert chunks[-1].usage == whole.usage


def a_completions_stop_string_ends_it(to: Endpoint) -> None:
    text = to.complete(max_tokens=20).choices[0].text
    stop = text[4:6]
    found = to.complete(max_tokens=20, stop=[stop]).choices[0]
    assert (found.text, found.finish_reason) == (text[: text.index(stop)], "stop")


def a_completions_logprobs_have_their_older_shape(to: Endpoint) -> None:
    choice = to.complete(logprobs=2, max_tokens=8).choices[0]
    scores = choice.logprobs
    assert len(scores.tokens) == len(scores.token_logprobs) == len(scores.text_offset) == 8
    assert scores.text_offset[0] == 0
    assert scores.text_offset == sorted(scores.text_offset)
    for token, logprob, top in zip(scores.tokens, scores.token_logprobs, scores.top_logprobs, strict=True):
        assert abs(top[token] - logprob) < 1e-6
        assert 1 <= len(top) <= 3
    for token, offset in zip(scores.tokens, scores.text_offset, strict=True):
        # A token that holds a part of a character only has no text of its own.
        assert token.startswith("bytes:") or choice.text[offset:].lstrip("\ufffd").startswith(token)


CHECKS: list[Check] = [
    the_model_is_listed_and_shown,
    a_whole_chat_has_all_its_fields,
    a_stream_says_what_the_whole_says,
    a_stream_ends_with_done,
    usage_ends_a_stream_that_asked_for_it,
    both_names_of_the_limit_limit,
    a_stop_string_over_a_token_border_ends_the_answer,
    n_choices_have_an_index_each,
    sampling_varies_and_a_seed_repeats_it,
    a_narrow_top_p_is_greedy,
    logprobs_hold_the_bytes_of_the_text,
    streamed_logprobs_are_those_of_the_whole,
    text_parts_are_their_text,
    all_roles_are_taken_and_a_developer_is_a_system,
    an_answer_can_be_sent_back,
    values_that_change_nothing_are_taken,
    a_completion_has_all_its_fields,
    completions_take_lists_of_prompts,
    completions_take_token_ids,
    an_echo_stands_before_the_answer,
    a_streamed_completion_says_what_the_whole_says,
    a_completions_stop_string_ends_it,
    a_completions_logprobs_have_their_older_shape,
]


@dataclass(frozen=True)
class Refusal:
    """A request that is refused: what is sent, and the error's status, code and parameter."""

    path: str
    body: Any
    status: int
    code: str
    param: str | None


CHAT, COMPLETIONS = "/chat/completions", "/completions"


def chat(**changes: Any) -> dict[str, Any]:
    return {"model": "MODEL", "messages": TURN, "max_tokens": 4, **changes}


def completion(**changes: Any) -> dict[str, Any]:
    return {"model": "MODEL", "prompt": CANARY, "max_tokens": 4, **changes}


def turn(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "pain", **fields}]


IMAGE = [{"type": "image_url", "image_url": {"url": f"data:{base64.b64encode(CANARY.encode()).decode()}"}}]
LONG_TEXT = f"{CANARY} " * 6000
UNSUPPORTED_IN_CHAT: dict[str, Any] = {
    "tools": [{"type": CANARY}],
    "tool_choice": "auto",
    "functions": [{"name": CANARY}],
    "function_call": "auto",
    "response_format": {"type": "json_object"},
    "presence_penalty": 0.5,
    "frequency_penalty": -1,
    "logit_bias": {"5": 1},
    "parallel_tool_calls": True,
    "store": True,
    "user": CANARY,
    "metadata": {"who": CANARY},
    "modalities": ["audio"],
    "service_tier": "flex",
    "reasoning_effort": "low",
    "web_search_options": {},
    "prediction": {"type": "content", "content": CANARY},
    "audio": {},
    "verbosity": "low",
}
REFUSALS: dict[str, Refusal] = {
    **{
        f"chat {name}": Refusal(CHAT, chat(**{name: value}), 400, "unsupported_parameter", name)
        for name, value in UNSUPPORTED_IN_CHAT.items()
    },
    "not JSON": Refusal(CHAT, b'{"model": "MODEL", zebrafinch-canary', 400, "invalid_json", None),
    "not an object": Refusal(CHAT, [CANARY], 400, "invalid_json", None),
    "empty body": Refusal(CHAT, b"", 400, "invalid_json", None),
    "half a character": Refusal(CHAT, b'{"model": "zebrafinch-canary \\ud800"}', 400, "invalid_json", None),
    "bytes that are no text": Refusal(CHAT, b'{"model": "\xff\xfe"}', 400, "invalid_json", None),
    "deep nesting": Refusal(CHAT, b'{"messages": ' + b"[" * 100_000, 400, "invalid_json", None),
    "not a number": Refusal(CHAT, b'{"model": "MODEL", "temperature": NaN}', 400, "invalid_json", None),
    "no model": Refusal(CHAT, {"messages": TURN}, 400, "missing_required_parameter", "model"),
    "no messages": Refusal(CHAT, {"model": "MODEL"}, 400, "missing_required_parameter", "messages"),
    "empty messages": Refusal(CHAT, chat(messages=[]), 400, "invalid_value", "messages"),
    "unknown parameter": Refusal(CHAT, chat(temprature=1), 400, "unknown_parameter", "temprature"),
    "another engine's parameter": Refusal(CHAT, chat(top_k=5), 400, "unknown_parameter", "top_k"),
    "text as a parameter": Refusal(CHAT, chat(**{f"{CANARY} has": 1}), 400, "unknown_parameter", "(name)"),
    "role": Refusal(CHAT, chat(messages=turn(role=CANARY)), 400, "invalid_value", "messages.0.role"),
    "tool's role": Refusal(CHAT, chat(messages=turn(role="tool")), 400, "invalid_value", "messages.0.role"),
    "content": Refusal(CHAT, chat(messages=turn(content=5)), 400, "invalid_type", "messages.0.content"),
    "no content": Refusal(
        CHAT, chat(messages=[{"role": "user"}]), 400, "missing_required_parameter", "messages.0.content"
    ),
    "an image": Refusal(
        CHAT, chat(messages=turn(content=IMAGE)), 400, "invalid_value", "messages.0.content.0.type"
    ),
    "a name in a turn": Refusal(
        CHAT, chat(messages=turn(name=CANARY)), 400, "invalid_type", "messages.0.name"
    ),
    "n": Refusal(CHAT, chat(n=0), 400, "invalid_value", "n"),
    "many n": Refusal(CHAT, chat(n=129), 400, "invalid_value", "n"),
    "true for a number": Refusal(CHAT, chat(n=True), 400, "invalid_type", "n"),
    "a number as text": Refusal(CHAT, chat(max_tokens="4"), 400, "invalid_type", "max_tokens"),
    "a huge number": Refusal(CHAT, chat(max_tokens=10**300), 400, "invalid_value", "max_tokens"),
    "seed": Refusal(CHAT, chat(seed=2**63), 400, "invalid_value", "seed"),
    "temperature": Refusal(CHAT, chat(temperature=3), 400, "invalid_value", "temperature"),
    "temperature as text": Refusal(CHAT, chat(temperature=CANARY), 400, "invalid_type", "temperature"),
    "top_p": Refusal(CHAT, chat(top_p=1.1), 400, "invalid_value", "top_p"),
    "max_tokens": Refusal(CHAT, chat(max_tokens=0), 400, "invalid_value", "max_tokens"),
    "negative max_tokens": Refusal(CHAT, chat(max_tokens=-1), 400, "invalid_value", "max_tokens"),
    "both limits": Refusal(CHAT, chat(max_completion_tokens=4), 400, "invalid_value", "max_tokens"),
    "five stops": Refusal(CHAT, chat(stop=list("abcde")), 400, "invalid_value", "stop"),
    "empty stop": Refusal(CHAT, chat(stop=""), 400, "invalid_value", "stop"),
    "empty stop in a list": Refusal(CHAT, chat(stop=["a", ""]), 400, "invalid_value", "stop.1"),
    "stream": Refusal(CHAT, chat(stream="yes"), 400, "invalid_type", "stream"),
    "stream_options": Refusal(CHAT, chat(stream_options={}), 400, "invalid_value", "stream_options"),
    "unknown stream option": Refusal(
        CHAT, chat(stream=True, stream_options={"a": 1}), 400, "unknown_parameter", "stream_options.a"
    ),
    "top_logprobs alone": Refusal(CHAT, chat(top_logprobs=2), 400, "invalid_value", "top_logprobs"),
    "many top_logprobs": Refusal(
        CHAT, chat(logprobs=True, top_logprobs=21), 400, "invalid_value", "top_logprobs"
    ),
    "model": Refusal(CHAT, chat(model=CANARY), 404, "model_not_found", "model"),
    "long prompt": Refusal(
        CHAT, chat(messages=turn(content=LONG_TEXT)), 400, "context_length_exceeded", "messages"
    ),
    "long answer": Refusal(CHAT, chat(max_tokens=10**6), 400, "context_length_exceeded", "messages"),
    "large body": Refusal(CHAT, CANARY.encode() * 400_000, 413, "request_too_large", None),
    "route": Refusal("/embeddings", {"input": CANARY}, 404, "not_found", None),
    "method": Refusal("/models", {"a": CANARY}, 405, "method_not_allowed", None),
    "completion's model": Refusal(COMPLETIONS, completion(model=CANARY), 404, "model_not_found", "model"),
    "no prompt": Refusal(COMPLETIONS, {"model": "MODEL"}, 400, "missing_required_parameter", "prompt"),
    "empty prompt": Refusal(COMPLETIONS, completion(prompt=""), 400, "invalid_value", "prompt"),
    "empty prompts": Refusal(COMPLETIONS, completion(prompt=[]), 400, "invalid_value", "prompt"),
    "empty among prompts": Refusal(
        COMPLETIONS, completion(prompt=["a", ""]), 400, "invalid_value", "prompt.1"
    ),
    "mixed prompts": Refusal(COMPLETIONS, completion(prompt=["a", 5]), 400, "invalid_type", "prompt.1"),
    "unknown token": Refusal(COMPLETIONS, completion(prompt=[5, 10**8]), 400, "invalid_value", "prompt"),
    "negative token": Refusal(
        COMPLETIONS, completion(prompt=[[5], [-1]]), 400, "invalid_value", "prompt.1.0"
    ),
    "suffix": Refusal(COMPLETIONS, completion(suffix=CANARY), 400, "unsupported_parameter", "suffix"),
    "best_of": Refusal(COMPLETIONS, completion(best_of=2), 400, "unsupported_parameter", "best_of"),
    "logprobs": Refusal(COMPLETIONS, completion(logprobs=6), 400, "invalid_value", "logprobs"),
    "logprobs of an echo": Refusal(
        COMPLETIONS, completion(logprobs=1, echo=True), 400, "invalid_value", "logprobs"
    ),
    "too many answers": Refusal(COMPLETIONS, completion(prompt=["a", "b"], n=65), 400, "invalid_value", "n"),
    "long completion": Refusal(
        COMPLETIONS, completion(prompt=LONG_TEXT), 400, "context_length_exceeded", "prompt"
    ),
}


def check_refusal(to: Endpoint, refusal: Refusal) -> None:
    """The error has OpenAI's shape, says the code and the parameter, and nothing of the text."""
    body = refusal.body
    if isinstance(body, dict) and body.get("model") == "MODEL":
        body = body | {"model": to.model}
    answer = to.post(refusal.path, body)
    error = answer.json()["error"]
    found = (answer.status_code, error["code"], error["param"], error["type"])
    assert found == (refusal.status, refusal.code, refusal.param, "invalid_request_error")
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert CANARY not in answer.text + str(answer.headers)
