"""The one seam to language models: Request → Completion or Failure, over the official client.

Trouble of one request is data, a Failure with its reason. Trouble of the endpoint as a whole (a
refused key, an unknown model, no money left) is an EndpointError. No message holds the key, the
request's text or the server's words.
"""

import asyncio
import logging
import random
import time
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

import aiohttp
import httpx2
import openai

from asclepius_ray.chat.connection import (
    ErrorStatus,
    explain_connection,
    explain_status,
    open_client,
    read_error_status,
)
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.prices import estimate_tokens
from asclepius_ray.chat.replies import FailureReason, Refusal, Reply, read_reply
from asclepius_ray.chat.retry_after import backoff_seconds
from asclepius_ray.errors import EndpointError
from asclepius_ray.records import Message

logger = logging.getLogger(__name__)

NOTEWORTHY_PAUSE_SECONDS = 10.0
SHORTEST_PAUSE_SECONDS = 0.05
NUM_CHECKS = 3
CHECK_TIMEOUT_SECONDS = 20.0

_RETRIED = {
    Refusal.RETRY_TIMEOUT: FailureReason.TIMEOUT,
    Refusal.RETRY_SERVER_ERROR: FailureReason.SERVER_ERROR,
}
_FINAL = {
    Refusal.BAD_REQUEST: FailureReason.BAD_REQUEST,
    Refusal.CONTEXT_TOO_LONG: FailureReason.CONTEXT_TOO_LONG,
    Refusal.CONTENT_FILTER: FailureReason.CONTENT_FILTER,
}
_FITS_NOT = {Refusal.BAD_REQUEST, Refusal.CONTEXT_TOO_LONG, Refusal.BAD_PARAMETER}


@dataclass(frozen=True)
class Request:
    """One question to a model. `step` names the sampling table and the ledger's line."""

    step: str
    messages: tuple[Message, ...]
    temperature: float
    max_tokens: int
    accept_truncated: bool = False
    """A reply that ends at max_tokens is an answer, as in an evaluation with a fixed length."""
    accept_empty: bool = False
    """No text at all is an answer too, as an untrained model may give it."""


@dataclass(frozen=True)
class Completion:
    """An answer. The tokens are those of all attempts that the server answered, not of the last alone."""

    text: str
    finish_reason: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    attempts: int
    is_usage_estimated: bool = False


@dataclass(frozen=True)
class Failure:
    """No answer, and why. The tokens were paid for all the same."""

    reason: FailureReason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    attempts: int = 0
    is_usage_estimated: bool = False


@dataclass
class _Progress:
    """How far one request has come."""

    max_tokens: int
    attempts: int = 0
    broken_attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    is_usage_estimated: bool = False
    resampled: bool = False
    lengthened: bool = False
    renamed: bool = False


class ChatClient:
    """Asks one endpoint from one event loop; at most `max_in_flight` requests at a time (0 = unlimited)."""

    def __init__(self, endpoint: Endpoint, max_in_flight: int) -> None:
        self.endpoint = endpoint
        self._places = asyncio.Semaphore(max_in_flight) if max_in_flight else None
        self._client = open_client(endpoint, max_in_flight)
        self._jitter = random.Random()
        self._blocked_until = 0.0
        self._num_pauses = 0
        self._pauses_in_a_row = 0
        self._max_tokens_field = "max_tokens"

    async def complete(self, request: Request) -> Completion | Failure:
        """Asks until there is an answer or a reason to stop; waits out rate limits, however long."""
        progress = _Progress(request.max_tokens)
        while True:
            outcome = await self._attempt(request, progress)
            if isinstance(outcome, Reply):
                result = self._judge_reply(request, outcome, progress)
            elif outcome is None:
                result = _retry_once(FailureReason.MALFORMED, progress)
            elif isinstance(outcome, FailureReason):
                result = await self._back_off(outcome, None, progress)
            else:
                result = await self._handle_error_status(outcome, progress)
            if result is not None:
                return result

    async def close(self) -> None:
        """Closes the connections; a request still in flight ends as a broken one."""
        await self._client.close()

    async def _attempt(
        self, request: Request, progress: _Progress
    ) -> Reply | ErrorStatus | FailureReason | None:
        async with self._place():
            while (pause := self._blocked_until - time.monotonic()) > 0:
                await asyncio.sleep(pause + self._jitter.uniform(0, 0.1 * min(pause, 1.0)))
            pauses_seen = self._num_pauses
            progress.attempts += 1
            outcome = await self._send(self._body_of(request, progress))
        if isinstance(outcome, ErrorStatus) and outcome.refusal is Refusal.WAIT:
            self._pause(outcome.wait_seconds, pauses_seen)
        elif isinstance(outcome, Reply):
            self._pauses_in_a_row = 0
            _count_usage(request, outcome, progress)
        return outcome

    def _place(self) -> AbstractAsyncContextManager[object]:
        return self._places if self._places is not None else nullcontext()

    def _body_of(self, request: Request, progress: _Progress) -> dict[str, object]:
        return {
            "model": self.endpoint.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
            "temperature": request.temperature,
            self._max_tokens_field: progress.max_tokens,
            **self.endpoint.extra_body,
        }

    async def _send(self, body: dict[str, object]) -> Reply | ErrorStatus | FailureReason | None:
        try:
            async with asyncio.timeout(self.endpoint.timeout_seconds):
                response = await self._client.post("/chat/completions", body=body, cast_to=httpx2.Response)
        except TimeoutError:
            return FailureReason.TIMEOUT
        except openai.APIStatusError as error:
            return read_error_status(error, set(body))
        except (openai.APIConnectionError, aiohttp.ClientError):
            # Ours is the only clock, so what the client calls a timeout is a connection that broke.
            return FailureReason.CONNECTION
        return read_reply(response.content)

    def _pause(self, wait_seconds: float | None, pauses_seen: int) -> None:
        """Stops all requests of this client; refusals of requests sent before a pause do not stack."""
        if self._num_pauses == pauses_seen:
            self._num_pauses += 1
            self._pauses_in_a_row += 1
        elif wait_seconds is None:
            return
        if wait_seconds is None:
            wait_seconds = backoff_seconds(self._pauses_in_a_row, self._jitter)
        wait_seconds = max(wait_seconds, SHORTEST_PAUSE_SECONDS)
        until = time.monotonic() + wait_seconds
        if wait_seconds >= NOTEWORTHY_PAUSE_SECONDS and until > self._blocked_until + 1.0:
            logger.warning("%s asks to wait %.0f s (rate limit)", self.endpoint.host, wait_seconds)
        self._blocked_until = max(self._blocked_until, until)

    def _judge_reply(
        self, request: Request, reply: Reply, progress: _Progress
    ) -> Completion | Failure | None:
        if reply.finish_reason == "content_filter":
            return _failure(FailureReason.CONTENT_FILTER, progress)
        if reply.refused:
            return _failure(FailureReason.REFUSED, progress)
        if reply.finish_reason == "length" and not request.accept_truncated:
            if progress.lengthened:
                return _failure(FailureReason.TRUNCATED, progress)
            progress.lengthened = True
            progress.max_tokens *= 2
            return None
        if not reply.text.strip() and not request.accept_empty:
            return _retry_once(FailureReason.EMPTY, progress)
        return Completion(
            text=reply.text,
            finish_reason=reply.finish_reason,
            model=reply.model,
            prompt_tokens=progress.prompt_tokens,
            completion_tokens=progress.completion_tokens,
            attempts=progress.attempts,
            is_usage_estimated=progress.is_usage_estimated,
        )

    async def _handle_error_status(self, error: ErrorStatus, progress: _Progress) -> Failure | None:
        if error.refusal is Refusal.WAIT:
            return None
        if error.refusal is Refusal.RENAME_MAX_TOKENS and not progress.renamed:
            self._max_tokens_field = "max_completion_tokens"
            progress.renamed = True
            return None
        if error.refusal in _RETRIED:
            return await self._back_off(_RETRIED[error.refusal], error.wait_seconds, progress)
        if progress.lengthened and error.refusal in _FITS_NOT:
            # The first length was accepted; it is the doubled one that does not fit the model.
            return _failure(FailureReason.TRUNCATED, progress)
        if error.refusal in _FINAL:
            return _failure(_FINAL[error.refusal], progress)
        raise EndpointError(explain_status(self.endpoint, error))

    async def _back_off(
        self, reason: FailureReason, wait_seconds: float | None, progress: _Progress
    ) -> Failure | None:
        progress.broken_attempts += 1
        if progress.broken_attempts >= self.endpoint.max_attempts:
            return _failure(reason, progress)
        wait = backoff_seconds(progress.broken_attempts, self._jitter)
        await asyncio.sleep(max(wait, wait_seconds or 0.0))
        return None


async def check_endpoint(endpoint: Endpoint) -> None:
    """Asks for the list of models, so that a wrong address or key shows before the first row does.

    An endpoint without such a list passes; a connection is tried three times.
    """
    client = open_client(endpoint, max_in_flight=1)
    jitter = random.Random()
    problem = ""
    try:
        for attempt in range(1, NUM_CHECKS + 1):
            problem, is_final = await _check_once(client, endpoint)
            if is_final:
                break
            if attempt < NUM_CHECKS:
                await asyncio.sleep(backoff_seconds(attempt, jitter))
    finally:
        await client.close()
    if problem:
        raise EndpointError(problem)


async def _check_once(client: openai.AsyncOpenAI, endpoint: Endpoint) -> tuple[str, bool]:
    """What is wrong ("" = nothing), and whether asking again cannot change it."""
    try:
        async with asyncio.timeout(min(endpoint.timeout_seconds, CHECK_TIMEOUT_SECONDS)):
            await client.get("/models", cast_to=httpx2.Response)
    except openai.APIStatusError as error:
        status = read_error_status(error, set())
        if status.refusal in (Refusal.BAD_KEY, Refusal.NO_QUOTA):
            return explain_status(endpoint, status), True
        if status.refusal is Refusal.RETRY_SERVER_ERROR:
            return f"{endpoint.host} answers with HTTP {status.status}; is the server healthy?", False
        if 300 <= status.status < 400:
            return explain_status(endpoint, status), True
        # 404 or 405: many servers have no such list. 429: it is there and the key is known.
        return "", True
    except (openai.APIConnectionError, aiohttp.ClientError, TimeoutError) as error:
        return explain_connection(endpoint, error), False
    return "", True


def _count_usage(request: Request, reply: Reply, progress: _Progress) -> None:
    if reply.prompt_tokens is None or reply.completion_tokens is None:
        progress.is_usage_estimated = True
    prompt_tokens = reply.prompt_tokens
    if prompt_tokens is None:
        prompt_tokens = sum(estimate_tokens(turn.content) for turn in request.messages)
    completion_tokens = reply.completion_tokens
    if completion_tokens is None:
        completion_tokens = estimate_tokens(reply.text)
    progress.prompt_tokens += prompt_tokens
    progress.completion_tokens += completion_tokens


def _retry_once(reason: FailureReason, progress: _Progress) -> Failure | None:
    if progress.resampled:
        return _failure(reason, progress)
    progress.resampled = True
    return None


def _failure(reason: FailureReason, progress: _Progress) -> Failure:
    return Failure(
        reason=reason,
        prompt_tokens=progress.prompt_tokens,
        completion_tokens=progress.completion_tokens,
        attempts=progress.attempts,
        is_usage_estimated=progress.is_usage_estimated,
    )
