"""The estimate of a worker's memory against what torch and DeepSpeed allocate in real training steps."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measured_ranks import WORKERS, Case, write_cases

from asclepius_ray.doctor.memory import ModelShape, Plan, checkpoint_bytes, worker_memory

FACTOR = 1.3
"""The estimate is within this factor of what is measured, on either side."""
WIDE = {"hidden_size": 384, "layers": 4, "vocabulary_size": 1000, "micro_batch": 1, "sequence_length": 16}
"""Weights, gradients and optimizer are most of it."""
LONG = {"hidden_size": 96, "layers": 6, "vocabulary_size": 3000, "micro_batch": 2, "sequence_length": 512}
"""Activations and logits are most of it."""
CASES = [
    *(
        Case(stage, precision, **WIDE, gradient_checkpointing=False)
        for stage in (0, 1, 2, 3)
        for precision in ("fp32", "bf16")
    ),
    *(
        Case(2, precision, **LONG, gradient_checkpointing=checkpointing)
        for precision in ("fp32", "bf16")
        for checkpointing in (False, True)
    ),
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, dict[str, Any]]:
    """By the case's name: bytes of rank 0, and the size of its model."""
    folder = tmp_path_factory.mktemp("measured")
    write_cases(CASES, folder / "cases.json")
    program = Path(__file__).parent / "measured_ranks.py"
    ended = subprocess.run(
        [sys.executable, program, folder / "cases.json"],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    return {line["name"]: line for line in lines}


def plan_of(case: Case) -> Plan:
    return Plan(
        zero_stage=case.zero_stage,
        workers=WORKERS,
        precision=case.precision,
        micro_batch=case.micro_batch,
        sequence_length=case.sequence_length,
        gradient_checkpointing=case.gradient_checkpointing,
        on_gpu=False,
    )


def shape_of(case: Case, found: Mapping[str, Any]) -> ModelShape:
    return ModelShape(
        parameters=found["parameters"],
        trainable_parameters=found["parameters"],
        largest_tensor=found["largest_tensor"],
        hidden_size=case.hidden_size,
        intermediate_size=case.hidden_size * 8 // 3,
        layers=case.layers,
        vocabulary_size=case.vocabulary_size,
    )


@pytest.mark.long
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_estimate_is_near_what_a_real_step_allocates(
    measured: Mapping[str, dict[str, Any]], case: Case
) -> None:
    found = measured[case.name]
    estimate = worker_memory(shape_of(case, found), plan_of(case))
    ratio = estimate.peak / found["peak"]
    print(  # noqa: T201  # the figures, for who looks with -s
        f"{case.name}: measured {found['peak'] / 1e6:.1f} MB, estimated {estimate.peak / 1e6:.1f} MB"
    )
    assert 1 / FACTOR < ratio < FACTOR, f"estimated {estimate.peak:,.0f}, measured {found['peak']:,.0f}"


MODEL = ModelShape(7_000_000_000, 7_000_000_000, 131_000_000, 4096, 11008, 32, 32000)
PLAN = Plan(2, 8, "bf16", 2, 2048, gradient_checkpointing=False, on_gpu=True)


def test_each_stage_takes_less_than_the_one_before_it() -> None:
    peaks = [worker_memory(MODEL, PLAN.at_stage(stage)).peak for stage in (0, 1, 2, 3)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[3] < 0.5 * peaks[0]


def test_more_workers_take_less_each_wherever_something_is_shared() -> None:
    more = replace(PLAN, workers=16)
    for stage in (1, 2, 3):
        assert (
            worker_memory(MODEL, more.at_stage(stage)).peak < worker_memory(MODEL, PLAN.at_stage(stage)).peak
        )
    assert worker_memory(MODEL, more.at_stage(0)) == worker_memory(MODEL, PLAN.at_stage(0))


def test_what_is_offloaded_moves_to_the_host_and_is_not_gone() -> None:
    here = worker_memory(MODEL, PLAN.at_stage(3))
    optimizer_away = worker_memory(MODEL, replace(PLAN.at_stage(3), optimizer_offload=True))
    all_away = worker_memory(MODEL, replace(PLAN.at_stage(3), optimizer_offload=True, parameter_offload=True))
    assert here.offloaded == 0
    assert all_away.peak < optimizer_away.peak < here.peak
    assert all_away.offloaded > optimizer_away.offloaded > 12 * MODEL.parameters / PLAN.workers
    assert optimizer_away.kept + optimizer_away.offloaded >= here.kept


def test_only_what_is_trained_has_gradients_and_an_optimizer() -> None:
    adapters = replace(MODEL, trainable_parameters=20_000_000)
    plan = PLAN.at_stage(0)
    assert (
        worker_memory(adapters, plan).kept < 1.1 * 2 * MODEL.parameters < worker_memory(MODEL, plan).kept / 5
    )
    assert checkpoint_bytes(adapters) < checkpoint_bytes(MODEL) / 5
