"""A small dashboard that answers about one job as Ray's does, over real HTTP, in a thread."""

import asyncio
import platform
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray
from aiohttp import web

STEP_SECONDS = 0.02


@dataclass
class Dashboard:
    """What it says of the job; a test changes it while it is asked."""

    address: str = ""
    status: str = "RUNNING"
    exit_code: int | None = None
    message: str = ""
    log: str = ""
    knows_the_job: bool = True
    log_is_readable: bool = True
    log_breaks_after_seconds: float = 0.0
    """0 = never."""
    log_ends: bool = True
    """Where not, it stays open after the job's end."""
    takes_jobs: bool = True
    is_cut_while_sending: bool = False
    """The connection breaks where the answer to a job that was sent would come."""
    sent: list[dict[str, Any]] = field(default_factory=list)
    num_log_connections: int = 0

    def end(self, status: str, exit_code: int | None) -> None:
        self.exit_code, self.status = exit_code, status

    async def show_job(self, request: web.Request) -> web.Response:
        if not self.knows_the_job:
            return web.Response(status=404, text="no such job")
        return web.json_response(
            {
                "type": "SUBMISSION",
                "submission_id": request.match_info["job"],
                "status": self.status,
                "entrypoint": "python jobs/train.py run.toml",
                "message": self.message,
                "driver_exit_code": self.exit_code,
            }
        )

    async def tail_log(self, request: web.Request) -> web.StreamResponse:
        self.num_log_connections += 1
        if not self.log_is_readable:
            return web.Response(status=503, text="no websockets here")
        clock = asyncio.get_running_loop().time
        opened, num_said = clock(), 0
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while True:
            has_ended = self.status != "RUNNING"
            if new := self.log[num_said:]:
                num_said += len(new)
                await socket.send_str(new)
            if has_ended and self.log_ends:
                await socket.close()
                return socket
            if 0.0 < self.log_breaks_after_seconds < clock() - opened:
                _cut(request)
                return socket
            await asyncio.sleep(STEP_SECONDS)

    async def take_job(self, request: web.Request) -> web.Response:
        job = await request.json()
        if self.takes_jobs:
            self.sent.append(job)
        if self.is_cut_while_sending:
            _cut(request)
        if not self.takes_jobs:
            return web.Response(status=400, text="no room for it")
        return web.json_response({"job_id": job["submission_id"], "submission_id": job["submission_id"]})

    async def take_package(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=404 if request.method == "GET" else 200)


@contextmanager
def stand_in_dashboard() -> Iterator[Dashboard]:
    loop, stopping, listening = asyncio.new_event_loop(), asyncio.Event(), threading.Event()
    dashboard = Dashboard()

    async def serve() -> None:
        runner = web.AppRunner(_application(dashboard), access_log=None, shutdown_timeout=0.2)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        dashboard.address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        listening.set()
        await stopping.wait()
        await runner.cleanup()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert listening.wait(10), "the test's dashboard did not start"
    try:
        yield dashboard
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
        loop.close()


def _application(dashboard: Dashboard) -> web.Application:
    application = web.Application(client_max_size=1 << 26)
    routes = application.router
    routes.add_get("/api/jobs/{job}/logs/tail", dashboard.tail_log)
    routes.add_get("/api/jobs/{job}", dashboard.show_job)
    routes.add_post("/api/jobs/", dashboard.take_job)
    routes.add_route("*", "/api/packages/{protocol}/{name}", dashboard.take_package)
    node = {"resources_total": {"CPU": 2.0}}
    fixed: dict[str, Any] = {
        "/api/authentication_mode": {"authentication_mode": "disabled"},
        "/api/version": {"ray_version": ray.__version__},
        "/api/v0/cluster_metadata": {"data": {"pythonVersion": platform.python_version()}},
        "/api/v0/nodes": {"data": {"result": {"result": [node]}}},
    }
    for path, answer in fixed.items():
        routes.add_get(path, _always(answer))
    return application


def _always(answer: dict[str, Any]) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answered(_request: web.Request) -> web.Response:
        return web.json_response(answer)

    return answered


def _cut(request: web.Request) -> None:
    assert request.transport is not None
    request.transport.abort()
