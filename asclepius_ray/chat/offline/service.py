"""The offline teacher over HTTP: /v1/models and /v1/chat/completions as OpenAI has them, answered by rules.

The rules need no sampling, so temperature, top_p and seed change nothing; what they do not know
(tools, several choices) is refused by name.
"""

import asyncio
import hmac
import json
import math
import time
from collections import Counter
from dataclasses import dataclass, replace

from aiohttp import web

from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.offline.batches import OfflineBatches
from asclepius_ray.chat.offline.faults import Fault, Faults, RateLimit
from asclepius_ray.chat.offline.prompt_reading import PromptParts, read_prompt
from asclepius_ray.chat.offline.rules import reply_to, short_reply_to
from asclepius_ray.chat.prices import CHARACTERS_PER_TOKEN, estimate_tokens

DESCRIPTION = (
    "Rules that ship with asclepius-ray. Not a language model: it rearranges the text of the prompt."
)
_STATUS_OF = {
    Fault.SERVER_ERROR: (500, "server_error"),
    Fault.BAD_REQUEST: (400, "invalid_request"),
    Fault.CONTEXT_TOO_LONG: (400, "context_length_exceeded"),
    Fault.NO_QUOTA: (429, "insufficient_quota"),
}
"""The faults that a line of a batch can meet; those of a connection cannot strike it."""
REFUSAL_TEXT = "I'm sorry, but as an AI language model I cannot help with that."

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

    @property
    def usage(self) -> dict[str, int]:
        completion_tokens = estimate_tokens(self.text)
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": self.prompt_tokens + completion_tokens,
        }


class TeacherService:
    """The handlers, and what they count. Counts are by step; `received` has every request of the route."""

    def __init__(self, api_key: str, faults: Faults) -> None:
        self.answered: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self.faults_met: Counter[str] = Counter()
        self.most_in_flight = 0
        self._in_flight = 0
        self._api_key = api_key
        self._faults = faults
        now = time.monotonic()
        limits = {"requests": faults.requests_per_minute, "tokens": faults.tokens_per_minute}
        self._limits = {kind: RateLimit(limit, now) for kind, limit in limits.items() if limit}
        self._first_request_at: float | None = None
        self.batches = OfflineBatches(self.answer_line)
        self.refusals = 0
        self.accepted_at: list[float] = []
        """Monotonic seconds at which each accepted request came."""
        self.last_answer_at = 0.0
        self.answers_by_prompt: Counter[int] = Counter()
        """By the hash of the prompt: how often it was answered."""
        # Attempts are counted by the hash of the prompt, so that a doubled max_tokens is the same request.
        self._attempts: Counter[int] = Counter()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=16 * 2**20)
        application.router.add_get("/v1/models", self.list_models)
        application.router.add_post("/v1/chat/completions", self.complete_chat)
        application.router.add_get("/offline/counters", self.show_counters)
        self.batches.add_routes(application)
        return application

    async def list_models(self, request: web.Request) -> web.Response:
        if not self._is_authorized(request):
            return _error(401, "invalid_api_key", "the API key is missing or wrong")
        model = {"id": OFFLINE_MODEL, "object": "model", "created": 0, "owned_by": "asclepius-ray"}
        return web.json_response({"object": "list", "data": [{**model, "description": DESCRIPTION}]})

    async def answer_line(self, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        """The status and the body of the reply to one line of a batch; limits and latency do not apply."""
        prompt = _text_of(body.get("messages"))
        parts = read_prompt(prompt)
        if parts is None or body.get("model") != OFFLINE_MODEL:
            return 400, {"error": {"message": "not a prompt that the rules know", "code": "unknown_prompt"}}
        self.received[parts.step] += 1
        digest = hash(prompt)
        self._attempts[digest] += 1
        fault = self._faults.draw(prompt, self._attempts[digest])
        if fault in _STATUS_OF:
            status, code = _STATUS_OF[fault]
            return status, {"error": {"message": "as the server was told to", "code": code}}
        served = _limit_length(_answer(prompt, parts, fault, self._faults.short), body)
        self.answered[parts.step] += 1
        self.answers_by_prompt[digest] += 1
        return 200, completion_of(served)

    async def show_counters(self, request: web.Request) -> web.Response:
        """What a benchmark in another process reads: numbers only."""
        if not self._is_authorized(request):
            return _error(401, "invalid_api_key", "the API key is missing or wrong")
        counters = {
            "answered": self.answered,
            "received": self.received,
            "refusals": self.refusals,
            "most_in_flight": self.most_in_flight,
            "bought_twice": sum(times - 1 for times in self.answers_by_prompt.values()),
            "accepted_at": self.accepted_at,
            "last_answer_at": self.last_answer_at,
        }
        return web.json_response(counters)

    async def complete_chat(self, request: web.Request) -> web.StreamResponse:
        if not self._is_authorized(request):
            return _error(401, "invalid_api_key", "the API key is missing or wrong")
        if self._is_down():
            return _error(503, "unavailable", "the server is down, as it was told to be")
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
            return await self._serve(request, body, prompt, parts)
        finally:
            self._in_flight -= 1

    async def _serve(
        self, request: web.Request, body: dict[str, object], prompt: str, parts: PromptParts
    ) -> web.StreamResponse:
        refused = self._refuse(body)
        if refused is not None:
            return refused
        digest = hash(prompt)
        self._attempts[digest] += 1
        attempt = self._attempts[digest]
        fault = self._faults.draw(prompt, attempt)
        if fault is not Fault.NONE:
            self.faults_met[fault.value] += 1
        if self._faults.latency_seconds or self._faults.slow:
            await asyncio.sleep(self._faults.latency_of(prompt, attempt))
        broken = await _break(request, fault)
        if broken is not None:
            return broken
        served = _limit_length(_answer(prompt, parts, fault, self._faults.short), body)
        self.answered[parts.step] += 1
        self.answers_by_prompt[digest] += 1
        self.last_answer_at = time.monotonic()
        if body.get("stream"):
            return await _stream(request, served, body)
        return web.json_response(completion_of(served), headers=self._account(served))

    def _is_down(self) -> bool:
        now = time.monotonic()
        if self._first_request_at is None:
            self._first_request_at = now
        since = now - self._first_request_at - self._faults.outage_after_seconds
        is_down = 0 <= since < self._faults.outage_seconds
        self.faults_met["outage"] += is_down
        return is_down

    def _refuse(self, body: dict[str, object]) -> web.Response | None:
        """A limit that is used up, or a parameter that the model does not take."""
        now = time.monotonic()
        wait = max((limit.take(now) for limit in self._limits.values()), default=0.0)
        if wait > 0:
            self.refusals += 1
            told = self._faults.retry_after_seconds
            seconds = math.ceil(wait) if told < 0 else told
            headers = {"Retry-After": f"{seconds:g}"} if seconds else None
            return _error(429, "rate_limit_exceeded", "too many requests", headers=headers)
        if self._faults.refuse_temperature and body.get("temperature", 1) != 1:
            return _error(400, "unsupported_value", "only the default temperature", "temperature")
        if self._faults.refuse_max_tokens and "max_tokens" in body:
            return _error(400, "unsupported_parameter", "use max_completion_tokens", "max_tokens")
        self.accepted_at.append(now)
        return None

    def _account(self, served: Served) -> dict[str, str] | None:
        """Takes the reply's tokens from their limit; the headers that tell what is left, if wanted."""
        if (tokens := self._limits.get("tokens")) is not None:
            tokens.owe(served.usage["total_tokens"] - 1)
        if not self._faults.rate_headers:
            return None
        headers = {}
        told = {"requests": self._faults.requests_per_minute, "tokens": self._faults.tokens_per_minute}
        for kind, limit in self._limits.items():
            headers[f"x-ratelimit-limit-{kind}"] = str(told[kind])
            headers[f"x-ratelimit-remaining-{kind}"] = str(limit.left)
            headers[f"x-ratelimit-reset-{kind}"] = f"{limit.full_in_seconds:.3f}s"
        return headers

    def _is_authorized(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return not self._api_key or hmac.compare_digest(given.encode(), self._api_key.encode())


def completion_of(served: Served) -> dict[str, object]:
    """The body of a chat completion."""
    message = {"role": "assistant", "content": served.text}
    choice = {"index": 0, "message": message, "finish_reason": served.finish_reason}
    return {**_frame("chat.completion"), "choices": [choice], "usage": served.usage}


def _answer(prompt: str, parts: PromptParts, fault: Fault, short: int) -> Served:
    prompt_tokens = estimate_tokens(prompt)
    if fault is Fault.EMPTY:
        return Served("", "stop", prompt_tokens)
    if fault is Fault.REFUSAL:
        return Served(REFUSAL_TEXT, "stop", prompt_tokens)
    if fault is Fault.CONTENT_FILTER:
        return Served("", "content_filter", prompt_tokens)
    text = short_reply_to(prompt, parts) if short else reply_to(parts)
    if fault is Fault.TRUNCATION:
        return Served(text[: len(text) // 2], "length", prompt_tokens)
    return Served(text, "stop", prompt_tokens)


async def _break(request: web.Request, fault: Fault) -> web.StreamResponse | None:
    """The reply of the faults that give no completion; None for the others."""
    match fault:
        case Fault.SERVER_ERROR:
            return _error(500, "server_error", "the server met an error, as it was told to")
        case Fault.BAD_REQUEST:
            return _error(
                400, "invalid_request", "the request is refused, as the server was told to", "messages"
            )
        case Fault.CONTEXT_TOO_LONG:
            return _error(400, "context_length_exceeded", "the prompt is too long", "messages")
        case Fault.NO_QUOTA:
            return _error(429, "insufficient_quota", "the quota is used up")
        case Fault.MALFORMED:
            return web.Response(body=b'{"choices": [{"mess', content_type="application/json")
        case Fault.HANG:
            await asyncio.Event().wait()
        case Fault.DISCONNECT if request.transport is not None:
            request.transport.close()
            return web.Response()
    return None


def _limit_length(served: Served, body: dict[str, object]) -> Served:
    limit = body.get("max_completion_tokens", body.get("max_tokens"))
    if not isinstance(limit, int) or estimate_tokens(served.text) <= limit:
        return served
    return replace(served, text=served.text[: limit * CHARACTERS_PER_TOKEN], finish_reason="length")


async def _stream(request: web.Request, served: Served, body: dict[str, object]) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
    await response.prepare(request)
    frame = _frame("chat.completion.chunk")
    options = body.get("stream_options")
    deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": word} for word in served.text.splitlines(keepends=True)]
    for delta in deltas:
        await _send_event(
            response, {**frame, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        )
    end = {"index": 0, "delta": {}, "finish_reason": served.finish_reason}
    await _send_event(response, {**frame, "choices": [end]})
    if isinstance(options, dict) and options.get("include_usage"):
        await _send_event(response, {**frame, "choices": [], "usage": served.usage})
    await response.write(b"data: [DONE]\n\n")
    return response


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
