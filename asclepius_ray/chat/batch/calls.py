"""The calls of a batch endpoint (files, batches), each repeated until it is answered or refused for good."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from asclepius_ray.chat.connection import BROKEN, Connection, HttpReply
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.replies import Refusal, find_error
from asclepius_ray.chat.retry_after import backoff_seconds
from asclepius_ray.chat.statuses import ErrorStatus, explain_connection, explain_status, read_error_status
from asclepius_ray.errors import EndpointError

Answer = TypeVar("Answer")

PAGE = 100
LONGEST_CALL_SECONDS = 600.0
_NO_BATCH_ENDPOINT = (
    'the batch endpoint does not answer as one does; check base_url, or set transport = "requests"'
)
LIVE = {"validating", "in_progress", "finalizing", "cancelling"}


class _Refused(Exception):
    """A reply with another status than success."""

    def __init__(self, reply: HttpReply) -> None:
        super().__init__(f"HTTP {reply.status}")
        self.reply = reply


@dataclass(frozen=True)
class BatchState:
    """A batch as the provider describes it."""

    id: str
    status: str
    input_file_id: str
    output_file_id: str
    error_file_id: str
    run: str
    num_done: int
    error_codes: tuple[str, ...]

    @property
    def is_live(self) -> bool:
        return self.status in LIVE


class BatchCalls:
    """One provider's files and batches; `show` is told why nothing moves, and "" once it does."""

    def __init__(self, endpoint: Endpoint, show: Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._show = show
        self._connection = Connection(endpoint)
        self._jitter = random.Random()

    async def close(self) -> None:
        await self._connection.close()

    async def upload(self, name: str, content: bytes) -> str:
        """The id of a new input file."""
        file = await self._call(
            lambda: self._send_json(self._connection.upload("/files", name, content, {"purpose": "batch"}))
        )
        return _text(file, "id")

    async def create(self, file_id: str, metadata: dict[str, str]) -> BatchState:
        """Makes one batch of the file, and no second one where the reply to the first try was lost."""
        body: dict[str, object] = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": metadata,
        }
        num_tries = 0

        async def make() -> BatchState:
            nonlocal num_tries
            num_tries += 1
            if num_tries > 1:
                # Nothing else has this file: a batch of it is the one of a try whose reply was lost.
                async for made in self.batches():
                    if made.input_file_id == file_id:
                        return made
            return _state(await self._send_json(self._connection.post("/batches", body)))

        return await self._call(make)

    async def look(self, batch_id: str) -> BatchState:
        return _state(await self._call(self._json_getter(f"/batches/{batch_id}")))

    async def batches(self) -> AsyncIterator[BatchState]:
        """All batches of the account, page by page."""
        after = ""
        while True:
            query = f"/batches?limit={PAGE}" + (f"&after={after}" if after else "")
            page = await self._call(self._json_getter(query))
            found = _list(page)
            for batch in found:
                yield _state(batch)
            if not page.get("has_more") or not found:
                return
            after = _text(found[-1], "id")

    async def input_files(self) -> AsyncIterator[tuple[str, str]]:
        """Id and name of all input files of the account."""
        after = ""
        while True:
            query = "/files?purpose=batch&limit=1000" + (f"&after={after}" if after else "")
            page = await self._call(self._json_getter(query))
            found = _list(page)
            for file in found:
                yield _text(file, "id"), str(file.get("filename") or "")
            if not page.get("has_more") or not found:
                return
            after = _text(found[-1], "id")

    async def content(self, file_id: str) -> bytes | None:
        """The bytes of a file; None where it is gone."""
        answer = await self._call_if_there(self._getter(f"/files/{file_id}/content"))
        return None if answer is None else answer.content

    async def delete(self, file_id: str) -> None:
        await self._call_if_there(lambda: self._send(self._connection.delete(f"/files/{file_id}")))

    def _getter(self, path: str) -> Callable[[], Awaitable[HttpReply]]:
        return lambda: self._send(self._connection.get(path))

    def _json_getter(self, path: str) -> Callable[[], Awaitable[dict[str, Any]]]:
        return lambda: self._send_json(self._connection.get(path))

    async def _call_if_there(self, send: Callable[[], Awaitable[HttpReply]]) -> HttpReply | None:
        """The answer; None where what is asked for does not exist any more."""

        async def send_or_find_it_gone() -> HttpReply | None:
            try:
                return await send()
            except _Refused as refused:
                if refused.reply.status == 404:
                    return None
                raise

        return await self._call(send_or_find_it_gone)

    async def _send(self, call: Awaitable[HttpReply]) -> HttpReply:
        reply = await call
        if not reply.is_success:
            raise _Refused(reply)
        return reply

    async def _send_json(self, call: Awaitable[HttpReply]) -> dict[str, Any]:
        reply = await self._send(call)
        hidden = find_error(reply.content)
        if hidden is not None:
            raise _Refused(replace(reply, status=hidden[0]))
        return _read(reply)

    async def _call(self, send: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer; broken connections, 429 and 5xx are tried again for as long as an outage may last."""
        loop = asyncio.get_running_loop()
        started, tries = loop.time(), 0
        while True:
            tries += 1
            try:
                async with asyncio.timeout(LONGEST_CALL_SECONDS):
                    answer = await send()
                if tries > 1:
                    self._show("")
                return answer
            except (_Refused, *BROKEN) as error:
                problem, wait = self._read_trouble(error)
            seconds = loop.time() - started
            left = self._endpoint.max_outage_seconds - seconds
            if left < 0:
                raise EndpointError(problem)
            self._show(f"no answer from the batch endpoint for {seconds:.0f} s, trying again")
            wait = wait if wait is not None else backoff_seconds(tries, self._jitter)
            await asyncio.sleep(min(wait, left + 0.01))

    def _read_trouble(self, error: Exception) -> tuple[str, float | None]:
        """What is wrong, and how long the endpoint asks to wait; an EndpointError where that cannot help."""
        if not isinstance(error, _Refused):
            return explain_connection(self._endpoint, error), None
        status = read_error_status(error.reply, set())
        if status.refusal not in (Refusal.WAIT, Refusal.RETRY_SERVER_ERROR, Refusal.RETRY_TIMEOUT):
            raise EndpointError(_explain(self._endpoint, status)) from None
        return explain_status(self._endpoint, status), status.wait_seconds


def _explain(endpoint: Endpoint, found: ErrorStatus) -> str:
    if found.refusal in (Refusal.BAD_KEY, Refusal.NO_QUOTA):
        return explain_status(endpoint, found)
    return (
        f"{endpoint.host} answers a call of its batch endpoint with HTTP {found.status}; does it have one? "
        'transport = "requests" works everywhere'
    )


def _read(answer: HttpReply) -> dict[str, Any]:
    try:
        found = json.loads(answer.content)
    except (ValueError, RecursionError):
        found = None
    return _object(found)


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise EndpointError(_NO_BATCH_ENDPOINT)
    return value


def _list(page: dict[str, Any]) -> list[dict[str, Any]]:
    found = page.get("data")
    if not isinstance(found, list):
        raise EndpointError(_NO_BATCH_ENDPOINT)
    return [_object(one) for one in found]


def _text(value: dict[str, Any], name: str) -> str:
    found = value.get(name)
    if not isinstance(found, str) or not found:
        raise EndpointError(_NO_BATCH_ENDPOINT)
    return found


def _state(batch: dict[str, Any]) -> BatchState:
    metadata = _object(batch.get("metadata") or {})
    counts = _object(batch.get("request_counts") or {})
    errors = _object(batch.get("errors") or {}).get("data") or []
    return BatchState(
        id=_text(batch, "id"),
        status=_text(batch, "status"),
        input_file_id=batch.get("input_file_id") or "",
        output_file_id=batch.get("output_file_id") or "",
        error_file_id=batch.get("error_file_id") or "",
        run=metadata.get("asclepius_run", ""),
        num_done=(counts.get("completed") or 0) + (counts.get("failed") or 0),
        error_codes=tuple(str(error.get("code")) for error in errors if isinstance(error, dict)),
    )
