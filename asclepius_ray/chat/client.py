"""The one seam to language models: Request → Completion or Failure, over HTTP.

Trouble of one request is data, a Failure with its reason. Trouble of the endpoint as a whole (a
refused key, an unknown model, no money left) is an EndpointError. No message holds the key, the
request's text or the server's words.
"""

import asyncio
import random
import time

from asclepius_ray.chat.body import Body
from asclepius_ray.chat.connection import BROKEN, Connection
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import PROBE_STEP, Ending, Gate, Outcome, Patience, Ticket, load_of
from asclepius_ray.chat.judgement import Trial, judge_reply
from asclepius_ray.chat.replies import FailureReason, Refusal, Reply
from asclepius_ray.chat.retry_after import backoff_seconds
from asclepius_ray.chat.statuses import (
    ErrorStatus,
    explain_connection,
    explain_status,
    rate_headers,
    read_answer,
    read_error_status,
)
from asclepius_ray.errors import EndpointError
from asclepius_ray.records import Message

NUM_CHECKS = 3
CHECK_TIMEOUT_SECONDS = 20.0
PROBE_INTERVAL_SECONDS = 5.0
CHAT_PATH = "/chat/completions"

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
_PROBE = Request(
    PROBE_STEP, (Message("user", "Reply with OK."),), temperature=1.0, max_tokens=16, is_urgent=True
)

Attempt = Reply | ErrorStatus | FailureReason | None
"""A reply (None = malformed), an HTTP status, or a connection that gave no whole reply."""


class ChatClient:
    """Asks one endpoint from one event loop; its gate says when an attempt may be sent."""

    def __init__(self, endpoint: Endpoint, gate: Gate) -> None:
        self.endpoint = endpoint
        self._gate = gate
        self._connection = Connection(endpoint)
        self._jitter = random.Random()
        self._body = Body(endpoint)
        self._probing = asyncio.Lock()
        self._probed_at = float("-inf")

    async def complete(
        self,
        request: Request,
        trial: Trial | None = None,
        ticket: Ticket | None = None,
        patience: Patience | None = None,
    ) -> Completion | Failure:
        """Asks until there is an answer or a reason to stop; waits out rate limits, however long.

        `trial` counts the attempts, `ticket` is a permit that the caller already holds for the first one.
        """
        trial = trial or Trial(request.max_tokens)
        patience = patience or Patience(float("inf"))
        while True:
            if ticket is None:
                ticket = await self._gate.enter(load_of(request, trial.max_tokens))
            # The time in the queue is not lost to a broken attempt.
            started = time.monotonic()
            attempt = await self._attempt(request, trial, ticket)
            ticket = None
            if attempt is None or isinstance(attempt, Reply):
                result = judge_reply(request, attempt, trial)
            elif isinstance(attempt, FailureReason):
                result = await self._back_off(attempt, None, trial, patience, started)
            elif attempt.refusal in _RETRIED:
                reason = _RETRIED[attempt.refusal]
                result = await self._back_off(reason, attempt.wait_seconds, trial, patience, started)
            else:
                result = self._handle_error_status(attempt, trial)
            if result is not None:
                return result

    async def close(self) -> None:
        """Closes the connections; a request still in flight ends as a broken one."""
        await self._connection.close()

    async def _attempt(self, request: Request, trial: Trial, ticket: Ticket) -> Attempt:
        trial.attempts += 1
        outcome = Outcome(Ending.BROKEN)
        try:
            attempt, headers = await self._send(self._body.write(request, trial.max_tokens))
            if isinstance(attempt, ErrorStatus):
                outcome = Outcome(_ending_of(attempt), 0, 0, attempt.wait_seconds, attempt.headers)
            elif isinstance(attempt, FailureReason):
                trial.unsettled_attempts += 1
            elif attempt is None:
                trial.unsettled_attempts += 1
                outcome = Outcome(Ending.ANSWERED, headers=headers, are_tokens_known=False)
            else:
                tokens = trial.count_usage(request, attempt)
                outcome = Outcome(Ending.ANSWERED, *tokens, headers=headers)
        finally:
            self._gate.leave(ticket, outcome)
        return attempt

    async def _send(self, body: dict[str, object]) -> tuple[Attempt, dict[str, str]]:
        try:
            async with asyncio.timeout(self.endpoint.timeout_seconds):
                reply = await self._connection.post(CHAT_PATH, body)
        except TimeoutError:
            return FailureReason.TIMEOUT, {}
        except BROKEN:
            return FailureReason.CONNECTION, {}
        if not reply.is_success:
            return read_error_status(reply, set(body)), {}
        return read_answer(reply, set(body)), rate_headers(reply.headers)

    def _handle_error_status(self, error: ErrorStatus, trial: Trial) -> Failure | None:
        if error.refusal is Refusal.WAIT or self._body.adapt(error.refusal):
            return None
        if trial.lengthened and error.refusal in _FITS_NOT:
            # The first length was accepted; it is the doubled one that does not fit the model.
            return trial.fail(FailureReason.TRUNCATED)
        if error.refusal in _FINAL:
            return trial.fail(_FINAL[error.refusal])
        raise EndpointError(explain_status(self.endpoint, error))

    async def _back_off(
        self,
        reason: FailureReason,
        wait_seconds: float | None,
        trial: Trial,
        patience: Patience,
        started: float,
    ) -> Failure | None:
        """Waits before the next try; a Failure once the request, not the endpoint, is to blame."""
        wait = max(backoff_seconds(trial.broken_attempts + 1, self._jitter), wait_seconds or 0.0)
        if await self._is_to_blame(started):
            trial.broken_attempts += 1
            patience.seconds_left -= time.monotonic() - started + wait
            if trial.broken_attempts >= self.endpoint.max_attempts or patience.seconds_left <= 0:
                return trial.fail(reason)
        await self._gate.pause(min(wait, self.endpoint.max_outage_seconds))
        return None

    async def _is_to_blame(self, started: float) -> bool:
        """Whether a broken attempt counts against its request: the endpoint answers others.

        Where no other request has been answered since, a request of our own that any model can answer
        tells an outage from a request that breaks its server.
        """
        answered = self._gate.answered_since(started)
        if answered is None:
            return True
        if not answered:
            await self._probe()
        return bool(self._gate.answered_since(started))

    async def _probe(self) -> None:
        async with self._probing:
            if time.monotonic() - self._probed_at < PROBE_INTERVAL_SECONDS:
                return
            ticket = await self._gate.enter(load_of(_PROBE, _PROBE.max_tokens))
            await self._attempt(_PROBE, Trial(_PROBE.max_tokens), ticket)
            self._probed_at = time.monotonic()


async def check_endpoint(endpoint: Endpoint) -> None:
    """Asks for the list of models, so that a wrong address or key shows before the first row does.

    An endpoint without such a list passes; a connection is tried three times.
    """
    connection = Connection(endpoint)
    jitter = random.Random()
    problem = ""
    try:
        for attempt in range(1, NUM_CHECKS + 1):
            problem, is_final = await _check_once(connection, endpoint)
            if is_final:
                break
            if attempt < NUM_CHECKS:
                await asyncio.sleep(backoff_seconds(attempt, jitter))
    finally:
        await connection.close()
    if problem:
        raise EndpointError(problem)


async def _check_once(connection: Connection, endpoint: Endpoint) -> tuple[str, bool]:
    """What is wrong ("" = nothing), and whether asking again cannot change it."""
    try:
        async with asyncio.timeout(min(endpoint.timeout_seconds, CHECK_TIMEOUT_SECONDS)):
            reply = await connection.get("/models")
    except BROKEN as error:
        return explain_connection(endpoint, error), False
    if reply.is_success:
        return "", True
    status = read_error_status(reply, set())
    if status.refusal in (Refusal.BAD_KEY, Refusal.NO_QUOTA):
        return explain_status(endpoint, status), True
    if status.refusal is Refusal.RETRY_SERVER_ERROR:
        return f"{endpoint.host} answers with HTTP {status.status}; is the server healthy?", False
    if 300 <= status.status < 400:
        return explain_status(endpoint, status), True
    # 404 or 405: many servers have no such list. 429: it is there and the key is known.
    return "", True


def _ending_of(error: ErrorStatus) -> Ending:
    if error.refusal is Refusal.WAIT:
        return Ending.LIMITED
    return Ending.SERVER_ERROR if error.refusal in _RETRIED else Ending.REJECTED
