"""Buys pending requests through batches, and buys none twice, whenever the run is killed.

Nothing local is needed for that: a batch carries the run's id and the hash of its input in its metadata,
and on every start the account's batches are listed before anything is sent. What is inside a live batch
is not sent again. Files are deleted as soon as what they hold is durable here: they are texts of patients
at a provider.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from asclepius_ray.chat.batch.calls import BatchCalls, BatchState
from asclepius_ray.chat.batch.chunks import (
    Chunk,
    Pending,
    Wanted,
    cut_chunks,
    fields_in,
    id_of,
    read_custom_id,
)
from asclepius_ray.chat.body import Body
from asclepius_ray.chat.config import BatchConfig
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure
from asclepius_ray.chat.gate import Load, Settled
from asclepius_ray.chat.judgement import Trial, judge_reply
from asclepius_ray.chat.replies import FailureReason, Refusal, read_refusal, read_reply
from asclepius_ray.chat.statuses import NO_QUOTA_TEXT
from asclepius_ray.errors import BudgetError, EndpointError

logger = logging.getLogger(__name__)

MAX_ATTEMPTS_OF_A_LINE = 6
FULL_QUEUE_CODES = {"token_limit_exceeded", "request_limit_exceeded", "too_many_tasks"}
_FINAL = {
    Refusal.BAD_REQUEST: FailureReason.BAD_REQUEST,
    Refusal.CONTEXT_TOO_LONG: FailureReason.CONTEXT_TOO_LONG,
    Refusal.CONTENT_FILTER: FailureReason.CONTENT_FILTER,
}


@dataclass(frozen=True)
class Outcome:
    """One request that has come to its end."""

    pending: Pending
    answer: Completion | Failure
    trial: Trial


class Account(Protocol):
    """Who keeps the answers and the money."""

    async def reserve(self, loads: Sequence[Load]) -> bool:
        """Sets aside what a batch can cost, durably; False where the budget forbids it."""

    async def adopt(self, loads: Sequence[Load]) -> None:
        """A batch of an earlier run is still open: what it may cost is set aside already."""

    async def settle(self, settled: Sequence[Settled]) -> None:
        """Lines of a batch have come to their end."""

    async def keep(self, outcomes: Sequence[Outcome]) -> None:
        """Takes answers in; returns when they are durable."""


@dataclass
class _Open:
    """A batch that is not harvested yet."""

    state: BatchState
    wanted: dict[str, Wanted]
    """By custom_id: what is in it."""
    num_tokens: int
    fields: frozenset[str]
    """What its bodies name."""


@dataclass
class _Work:
    wanted: dict[str, Wanted]
    """By request id: what is not bought yet."""
    open: dict[str, _Open] = field(default_factory=dict)
    """By batch id."""

    def waiting(self) -> list[Wanted]:
        inside = {id_of(one.pending.key) for batch in self.open.values() for one in batch.wanted.values()}
        return [one for request_id, one in self.wanted.items() if request_id not in inside]


class BatchTransport:
    """One endpoint's batches for one run, which `run_id` tells from all others of the account."""

    def __init__(
        self,
        endpoint: Endpoint,
        limits: BatchConfig,
        run_id: str,
        account: Account,
        show: Callable[[str], None],
    ) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._run_id = run_id
        self._account = account
        self._show = show
        self._room_tokens = limits.max_enqueued_tokens
        self._body = Body(endpoint)

    async def buy(self, pending: Sequence[Pending]) -> None:
        """Returns when every request is kept as an answer or a failure.

        Raises an EndpointError where the endpoint as a whole refuses, and a BudgetError where the budget
        allows no further batch; what is open then has been harvested.
        """
        wanted = {id_of(one.key): Wanted(one, Trial(one.request.max_tokens)) for one in pending}
        work = _Work(wanted)
        calls = BatchCalls(self._endpoint, self._show)
        try:
            await self._recover(calls, work)
            while work.wanted or work.open:
                problem = await self._submit(calls, work)
                if problem is not None and not work.open:
                    raise problem
                await self._harvest_finished(calls, work)
                if work.open:
                    self._show(self._describe(work))
                    await asyncio.sleep(self._limits.poll_seconds)
        finally:
            await calls.close()

    def _describe(self, work: _Work) -> str:
        done = sum(batch.state.num_done for batch in work.open.values())
        total = sum(len(batch.wanted) for batch in work.open.values())
        return (
            f"{len(work.open)} batches open, {done}/{total} requests done, {len(work.waiting())} to be sent"
        )

    async def _recover(self, calls: BatchCalls, work: _Work) -> None:
        """Finds the batches of earlier runs, and deletes input files that never became one."""
        used_files = set()
        async for state in calls.batches():
            if state.run != self._run_id:
                continue
            used_files |= {state.input_file_id}
            content = await calls.content(state.input_file_id)
            if content is not None:
                self._adopt(work, state, content)
                loads = [one.load for one in work.open[state.id].wanted.values()]
                await self._account.adopt(loads)
        async for file_id, name in calls.input_files():
            if name.startswith(self._file_prefix) and file_id not in used_files:
                await calls.delete(file_id)

    def _adopt(self, work: _Work, state: BatchState, content: bytes) -> None:
        """An input file that is still there belongs to a batch that is not harvested.

        What is in another batch already is taken from that one alone.
        """
        inside: dict[str, Wanted] = {}
        waiting = {id_of(one.pending.key) for one in work.waiting()}
        for line in content.splitlines():
            custom_id = str(json.loads(line)["custom_id"])
            parts = read_custom_id(custom_id)
            if parts is not None and parts[0] in waiting:
                one = work.wanted[parts[0]]
                _request_id, one.trial.max_tokens, attempt = parts
                one.trial.attempts = attempt - 1
                one.trial.lengthened = one.trial.max_tokens > one.pending.request.max_tokens
                one.trial.resampled = attempt > 1 and not one.trial.lengthened
                inside[custom_id] = one
        tokens = sum(one.num_tokens for one in inside.values())
        work.open[state.id] = _Open(state, inside, tokens, fields_in(content))

    async def _submit(self, calls: BatchCalls, work: _Work) -> Exception | None:
        """Sends what waits, as far as limits and budget allow; why nothing more may be sent, or None."""
        for chunk in cut_chunks(work.waiting(), self._limits, self._body):
            enqueued = sum(batch.num_tokens for batch in work.open.values())
            if work.open and self._room_tokens and enqueued + chunk.num_tokens > self._room_tokens:
                return None
            if not await self._account.reserve([one.load for one in chunk.wanted]):
                return BudgetError(
                    "budget_usd allows no further batch; what was bought is kept: raise it and run again"
                )
            await self._create(calls, work, chunk)
        return None

    async def _create(self, calls: BatchCalls, work: _Work, chunk: Chunk) -> None:
        name = f"{self._file_prefix}{chunk.sha256[:24]}.jsonl"
        file_id = await calls.upload(name, chunk.content)
        metadata = {"asclepius_chunk": chunk.sha256, "asclepius_run": self._run_id}
        state = await calls.create(file_id, metadata)
        inside = {one.custom_id: one for one in chunk.wanted}
        work.open[state.id] = _Open(state, inside, chunk.num_tokens, fields_in(chunk.content))

    async def _harvest_finished(self, calls: BatchCalls, work: _Work) -> None:
        for batch_id, batch in list(work.open.items()):
            batch.state = await calls.look(batch_id)
            if not batch.state.is_live:
                await self._harvest(calls, work, batch)
                del work.open[batch_id]

    async def _harvest(self, calls: BatchCalls, work: _Work, batch: _Open) -> None:
        """Keeps every line that was answered, whatever became of the batch; the rest is sent again.

        Raises an EndpointError that ends the run only when nothing is left of the batch, so that the next
        run does not meet it again.
        """
        problems: list[EndpointError] = []
        loads = {custom_id: one.load for custom_id, one in batch.wanted.items()}
        files = [name for name in (batch.state.output_file_id, batch.state.error_file_id) if name]
        for file_id in files:
            content = await calls.content(file_id) or b""
            outcomes, settled = [], []
            for custom_id, line in _read_lines(content, batch.wanted):
                one = batch.wanted.pop(custom_id)
                answer, tokens = self._judge(one, line, batch.fields, problems)
                settled.append((loads[custom_id], tokens))
                if answer is not None:
                    outcomes.append(Outcome(one.pending, answer, one.trial))
                    del work.wanted[id_of(one.pending.key)]
            await self._account.keep(outcomes)
            await self._account.settle(settled)
        # Expired or cancelled before its turn: nothing was charged for it.
        await self._account.settle([(loads[custom_id], (0, 0)) for custom_id in batch.wanted])
        self._check_refused(batch, problems)
        for file_id in (*files, batch.state.input_file_id):
            await calls.delete(file_id)
        if problems:
            raise problems[0]

    def _judge(
        self,
        one: Wanted,
        line: dict[str, Any],
        fields: frozenset[str],
        problems: list[EndpointError],
    ) -> tuple[Completion | Failure | None, tuple[int, int] | None]:
        """What one line means (None = ask again) and the tokens that it took (None = nobody knows).

        Adds what ends the run to `problems`.
        """
        trial, request = one.trial, one.pending.request
        trial.attempts += 1
        response = line.get("response") or {}
        status, body = response.get("status_code"), response.get("body")
        if status == 200:
            reply = read_reply(json.dumps(body).encode())
            if reply is None:
                trial.unsettled_attempts += 1
                return judge_reply(request, None, trial), None
            tokens = trial.count_usage(request, reply)
            return judge_reply(request, reply, trial), tokens
        if status is None:
            # batch_expired, or a line that the endpoint lost.
            trial.attempts -= 1
            return None, (0, 0)
        error = body.get("error") if isinstance(body, dict) else None
        refusal, _parameter = read_refusal(int(status), error, set(fields))
        if self._body.adapt(refusal):
            trial.attempts -= 1
            return None, (0, 0)
        if refusal in _FINAL:
            return trial.fail(_FINAL[refusal]), (0, 0)
        if refusal not in (Refusal.WAIT, Refusal.RETRY_SERVER_ERROR, Refusal.RETRY_TIMEOUT):
            problems.append(EndpointError(self._explain_line(refusal, int(status))))
            trial.attempts -= 1
            return None, (0, 0)
        if trial.attempts >= MAX_ATTEMPTS_OF_A_LINE:
            return trial.fail(FailureReason.SERVER_ERROR), (0, 0)
        return None, (0, 0)

    def _explain_line(self, refusal: Refusal, status: int) -> str:
        host = self._endpoint.host
        if refusal is Refusal.NO_QUOTA:
            return f"{host} {NO_QUOTA_TEXT}"
        return (
            f"{host} answers lines of a batch with HTTP {status}; check `model`, `sampling` and `extra_body`"
        )

    def _check_refused(self, batch: _Open, problems: list[EndpointError]) -> None:
        """A batch that failed as a whole: too much is enqueued, or the endpoint will never take it."""
        state = batch.state
        if state.status != "failed":
            return
        if set(state.error_codes) & FULL_QUEUE_CODES:
            # The provider's limit is lower than we were told: half as much next time.
            self._room_tokens = max((self._room_tokens or 2 * batch.num_tokens) // 2, 1)
            logger.warning("%s: the queue of batches is full, fewer are sent at a time", self._endpoint.host)
            return
        codes = (
            ", ".join(code for code in state.error_codes if code.replace("_", "").isalnum()) or "no reason"
        )
        problems.append(EndpointError(f"{self._endpoint.host} refuses a batch as a whole ({codes})"))

    @property
    def _file_prefix(self) -> str:
        return f"asclepius-{self._run_id}-"


def _read_lines(content: bytes, wanted: dict[str, Wanted]) -> list[tuple[str, dict[str, Any]]]:
    """The lines of ours, each once; a torn line or one that nobody asked for is left out, and asked again."""
    found: dict[str, dict[str, Any]] = {}
    for raw in content.splitlines():
        try:
            line = json.loads(raw)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict) and line.get("custom_id") in wanted:
            found[line["custom_id"]] = line
    return list(found.items())
