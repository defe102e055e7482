"""What the drills of the synthesis share: runs, what the teacher has counted, what is durable."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
from benchmarks.workload import write_reports

from asclepius_ray.artifacts import Folder, Manifest, read_manifest
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.journal.journal import Journal

PROJECT = Path(__file__).resolve().parents[2]
ASCLEPIUS = Path(sys.executable).parent / "asclepius"
ARTEFACTS = ("dataset", "notes", "rejected")
PILOT_ROWS = 100
UNBROKEN = "unbroken"
LOOK_SECONDS = 0.1
# One for all: a new one reads all certificates anew, 30 ms of a core for each look.
TEACHER = httpx.Client(timeout=60, trust_env=False)


@dataclass(frozen=True)
class Counted:
    """What the teacher has counted; `accepted_at` in monotonic seconds, the same for all processes."""

    accepted_at: list[float]
    num_prompts: int
    """Different prompts among the accepted calls."""
    in_flight: int
    num_answered: int
    num_refusals: int
    bought_twice: int
    prompt_tokens: int
    completion_tokens: int
    faults_met: dict[str, int]

    @property
    def num_accepted(self) -> int:
        return len(self.accepted_at)

    @property
    def num_repeated(self) -> int:
        """Calls for a prompt that was asked before, answered or broken off: a provider charges for both."""
        return self.num_accepted - self.num_prompts


def counted_by(base_url: str) -> Counted:
    address = f"{base_url.removesuffix('/v1')}/offline/counters"
    found = TEACHER.get(address).json()
    return Counted(
        accepted_at=found["accepted_at"],
        num_prompts=found["prompts_accepted"],
        in_flight=found["in_flight"],
        num_answered=sum(found["answered"].values()),
        num_refusals=found["refusals"],
        bought_twice=found["bought_twice"],
        prompt_tokens=found["prompt_tokens"],
        completion_tokens=found["completion_tokens"],
        faults_met=found["faults_met"],
    )


@dataclass(frozen=True)
class Order:
    """An input and what a run on it makes."""

    reports: Path
    num_rows: int
    settings: tuple[str, ...]
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Artefact → file → sha256, of a run that nothing has disturbed."""


class Run:
    """`asclepius run synthesize` as a process of its own; what it says goes into a file."""

    def __init__(
        self,
        root: Path,
        order: Order,
        base_url: str,
        *overrides: str,
        environment: dict[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        settings = (
            f"root={root}",
            f"input.path={order.reports}",
            f"teacher.base_url={base_url}",
            f"teacher.model={OFFLINE_MODEL}",
            *order.settings,
            *overrides,
        )
        sets = [part for override in settings for part in ("--set", override)]
        self._log = root.parent / f"{root.name}-{time.monotonic_ns()}.log"
        clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [ASCLEPIUS, "run", "synthesize", "jobs/runs/quickstart.toml", *arguments, *sets],
                cwd=PROJECT,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean | {"PYTHONPATH": str(PROJECT)} | (environment or {}),
                start_new_session=True,
            )
        self._workers: list[psutil.Process] = []

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def wait_until(self, condition: Callable[[], bool], seconds: float = 300) -> None:
        """Fails where the run ends before, or it takes longer."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, f"the run did not get as far in time:\n{self.output}"
            time.sleep(LOOK_SECONDS)

    def end(self, seconds: float = 600) -> int:
        """Waits for its end and returns its exit code."""
        try:
            code = self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the run does not end:\n{self.output}") from None
        assert "Traceback" not in self.output, self.output
        return code

    def find(self, role: str) -> list[psutil.Process]:
        """Processes that this run has started and that Ray calls by that name, such as "MapWorker"."""
        found = []
        for process in self._children():
            with suppress(psutil.Error):
                if process.cmdline()[:1] and role in process.cmdline()[0]:
                    found.append(process)
        return found

    def kill(self) -> None:
        """kill -9 of the driver; returns when nothing is left that could ask or write."""
        self.note_workers()
        self.process.kill()
        self.wait_for_kill()

    def note_workers(self) -> None:
        """Remembers who has to be gone after a kill; Ray's own agents take a minute and do nothing."""
        self._workers = [*self.find("MapWorker"), *self.find("Desk")]

    def wait_for_kill(self) -> None:
        """For a driver that something else kills."""
        self.process.wait(timeout=120)
        _gone, alive = psutil.wait_procs(self._workers, timeout=60)
        assert alive == [], f"the killed run has left processes behind: {alive}"

    def _children(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []


@contextmanager
def started(run: Run) -> Iterator[Run]:
    """A run that is not left behind where its drill fails."""
    try:
        yield run
    finally:
        if run.process.poll() is None:
            run.kill()


def finish(root: Path, order: Order, base_url: str, *overrides: str) -> str:
    """Runs to the end, which has to be a good one, and returns what was said."""
    with started(Run(root, order, base_url, *overrides)) as run:
        assert run.end() == 0, run.output
        return run.output


def files_of(root: Path) -> dict[str, dict[str, str]]:
    """Artefact → file → sha256, as the manifests have them."""
    return {name: dict(read_manifest(Folder(str(root / name))).files) for name in ARTEFACTS}


def check_counts(manifest: Manifest, num_rows: int) -> None:
    counts = manifest.counts
    assert counts["input"] == num_rows
    assert num_rows == counts["ok"] + sum(counts["rejected"].values()) + sum(counts["failed"].values())


def manifest_of(root: Path) -> Manifest:
    return read_manifest(Folder(str(root / "dataset")))


def unbroken_manifest(order: Order) -> Manifest:
    """Of the dataset that a run on this order made undisturbed."""
    return manifest_of(order.reports.parent / UNBROKEN)


def num_durable(root: Path) -> int:
    """Answers on storage at this moment, as a rerun would find them."""
    for _attempt in range(20):
        # A merge may remove a segment between the listing and the reading of it.
        with suppress(FileNotFoundError):
            return len(Journal.open(Folder(str(root / "journal" / "teacher"))))
        time.sleep(LOOK_SECONDS)
    raise AssertionError("the journal cannot be read")


def make_order(folder: Path, num_rows: int, base_url: str, *settings: str) -> Order:
    """Invented reports, and what a run on them makes that nothing disturbs."""
    reports = folder / "reports.csv"
    write_reports(reports, num_rows)
    order = Order(reports, num_rows, (f"synthesis.pilot_rows={PILOT_ROWS}", *settings))
    finish(folder / UNBROKEN, order, base_url)
    return Order(reports, num_rows, order.settings, files_of(folder / UNBROKEN))
