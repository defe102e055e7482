"""The offline teacher over HTTP: /v1/models and /v1/chat/completions as OpenAI has them, answered by rules.

The rules need no sampling, so temperature, top_p and seed change nothing; what they do not know
(tools, several choices) is refused by name.
"""

import asyncio
import hmac
import json
import math
import time
from array import array
from collections import Counter
from dataclasses import dataclass

from aiohttp import web
from aiohttp.typedefs import Handler

from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.offline.batches import OfflineBatches
from asclepius_ray.chat.offline.faults import Fault, Faults, RateLimits
from asclepius_ray.chat.offline.prompt_reading import PromptParts, read_prompt
from asclepius_ray.chat.offline.rules import reply_to, short_reply_to
from asclepius_ray.chat.prices import CHARACTERS_PER_TOKEN, estimate_tokens

DESCRIPTION = (
    "Rules that ship with asclepius-ray. Not a language model: it rearranges the text of the prompt."
)
REFUSAL_TEXT = "I'm sorry, but as an AI language model I cannot help with that."

_ERRORS = {
    Fault.SERVER_ERROR: (500, "server_error", "the server met an error, as it was told to", None),
    Fault.BAD_REQUEST: (400, "invalid_request", "the request is refused, as I was told to", "messages"),
    Fault.CONTEXT_TOO_LONG: (400, "context_length_exceeded", "the prompt is too long", "messages"),
    Fault.NO_QUOTA: (429, "insufficient_quota", "the quota is used up", None),
}
_OF_THE_CONNECTION = {Fault.HANG, Fault.DISCONNECT}
"""No line of a batch can meet these."""
_WITHOUT_REPLY = {*_ERRORS, *_OF_THE_CONNECTION, Fault.MALFORMED}

_KNOWN_FIELDS = {
    "model", "messages", "max_tokens", "max_completion_tokens", "stream", "stream_options", "n",
    "temperature", "top_p", "seed", "user",
}  # fmt: skip


@dataclass(frozen=True)
class Served:
    """What the rules say to one request."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def num_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.num_tokens,
        }


class TeacherService:
    """The handlers, and what they count: `answered` by step, lines of batches included, as in all counts;
    `received` too, with requests that were refused or broken off."""

    def __init__(self, api_key: str, faults: Faults) -> None:
        self.answered: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.faults_met: Counter[str] = Counter()
        """By fault; an outage counts each request that met it, `quota_requests` each that found no quota."""
        self.refusals = 0
        """Requests beyond a rate limit."""
        self.most_in_flight = 0
        self.accepted_at = array("d")
        """Monotonic seconds at which each request came that no limit refused."""
        self.first_answer_at = 0.0
        self.last_answer_at = 0.0
        self.answers_by_prompt: Counter[int] = Counter()
        """By the hash of the prompt: how often it was answered."""
        self.bought_twice = 0
        """Answers to prompts that had one before."""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        """What a provider would charge for: of all calls that were worked on, broken off or not."""
        self.has_endless_quota = not faults.quota_requests
        self.batches = OfflineBatches(self.answer_line)
        self._num_bought = 0
        self._in_flight = 0
        self._api_key = api_key
        self._faults = faults
        self._limits = RateLimits(faults, time.monotonic())
        self._first_post_at: float | None = None
        # Attempts are counted by the hash of the prompt, so that a doubled max_tokens is the same request.
        self._attempts: Counter[int] = Counter()

    def application(self) -> web.Application:
        # A middleware costs every request time: each is there only where it has something to do.
        middlewares = [self._meet_outage] if self._faults.outage_seconds else []
        middlewares += [self._check_key] if self._api_key else []
        application = web.Application(client_max_size=16 * 2**20, middlewares=middlewares)
        application.router.add_post("/v1/chat/completions", self.complete_chat)
        application.router.add_get("/v1/models", self.list_models)
        application.router.add_get("/offline/counters", self.show_counters)
        self.batches.add_routes(application)
        return application

    async def list_models(self, request: web.Request) -> web.Response:
        model = {"id": OFFLINE_MODEL, "object": "model", "created": 0, "owned_by": "asclepius-ray"}
        return web.json_response({"object": "list", "data": [{**model, "description": DESCRIPTION}]})

    async def show_counters(self, request: web.Request) -> web.Response:
        """What a benchmark in another process reads: numbers only."""
        counters = {
            "answered": self.answered,
            "received": self.received,
            "faults_met": self.faults_met,
            "refusals": self.refusals,
            "most_in_flight": self.most_in_flight,
            "bought_twice": self.bought_twice,
            "in_flight": self._in_flight,
            "prompts_accepted": len(self._attempts),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "accepted_at": self.accepted_at.tolist(),
            "first_answer_at": self.first_answer_at,
            "last_answer_at": self.last_answer_at,
        }
        return web.json_response(counters)

    async def answer_line(self, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        """The status and the body of the reply to one line of a batch; limits and latency do not apply."""
        prompt = _text_of(body.get("messages"))
        parts = read_prompt(prompt)
        if parts is None or body.get("model") != OFFLINE_MODEL:
            return 400, {"error": {"message": "not a prompt that the rules know", "code": "unknown_prompt"}}
        self.received[parts.step] += 1
        if self._is_quota_used_up():
            return _as_line(*_error_of(Fault.NO_QUOTA, prompt))
        if (refused := self._refuse_parameter(body)) is not None:
            return _as_line(*refused)
        digest, _attempt, fault = self._draw(prompt)
        fault = Fault.NONE if fault in _OF_THE_CONNECTION else fault
        self._count_fault(fault)
        if fault in _ERRORS:
            return _as_line(*_error_of(fault, prompt))
        if fault is Fault.MALFORMED:
            return 200, {"choices": []}
        served = self._answer(prompt, parts, fault, body)
        self._count_answer(parts.step, digest)
        return 200, self._completion_of(served)

    async def complete_chat(self, request: web.Request) -> web.StreamResponse:
        body = _read_json(await request.read())
        problem = _find_problem(body)
        if problem is not None:
            return problem
        prompt = _text_of(body["messages"])
        parts = read_prompt(prompt)
        if parts is None:
            message = (
                "the rules know only the prompts of asclepius-ray; this one has none of the tags "
                "<case_report>, <examples>, <question> and <answer label=...>"
            )
            return _error(400, "unknown_prompt", message, "messages")
        self.received[parts.step] += 1
        self._in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self._in_flight)
        try:
            response = await self._serve(request, body, prompt, parts)
        finally:
            self._in_flight -= 1
        if not response.prepared:
            response.headers.update(self._rate_headers())
        return response

    async def _serve(
        self, request: web.Request, body: dict[str, object], prompt: str, parts: PromptParts
    ) -> web.StreamResponse:
        now = time.monotonic()
        refused = self._refuse(body, now)
        if refused is not None:
            return refused
        digest, attempt, fault = self._draw(prompt)
        self._count_fault(fault)
        served = None if fault in _WITHOUT_REPLY else self._answer(prompt, parts, fault, body)
        # Counted before anything is waited for, so that those who come meanwhile find it taken.
        self._limits.take(estimate_tokens(prompt) if served is None else served.num_tokens)
        self.accepted_at.append(now)
        latency_seconds = self._faults.latency_of(prompt, attempt)
        if latency_seconds:
            await asyncio.sleep(latency_seconds)
        if served is None:
            return await _break(request, fault, prompt)
        self._count_answer(parts.step, digest)
        if body.get("stream"):
            return await self._stream(request, served, body)
        return web.json_response(self._completion_of(served))

    def _refuse(self, body: dict[str, object], now: float) -> web.Response | None:
        """No quota, a limit that is used up, or a parameter that the model does not take."""
        if self._is_quota_used_up():
            return _error(*_ERRORS[Fault.NO_QUOTA])
        wait_seconds = self._limits.wait_seconds(now)
        if wait_seconds > 0:
            self.refusals += 1
            told = self._faults.retry_after_seconds
            seconds = math.ceil(wait_seconds) if told < 0 else told
            headers = {"Retry-After": f"{seconds:g}"} if seconds else None
            return _error(429, "rate_limit_exceeded", "too many requests", headers=headers)
        refused = self._refuse_parameter(body)
        return _error(*refused) if refused is not None else None

    def _refuse_parameter(self, body: dict[str, object]) -> tuple[int, str, str, str] | None:
        if self._faults.refuse_temperature and body.get("temperature", 1) != 1:
            return 400, "unsupported_value", "only the default temperature", "temperature"
        if self._faults.refuse_max_tokens and "max_tokens" in body:
            return 400, "unsupported_parameter", "use max_completion_tokens", "max_tokens"
        return None

    def _is_quota_used_up(self) -> bool:
        is_used_up = not self.has_endless_quota and self._num_bought >= self._faults.quota_requests
        if is_used_up:
            self.faults_met["quota_requests"] += 1
        return is_used_up

    def _draw(self, prompt: str) -> tuple[int, int, Fault]:
        """The hash of the prompt, the number of this attempt and the fault that it meets."""
        digest = hash(prompt)
        self._attempts[digest] += 1
        attempt = self._attempts[digest]
        return digest, attempt, self._faults.draw(prompt, attempt)

    def _answer(self, prompt: str, parts: PromptParts, fault: Fault, body: dict[str, object]) -> Served:
        """What the rules say; from now on it counts against the quota."""
        self._num_bought += 1
        text, finish_reason = _say(prompt, parts, fault, bool(self._faults.short))
        limit = body.get("max_completion_tokens", body.get("max_tokens"))
        if isinstance(limit, int) and estimate_tokens(text) > limit:
            text, finish_reason = text[: limit * CHARACTERS_PER_TOKEN], "length"
        served = Served(text, finish_reason, estimate_tokens(prompt), estimate_tokens(text))
        self.prompt_tokens += served.prompt_tokens
        self.completion_tokens += served.completion_tokens
        return served

    def _count_fault(self, fault: Fault) -> None:
        if fault is not Fault.NONE:
            self.faults_met[fault.value] += 1

    def _count_answer(self, step: str, digest: int) -> None:
        self.last_answer_at = time.monotonic()
        self.first_answer_at = self.first_answer_at or self.last_answer_at
        self.answered[step] += 1
        self.answers_by_prompt[digest] += 1
        self.bought_twice += self.answers_by_prompt[digest] > 1

    def _rate_headers(self) -> dict[str, str]:
        return self._limits.headers(time.monotonic()) if self._faults.rate_headers else {}

    @web.middleware
    async def _meet_outage(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not request.path.startswith("/v1/"):
            return await handler(request)
        now = time.monotonic()
        # The look at the models before a run is no work yet: an outage comes in the middle of it.
        if self._first_post_at is None and request.method == "POST":
            self._first_post_at = now
        if self._first_post_at is None or not self._faults.is_out(now - self._first_post_at):
            return await handler(request)
        self.faults_met["outage"] += 1
        if self._faults.outage_disconnects:
            return _hang_up(request)
        return _error(503, "unavailable", "the server is down, as it was told to be")

    @web.middleware
    async def _check_key(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), self._api_key.encode()):
            return await handler(request)
        return _error(401, "invalid_api_key", "the API key is missing or wrong")

    def _completion_of(self, served: Served) -> dict[str, object]:
        """The body of a chat completion."""
        message = {"role": "assistant", "content": served.text}
        choice = {"index": 0, "message": message, "finish_reason": served.finish_reason}
        usage = {"usage": served.usage} if self._faults.usage else {}
        return {**_frame("chat.completion"), "choices": [choice], **usage}

    async def _stream(
        self, request: web.Request, served: Served, body: dict[str, object]
    ) -> web.StreamResponse:
        headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        response = web.StreamResponse(headers=headers | self._rate_headers())
        await response.prepare(request)
        frame = _frame("chat.completion.chunk")
        options = body.get("stream_options")
        deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": line} for line in served.text.splitlines(keepends=True)]
        choices: list[dict[str, object]]
        choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        choices.append({"index": 0, "delta": {}, "finish_reason": served.finish_reason})
        for choice in choices:
            await _send_event(response, {**frame, "choices": [choice]})
        if isinstance(options, dict) and options.get("include_usage") and self._faults.usage:
            await _send_event(response, {**frame, "choices": [], "usage": served.usage})
        await response.write(b"data: [DONE]\n\n")
        return response


def _say(prompt: str, parts: PromptParts, fault: Fault, is_short: bool) -> tuple[str, str]:
    """The text of the reply and its finish_reason."""
    if fault is Fault.EMPTY:
        return "", "stop"
    if fault is Fault.REFUSAL:
        return REFUSAL_TEXT, "stop"
    if fault is Fault.CONTENT_FILTER:
        return "", "content_filter"
    text = short_reply_to(prompt, parts) if is_short else reply_to(parts)
    return (text[: len(text) // 2], "length") if fault is Fault.TRUNCATION else (text, "stop")


async def _break(request: web.Request, fault: Fault, prompt: str) -> web.Response:
    """What comes of the faults that give no completion."""
    if fault is Fault.HANG:
        await asyncio.Event().wait()
    if fault is Fault.DISCONNECT:
        return _hang_up(request)
    if fault is Fault.MALFORMED:
        return web.Response(body=b'{"choices": [{"mess', content_type="application/json")
    return _error(*_error_of(fault, prompt))


def _hang_up(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.close()
    return web.Response()


def _error_of(fault: Fault, prompt: str) -> tuple[int, str, str, str | None]:
    """Status, code, message and parameter; of a bad request the message repeats the prompt, as servers do."""
    status, code, message, parameter = _ERRORS[fault]
    return status, code, f"{message}: {prompt}" if fault is Fault.BAD_REQUEST else message, parameter


def _as_line(status: int, code: str, message: str, parameter: str | None) -> tuple[int, dict[str, object]]:
    return status, {"error": {"message": message, "code": code, "param": parameter}}


async def _send_event(response: web.StreamResponse, event: dict[str, object]) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


def _frame(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-offline", "object": kind, "created": int(time.time()), "model": OFFLINE_MODEL}


def _read_json(raw: bytes) -> dict[str, object]:
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _find_problem(body: dict[str, object]) -> web.Response | None:
    for name in ("model", "messages"):
        if not body.get(name):
            return _error(400, "missing_required_parameter", f"{name} is required", name)
    if body["model"] != OFFLINE_MODEL:
        return _error(404, "model_not_found", f"the only model here is {OFFLINE_MODEL}", "model")
    for name in body:
        if name not in _KNOWN_FIELDS or (name == "n" and body["n"] != 1):
            return _error(400, "unsupported_parameter", f"the rules do not support {name} as it is set", name)
    if not _text_of(body["messages"]):
        return _error(400, "invalid_type", "messages must hold at least one turn with text", "messages")
    return None


def _text_of(messages: object) -> str:
    turns = messages if isinstance(messages, list) else []
    texts = []
    for turn in turns:
        content = turn.get("content") if isinstance(turn, dict) else None
        parts = content if isinstance(content, list) else [{"text": content}]
        texts += [str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text")]
    return "\n".join(texts)


def _error(
    status: int, code: str, message: str, parameter: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": message, "type": kind, "param": parameter, "code": code}
    return web.json_response({"error": error}, status=status, headers=headers)
