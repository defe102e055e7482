"""The offline teacher's batch endpoint: files and batches as OpenAI has them, answered by the same rules."""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Answer = Callable[[dict[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]
"""The body of a chat request → status and body of its reply."""
POLICED = ("validating", "in_progress", "finalizing")


@dataclass
class BatchKnobs:
    """How the endpoint behaves, for tests."""

    seconds: float = 0.2
    """From the creation of a batch to its end."""
    expired_share: float = 0.0
    """The last so many lines of each batch expire."""
    page: int = 100
    """Entries of one page of a list, at most."""
    max_enqueued_bytes: int = 0
    """More in live batches fails a new one with token_limit_exceeded; 0 = unlimited."""
    num_lost_replies: int = 0
    """So many batches are made and the connection breaks before anybody is told."""


@dataclass
class OfflineBatches:
    """Files and batches in memory; `lines_answered` counts by custom_id."""

    answer: Answer
    knobs: BatchKnobs = field(default_factory=BatchKnobs)
    files: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    prompts_answered: Counter[int] = field(default_factory=Counter)
    on_request: Callable[[str, str], None] = lambda method, path: None
    """Called with every request before it is served, so that a drill can strike at it."""
    on_served: Callable[[str, str], None] = lambda method, path: None
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))
    _tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    def add_routes(self, application: web.Application) -> None:
        router = application.router
        router.add_post("/v1/files", self._watched(self.upload))
        router.add_get("/v1/files", self._watched(self.list_files))
        router.add_get("/v1/files/{id}/content", self._watched(self.content))
        router.add_delete("/v1/files/{id}", self._watched(self.delete))
        router.add_post("/v1/batches", self._watched(self.create))
        router.add_get("/v1/batches", self._watched(self.list_batches))
        router.add_get("/v1/batches/{id}", self._watched(self.look))

    async def upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        file_id = self._store(upload.filename, upload.file.read())
        return web.json_response({"id": file_id, "object": "file", "purpose": "batch"})

    async def list_files(self, request: web.Request) -> web.Response:
        files = [{"id": file_id, "filename": name} for file_id, (name, _content) in self.files.items()]
        return self._page(request, files)

    async def content(self, request: web.Request) -> web.Response:
        found = self.files.get(request.match_info["id"])
        return _gone() if found is None else web.Response(body=found[1])

    async def delete(self, request: web.Request) -> web.Response:
        found = self.files.pop(request.match_info["id"], None)
        return _gone() if found is None else web.json_response({"deleted": True})

    async def create(self, request: web.Request) -> web.Response:
        body = await request.json()
        batch_id = f"batch_{next(self._numbers)}"
        lines = self.files[body["input_file_id"]][1].splitlines()
        batch = {
            "id": batch_id,
            "object": "batch",
            "status": "validating",
            "input_file_id": body["input_file_id"],
            "output_file_id": None,
            "error_file_id": None,
            "created_at": int(time.time()),
            "metadata": body.get("metadata") or {},
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
            "errors": None,
        }
        live = [other for other in self.batches.values() if other["status"] in POLICED]
        waiting = sum(len(self.files[other["input_file_id"]][1]) for other in [*live, batch])
        self.batches[batch_id] = batch
        if self.knobs.max_enqueued_bytes and waiting > self.knobs.max_enqueued_bytes:
            batch["status"] = "failed"
            batch["errors"] = {"data": [{"code": "token_limit_exceeded", "message": "too much is enqueued"}]}
        else:
            task = asyncio.get_running_loop().create_task(self._work(batch, lines))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self.knobs.num_lost_replies:
            self.knobs.num_lost_replies -= 1
            assert request.transport is not None
            request.transport.close()
        return web.json_response(batch)

    async def list_batches(self, request: web.Request) -> web.Response:
        return self._page(request, list(reversed(self.batches.values())))

    async def look(self, request: web.Request) -> web.Response:
        found = self.batches.get(request.match_info["id"])
        return _gone() if found is None else web.json_response(found)

    async def _work(self, batch: dict[str, Any], lines: list[bytes]) -> None:
        """Answers the lines in order; the last ones may expire."""
        batch["status"] = "in_progress"
        await asyncio.sleep(self.knobs.seconds)
        num_expired = round(len(lines) * self.knobs.expired_share)
        output: list[bytes] = []
        errors: list[bytes] = []
        for position, raw in enumerate(lines):
            line = json.loads(raw)
            result: dict[str, Any] = {"id": f"line_{position}", "custom_id": line["custom_id"], "error": None}
            if position >= len(lines) - num_expired:
                result |= {"response": None, "error": {"code": "batch_expired", "message": "too late"}}
                errors.append(json.dumps(result).encode())
                continue
            self.prompts_answered[hash(json.dumps(line["body"], sort_keys=True))] += 1
            status, body = await self.answer(line["body"])
            result["response"] = {"status_code": status, "request_id": f"request_{position}", "body": body}
            (output if status == 200 else errors).append(json.dumps(result).encode())
            batch["request_counts"]["completed" if status == 200 else "failed"] += 1
        for name, found in (("output_file_id", output), ("error_file_id", errors)):
            if found:
                batch[name] = self._store(f"{batch['id']}_{name}.jsonl", b"\n".join(found) + b"\n")
        batch["status"] = "expired" if num_expired else "completed"

    def _store(self, name: str, content: bytes) -> str:
        file_id = f"file-{next(self._numbers)}"
        self.files[file_id] = (name, content)
        return file_id

    def _page(self, request: web.Request, entries: list[dict[str, Any]]) -> web.Response:
        after = request.query.get("after")
        start = next((number + 1 for number, entry in enumerate(entries) if entry["id"] == after), 0)
        size = min(int(request.query.get("limit", "20")), self.knobs.page)
        page = entries[start : start + size]
        return web.json_response(
            {"object": "list", "data": page, "has_more": start + len(page) < len(entries)}
        )

    def _watched(
        self, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def watched(request: web.Request) -> web.Response:
            self.on_request(request.method, request.path)
            response = await handler(request)
            self.on_served(request.method, request.path)
            return response

        return watched


def _gone() -> web.Response:
    return _error(404, "not_found", "there is no such object")


def _error(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"error": {"message": message, "code": code}}, status=status)
