"""What the drills of the training share: a small training, and what was seen of each run of it."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psutil
from training.artefacts import write_inputs

from asclepius_ray.artifacts import Folder
from asclepius_ray.config import parse_section
from asclepius_ray.progress import Progress
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training import fitting
from asclepius_ray.training.board import Board
from asclepius_ray.training.checkpoints.catalog import committed_steps, read_commit
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.prepared import ensure_tokens
from asclepius_ray.training.recorder import Recorder
from asclepius_ray.training.stage import ensure_base_model, train

SEED, TOKENS = 5, TokensConfig(sequence_length=256)
MADE_FROM = {"settings": "of a drill"}
CHECKPOINT_STEPS = 3
WATCH_SECONDS = 0.1


def settings(**changed: object) -> TrainingConfig:
    """Two phases of some sixty steps together, in fp32.

    A step is two micro-batches, whose sum is the same to the bit however they are shared out; of more than
    two, the order of the additions would show.
    """
    values = {
        "tiny": {"vocabulary_size": 360, "hidden_size": 48, "layers": 2, "heads": 4},
        "phases": [
            {"kind": "notes", "epochs": 3, "learning_rate": 3e-3},
            {"kind": "instructions", "epochs": 3, "learning_rate": 3e-3},
        ],
        "global_batch": 4,
        "micro_batch": 2,
        # A lone worker would take both cores, and add up in another order.
        "cpu_threads": 1,
        "checkpoint_steps": CHECKPOINT_STEPS,
    }
    return parse_section(TrainingConfig, {**values, **changed}, "the drill")


def prepare(root: Folder) -> None:
    """All that comes before the first step; needs a cluster."""
    write_inputs(root, train_rows=60)
    training, progress = settings(), Progress()
    base_model = ensure_base_model(root, TOKENS, training, SEED, progress)
    ensure_tokens(root, TOKENS, base_model, progress)


def copy_prepared(prepared: Folder, root: Folder) -> None:
    """The prepared run under another address, a bucket's too."""
    if root.is_local:
        shutil.copytree(prepared.local_path, root.local_path, dirs_exist_ok=True)
    else:
        root.upload(prepared.local_path)


@dataclass
class Watch(Progress):
    """Hears everything that the workers tell the driver."""

    act: Callable[["Watch"], None] = lambda watch: None
    """Called in the driver's main thread, every WATCH_SECONDS."""
    lines: list[dict[str, Any]] = field(default_factory=list)
    """Metric lines of optimizer steps in the order in which they ran, repeated ones included."""
    starts: list[dict[str, Any]] = field(default_factory=list)
    """{workers, step} of each group of workers."""
    reported: list[int] = field(default_factory=list)
    """Steps whose checkpoints were reported as whole, in order."""
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    @property
    def step(self) -> int:
        return int(self.lines[-1]["step"]) if self.lines else 0

    @property
    def executed(self) -> list[int]:
        return [line["step"] for line in self.lines]

    def say(self, line: str) -> None:
        self.said.append(line)

    def hear(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "start":
                self.starts.append({"workers": event["workers"], "step": event["step"]})
            case "metrics" if "loss" in event["line"]:
                self.lines.append(event["line"])
            case "checkpoint":
                self.reported.append(event["total_steps"])


def slow_board(step_seconds: float) -> type[Board]:
    """A board that makes every step last: something has to be left when workers and nodes come and go."""

    class SlowBoard(Board):
        def wishes(self) -> list[str]:
            time.sleep(step_seconds)
            return super().wishes()

    return SlowBoard


def run(root: Folder, training: TrainingConfig, watch: Watch, step_seconds: float = 0.0) -> None:
    """The product's own training, with every event heard before the product takes it.

    A step lasts `step_seconds` longer than it would.
    """
    take, board, poll_seconds = Recorder.take, fitting.Board, fitting.POLL_SECONDS

    def hear_and_take(recorder: Recorder, events: list[dict[str, Any]]) -> None:
        for event in events:
            watch.hear(event)
        take(recorder, events)
        watch.act(watch)

    Recorder.take = hear_and_take  # type: ignore[method-assign]
    fitting.Board, fitting.POLL_SECONDS = slow_board(step_seconds), WATCH_SECONDS  # type: ignore[misc]
    try:
        train(root, TOKENS, training, SEED, watch, MADE_FROM)
    finally:
        Recorder.take = take  # type: ignore[method-assign]
        fitting.Board, fitting.POLL_SECONDS = board, poll_seconds  # type: ignore[misc]


@dataclass(frozen=True)
class Result:
    """What a training has come to."""

    consumed: list[tuple[int, str]]
    """Step and hash of the documents that it read, in order."""
    losses: list[float]
    state: list[Any]
    """The final masters and moments of every rank, as the sha256 of their files."""
    model: str


def result_of(root: Folder) -> Result:
    content = root.child("training").read_bytes("metrics.jsonl").decode()
    lines = [line for line in map(json.loads, content.splitlines()) if "loss" in line]
    newest = committed_steps(root.child("training"))[0]
    commit = read_commit(root.child("training"), newest)
    return Result(
        consumed=[(line["step"], line["rows"]) for line in lines],
        losses=[line["loss"] for line in lines],
        state=[
            commit.total_steps,
            commit.adam_step,
            [(file.sha256, file.fragments) for file in commit.files],
        ],
        model=root.child("model").sha256("model.safetensors"),
    )


def training_workers() -> list[psutil.Process]:
    """The workers that train on the clusters which this process has started."""
    return [child for child in psutil.Process().children(recursive=True) if _is_training_worker(child)]


def _is_training_worker(process: psutil.Process) -> bool:
    try:
        return any("RayTrainWorker" in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        # It has ended, if only since the list was made.
        return False
