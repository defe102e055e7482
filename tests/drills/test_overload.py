"""Twice the load that a served model can take: what is admitted is answered as quickly as ever."""

import json
import math
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

import httpx
import psutil
import pytest
from reciting_model import save_reciting_model

pytestmark = pytest.mark.long

PROJECT = Path(__file__).resolve().parents[2]
KEY = "overload-drill-key-0123456789abcdef"
START_SECONDS = 180
CALIBRATION_SECONDS, CALM_SECONDS, OVERLOAD_SECONDS = 12, 30, 120
SATURATING_CLIENTS = 48
CLIENTS_NICENESS = 10
"""They are other machines in life: here they take what the server leaves."""
PEAK_RATES = (1.0, 1.2)
"""Of the capacity: where the goodput of an open load is highest. Patient clients ask in step with one
another, so that their prompts are read together, and get some 10 % more; no open load can."""
LEAST_OF_PEAK = 0.85
"""Measured over two minutes: 0.91, beside other work on the machine; over ten seconds 0.95 to 1.05. The rest
is for machines that are not as quick in one minute as in the next."""
MOST_REFUSED_IN_CALM = 0.06
"""As simulated at 80 % of the capacity (tests/serving/admission): arrivals come in clusters."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """`asclepius run serve` as a process of its own, with its HTTP address."""

    def __init__(self, root: Path) -> None:
        # Every answer is as long as it is allowed to be.
        words = [f" word{number}" for number in range(20)]
        model = save_reciting_model(root / "model", words, 2048, ends=False)
        port = free_port()
        overrides = {
            "name": "model",
            "root": str(root / "root"),
            "serving.model": str(model),
            "serving.port": port,
        }
        changes = [part for name, value in overrides.items() for part in ("--set", f"{name}={value}")]
        command = [sys.executable, "-m", "asclepius_ray.cli", "run", "serve"]
        self.log = (root / "log").open("wb")
        self.process = subprocess.Popen(
            [*command, str(PROJECT / "jobs/runs/quickstart.toml"), *changes],
            stdout=self.log,
            stderr=subprocess.STDOUT,
            # As quick as the machine is: nothing is compared to the bit here.
            env={name: value for name, value in os.environ.items() if name != "MKL_CBWR"}
            | {"ASCLEPIUS_API_KEY": KEY},
            cwd=PROJECT,
        )
        self.url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self._wait(f"http://127.0.0.1:{port}/health/ready", root / "log")

    def _wait(self, ready: str, log: Path) -> None:
        give_up = time.monotonic() + START_SECONDS
        while time.monotonic() < give_up and self.process.poll() is None:
            try:
                if httpx.get(ready, timeout=5).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.5)
        raise AssertionError(log.read_text(errors="replace")[-3000:])

    def replica(self) -> psutil.Process:
        """The process that holds the engine: the largest of ours."""
        ours = psutil.Process(self.process.pid).children(recursive=True)
        return max(ours, key=lambda each: each.memory_info().rss)

    def load(self, **settings: float) -> dict[str, Any]:
        options = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
        script = Path(__file__).with_name("open_loop.py")
        ended = subprocess.run(
            ["nice", "-n", str(CLIENTS_NICENESS), sys.executable, str(script), self.url, "model", *options],
            capture_output=True,
            text=True,
            timeout=400,
            env=os.environ | {"SERVING_KEY": KEY},
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
        return told

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(90)
        self.log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("overload"))
    yield running
    running.end()


@pytest.fixture(scope="module")
def told(server: Server) -> dict[str, Any]:
    """What was seen at 80 % of what patient clients got, around it, and at twice of it."""
    server.load(clients=4, seconds=5)
    full = server.load(clients=SATURATING_CLIENTS, seconds=CALIBRATION_SECONDS)
    capacity = full["finished"] / full["seconds"]
    calm = server.load(rate=0.8 * capacity, seconds=CALM_SECONDS)
    peaks = [server.load(rate=share * capacity, seconds=CALIBRATION_SECONDS) for share in PEAK_RATES]
    memory: list[int] = []
    done = threading.Event()

    def watch() -> None:
        replica = server.replica()
        while not done.wait(1):
            memory.append(replica.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        overload = server.load(rate=2 * capacity, seconds=OVERLOAD_SECONDS)
    finally:
        done.set()
        watcher.join()
    # Right before and right after, for a machine that is not as quick in one minute as in the next.
    peaks += [server.load(rate=share * capacity, seconds=CALIBRATION_SECONDS) for share in PEAK_RATES]
    return {"peaks": peaks, "calm": calm, "overload": overload, "memory": memory}


def tokens_per_second(load: dict[str, Any]) -> float:
    return float(load["tokens"] / load["seconds"])


def p99_seconds(load: dict[str, Any]) -> float:
    durations = sorted(load["durations_seconds"])
    return float(durations[math.ceil(0.99 * len(durations)) - 1])


def test_what_is_admitted_at_twice_the_load_takes_at_most_twice_as_long(told: dict[str, Any]) -> None:
    times = p99_seconds(told["overload"]) / p99_seconds(told["calm"])
    print(f"p99 at twice the load: {times:.2f} times that at 80 %")  # noqa: T201
    assert times <= 2


def test_at_twice_the_load_hardly_less_is_finished_than_at_the_peak(told: dict[str, Any]) -> None:
    num_rates = len(PEAK_RATES)
    before, after = told["peaks"][:num_rates], told["peaks"][num_rates:]
    peak = fmean(max(map(tokens_per_second, loads)) for loads in (before, after))
    share = tokens_per_second(told["overload"]) / peak
    print(f"goodput at twice the load: {share:.0%} of {peak:,.0f} tokens/s")  # noqa: T201
    assert share >= LEAST_OF_PEAK


def test_what_is_refused_is_told_when_to_come_back_and_nothing_else_goes_wrong(told: dict[str, Any]) -> None:
    overload = told["overload"]
    assert overload["ill_formed"] == {}
    refused = sum(overload["refused"].values())
    assert refused > 0.2 * overload["sent"], "the load was no overload"
    assert overload["finished"] + refused == overload["sent"]
    calm = told["calm"]
    assert calm["ill_formed"] == {}
    assert sum(calm["refused"].values()) <= MOST_REFUSED_IN_CALM * calm["sent"]


def test_memory_stays_flat_under_overload(told: dict[str, Any]) -> None:
    memory = told["memory"]
    early, late = memory[len(memory) // 4], max(memory[-len(memory) // 4 :])
    assert late <= early * 1.05 + (16 << 20)
