"""The calls of a batch endpoint (files, batches), each repeated until it is answered or refused for good."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx2
import openai

from asclepius_ray.chat.connection import explain_connection, explain_status, open_client, read_error_status
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.replies import Refusal
from asclepius_ray.chat.retry_after import backoff_seconds
from asclepius_ray.errors import EndpointError

PAGE = 100
LONGEST_CALL_SECONDS = 600.0
LIVE = {"validating", "in_progress", "finalizing", "cancelling"}


@dataclass(frozen=True)
class BatchState:
    """A batch as the provider describes it."""

    id: str
    status: str
    input_file_id: str
    output_file_id: str
    error_file_id: str
    chunk: str
    run: str
    num_done: int
    error_codes: tuple[str, ...]

    @property
    def is_live(self) -> bool:
        return self.status in LIVE


class BatchCalls:
    """One provider's files and batches."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._client = open_client(endpoint, max_in_flight=0)
        self._jitter = random.Random()

    async def close(self) -> None:
        await self._client.close()

    async def upload(self, name: str, content: bytes) -> str:
        """The id of a new input file."""
        answer = await self._call(
            lambda: self._client.post(
                "/files",
                cast_to=httpx2.Response,
                body={"purpose": "batch"},
                files={"file": (name, content, "application/jsonl")},
                options={"headers": {"Content-Type": "multipart/form-data"}},
            )
        )
        return str(_read(answer)["id"])

    async def create(self, file_id: str, metadata: dict[str, str]) -> BatchState:
        body: dict[str, object] = {
            "input_file_id": file_id,
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
            "metadata": metadata,
        }
        return _state(_read(await self._call(self._poster("/batches", body))))

    async def look(self, batch_id: str) -> BatchState:
        return _state(_read(await self._call(self._getter(f"/batches/{batch_id}"))))

    async def batches(self) -> AsyncIterator[BatchState]:
        """All batches of the account, page by page."""
        after = ""
        while True:
            query = f"/batches?limit={PAGE}" + (f"&after={after}" if after else "")
            page = _read(await self._call(self._getter(query)))
            for batch in page["data"]:
                yield _state(batch)
            if not page.get("has_more") or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def input_files(self) -> AsyncIterator[tuple[str, str]]:
        """Id and name of all input files of the account."""
        after = ""
        while True:
            query = "/files?purpose=batch&limit=1000" + (f"&after={after}" if after else "")
            page = _read(await self._call(self._getter(query)))
            for file in page["data"]:
                yield file["id"], file.get("filename") or ""
            if not page.get("has_more") or not page["data"]:
                return
            after = page["data"][-1]["id"]

    async def content(self, file_id: str) -> bytes | None:
        """The bytes of a file; None where it is gone."""
        answer = await self._call(self._getter(f"/files/{file_id}/content"), may_be_gone=True)
        return None if answer is None else answer.content

    async def delete(self, file_id: str) -> None:
        await self._call(
            lambda: self._client.delete(f"/files/{file_id}", cast_to=httpx2.Response), may_be_gone=True
        )

    def _getter(self, path: str) -> Callable[[], Awaitable[httpx2.Response]]:
        return lambda: self._client.get(path, cast_to=httpx2.Response)

    def _poster(self, path: str, body: dict[str, object]) -> Callable[[], Awaitable[httpx2.Response]]:
        return lambda: self._client.post(path, body=body, cast_to=httpx2.Response)

    async def _call(
        self, send: Callable[[], Awaitable[httpx2.Response]], may_be_gone: bool = False
    ) -> httpx2.Response | None:
        """The answer; broken connections, 429 and 5xx are tried again for as long as an outage may last."""
        loop = asyncio.get_running_loop()
        started, tries = loop.time(), 0
        while True:
            tries += 1
            wait = None
            try:
                async with asyncio.timeout(LONGEST_CALL_SECONDS):
                    return await send()
            except openai.APIStatusError as error:
                status = read_error_status(error, set())
                if may_be_gone and status.status == 404:
                    return None
                if status.refusal not in (Refusal.WAIT, Refusal.RETRY_SERVER_ERROR, Refusal.RETRY_TIMEOUT):
                    raise EndpointError(_explain(self._endpoint, status.status, error)) from None
                wait, problem = status.wait_seconds, explain_status(self._endpoint, status)
            except (openai.APIConnectionError, aiohttp.ClientError, TimeoutError) as error:
                problem = explain_connection(self._endpoint, error)
            if loop.time() - started > self._endpoint.max_outage_seconds:
                raise EndpointError(problem)
            await asyncio.sleep(wait if wait is not None else backoff_seconds(tries, self._jitter))


def _explain(endpoint: Endpoint, status: int, error: openai.APIStatusError) -> str:
    found = read_error_status(error, set())
    if found.refusal in (Refusal.BAD_KEY, Refusal.NO_QUOTA):
        return explain_status(endpoint, found)
    return (
        f"{endpoint.host} answers a call of its batch endpoint with HTTP {status}; does it have one? "
        'transport = "requests" works everywhere'
    )


def _read(answer: httpx2.Response | None) -> dict[str, Any]:
    try:
        found = json.loads(answer.content) if answer is not None else None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise EndpointError(
            'the batch endpoint does not answer in JSON; check base_url, or set transport = "requests"'
        )
    return found


def _state(batch: dict[str, Any]) -> BatchState:
    metadata = batch.get("metadata") or {}
    counts = batch.get("request_counts") or {}
    errors = (batch.get("errors") or {}).get("data") or []
    return BatchState(
        id=batch["id"],
        status=batch["status"],
        input_file_id=batch.get("input_file_id") or "",
        output_file_id=batch.get("output_file_id") or "",
        error_file_id=batch.get("error_file_id") or "",
        chunk=metadata.get("asclepius_chunk", ""),
        run=metadata.get("asclepius_run", ""),
        num_done=(counts.get("completed") or 0) + (counts.get("failed") or 0),
        error_codes=tuple(str(error.get("code")) for error in errors if isinstance(error, dict)),
    )
