"""A real training with validations that ends a phase early, and what is seen of it."""

import json
import math
import re
import time
from typing import Any

import httpx
import pytest
import ray
import torch
from artefacts import write_inputs
from test_trackers import shown
from transformers import AutoModelForCausalLM

from asclepius_ray.artifacts import Folder, read_manifest
from asclepius_ray.config import parse_section
from asclepius_ray.progress import Progress
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training.batches import collate, summed_loss
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.metrics import Metrics
from asclepius_ray.training.phases import Phase, load_phases
from asclepius_ray.training.stage import train

pytestmark = pytest.mark.whole

SEED, LENGTH, WORKERS, PATIENCE = 11, 256, 2, 2
FIGURE = r'^ray_asclepius_training_(\w+)\{[^}]*run="figures-of-a-line"[^}]*\} (\S+)$'
STEP_FIGURES = {
    "loss",
    "learning_rate",
    "gradient_norm",
    "tokens",
    "seconds",
    "tokens_per_second",
    "padding_share",
    "data_wait_share",
    "checkpoint_blocked_share",
    "host_memory_gib",
}


def settings(zero_stage: int) -> TrainingConfig:
    """The rate of the first phase is so high that its steps soon spoil the model."""
    values = {
        "tiny": {"vocabulary_size": 360, "hidden_size": 48, "layers": 2, "heads": 4},
        "phases": [
            {"kind": "notes", "epochs": 8, "learning_rate": 0.3, "warmup_ratio": 0.3},
            {"kind": "instructions", "epochs": 1, "learning_rate": 1e-6},
        ],
        "workers": WORKERS,
        "zero_stage": zero_stage,
        "global_batch": 5,
        "checkpoint_steps": 3,
        "keep_checkpoints": 1,
        "validation_steps": 1,
        "early_stopping_patience": PATIENCE,
        "cpu_threads": 1,
        "trackers": ["tensorboard"],
    }
    return parse_section(TrainingConfig, values, "the test")


class Seen(Progress):
    """Remembers what was shown; presses Ctrl-C at a step."""

    def __init__(self, interrupt_at: int = 0) -> None:
        super().__init__()
        self.interrupt_at, self.details = interrupt_at, [""]

    def update(self, done: int, total: int = 0, detail: str = "") -> None:
        self.details.append(detail)
        if self.interrupt_at and done >= self.interrupt_at:
            raise KeyboardInterrupt


def run(root: Folder, zero_stage: int, progress: Progress) -> None:
    train(root, TokensConfig(sequence_length=LENGTH), settings(zero_stage), SEED, progress, {"of": "a test"})


def read_lines(root: Folder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in root.child("training").read_bytes("metrics.jsonl").splitlines()]


@pytest.fixture(scope="module")
def unbroken(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Seen]:
    root, progress = Folder(str(tmp_path_factory.mktemp("unbroken"))), Seen()
    write_inputs(root)
    run(root, 0, progress)
    return root, progress


def of_phase(lines: list[dict[str, Any]], number: int, key: str) -> list[tuple[int, float]]:
    return [(line["step"], line[key]) for line in lines if line["phase_number"] == number and key in line]


def test_a_phase_ends_early_and_its_best_weights_go_on(unbroken: tuple[Folder, Seen]) -> None:
    lines = read_lines(unbroken[0])
    before, *within, taken = of_phase(lines, 1, "validation_loss")
    best_step, best_loss = min(within, key=lambda point: point[1])
    last_step = of_phase(lines, 1, "loss")[-1][0]
    planned = phases_of(unbroken[0])[0].total_steps
    assert before[0] == 0
    assert best_step + PATIENCE == last_step < planned
    assert within[-1][1] > best_loss + 0.1, "the phase must have become worse"
    assert taken == (last_step, pytest.approx(best_loss, abs=1e-6))


def phases_of(root: Folder) -> list[Phase]:
    return load_phases(root.child("tokens").local_path, LENGTH, settings(0), SEED)


def test_the_exported_model_has_the_loss_of_the_last_validation(unbroken: tuple[Folder, Seen]) -> None:
    root = unbroken[0]
    packed = phases_of(root)[1].validation
    rows = list(range(len(packed)))
    model = AutoModelForCausalLM.from_pretrained(root.child("model").local_path)
    with torch.no_grad():
        loss = summed_loss(model, collate(packed, rows)).item() / packed.loss_tokens(rows)
    assert loss == pytest.approx(of_phase(read_lines(root), 2, "validation_loss")[-1][1], abs=1e-4)


def test_every_step_has_its_figures_and_a_phase_its_validations(unbroken: tuple[Folder, Seen]) -> None:
    root, _ = unbroken
    lines = read_lines(root)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    for line in steps:
        assert line.keys() >= STEP_FIGURES
        assert line["gradient_norm"] > 0
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"], rel=0.01)
        assert 0 <= line["padding_share"] < 1
        assert 0 <= line["data_wait_share"] <= 1
        assert 0 <= line["checkpoint_blocked_share"] < 1
        assert "model_flops_utilisation" not in line, "nobody knows the peak of a CPU"
    assert any(line["checkpoint_blocked_share"] > 0 for line in steps)
    for line in lines:
        if "loss" not in line:
            assert line["perplexity"] == pytest.approx(math.exp(line["validation_loss"]))
    phases = read_manifest(root.child("training")).details["phases"]
    assert [phase["steps"] for phase in phases] == [len(of_phase(lines, number, "loss")) for number in (1, 2)]


def test_the_padding_is_what_the_batches_hold(unbroken: tuple[Folder, Seen]) -> None:
    """One step's positions, counted from the tensors of all workers."""
    from asclepius_ray.training.meters import padded_positions
    from asclepius_ray.training.order import micro_batches

    root, training = unbroken[0], settings(0)
    packed, rows = phases_of(root)[0].batch(0)
    shares = [micro_batches(rows, 2, WORKERS, rank, training.micro_batch) for rank in range(WORKERS)]
    positions = sum(collate(packed, share).input_ids.numel() for rank in shares for share in rank)
    assert padded_positions(packed, shares) == positions
    (line, *_) = [line for line in read_lines(root) if "loss" in line]
    assert line["padding_share"] == pytest.approx(1 - packed.tokens(rows) / positions, abs=1e-4)


def test_the_progress_tells_speed_and_time_left(unbroken: tuple[Folder, Seen]) -> None:
    _, progress = unbroken
    assert any("tokens/s" in detail and detail.endswith(" left") for detail in progress.details)


def test_tensorboard_has_what_the_lines_have(unbroken: tuple[Folder, Seen]) -> None:
    root, _ = unbroken
    found = shown(root.child("training").local_path / "tensorboard")
    lines = read_lines(root)
    losses = {line["step"]: line["loss"] for line in lines if "loss" in line}
    assert found["training/loss"] == pytest.approx(losses)
    assert {name.removeprefix("training/") for name in found} >= STEP_FIGURES
    assert set(found["validation/perplexity"]) == {line["step"] for line in lines if "perplexity" in line}


def test_prometheus_reads_the_figures_of_a_line(unbroken: tuple[Folder, Seen]) -> None:
    """From the nodes' own ports, as a Prometheus server does."""
    lines = read_lines(unbroken[0])
    line = next(line for line in lines if "loss" in line)
    expected = {**{name: line[name] for name in STEP_FIGURES - {"seconds"}}, "seconds_left": 90.5}
    metrics = Metrics("figures-of-a-line", 1_700_000_000.0)
    metrics.begin(WORKERS, 0, 12, 1_700_000_000.0)
    metrics.set(line, 90.5, 1_700_000_060.0)
    metrics.saved(1, 2.5, 1_700_000_061.0)
    metrics.not_finite()
    expected |= {
        "workers": WORKERS, "planned_steps": 12, "active": 1, "non_finite_steps": 1, "checkpoint_step": 1,
        "checkpoint_seconds": 2.5, "last_step_timestamp_seconds": 1_700_000_060.0,
        "checkpoint_timestamp_seconds": 1_700_000_061.0,
    }  # fmt: skip
    deadline, found = time.monotonic() + 60, {}
    while time.monotonic() < deadline and found.get("seconds_left") != 90.5:
        time.sleep(1.0)
        found = read_gauges()
    assert {name: found.get(name) for name in expected} == pytest.approx(expected)


def read_gauges() -> dict[str, float]:
    found = {}
    for node in ray.nodes():
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        text = httpx.get(url, trust_env=False, timeout=10).text
        for name, value in re.findall(FIGURE, text, re.MULTILINE):
            found[name] = float(value)
    return found
