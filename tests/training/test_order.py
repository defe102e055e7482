"""The order of training: every document once an epoch, a function of (seed, phase, step), found at once."""

import itertools
import statistics
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from artefacts import write_store

from asclepius_ray.errors import StageChangedError
from asclepius_ray.tokens.packing import plan_rows
from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.training.batches import collate
from asclepius_ray.training.config import PhaseConfig, TrainingConfig
from asclepius_ray.training.loop_state import LoopState, require_same_store
from asclepius_ray.training.order import (
    PADDING_ROW,
    accumulation_steps,
    batch_rows,
    micro_batches,
    pack_epoch,
    steps_per_epoch,
)
from asclepius_ray.training.phases import Phase, load_phases
from asclepius_ray.training.schedule import learning_rate

LENGTH = 64


def settings(epochs: int, global_batch: int, phases: int = 1) -> TrainingConfig:
    phase = PhaseConfig(kind="notes", epochs=epochs)
    return TrainingConfig(global_batch=global_batch, phases=(phase,) * phases)


def documents(count: int) -> list[TokenizedExample]:
    lengths = np.random.default_rng(count).integers(2, LENGTH + 1, count)
    return [
        TokenizedExample([number] * length, [False] + [True] * (length - 1))
        for number, length in enumerate(lengths)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    write_store(folder, {"notes/train": documents(200), "notes/validation": documents(7)})
    return folder


def read_tokens(phase: Phase, steps: range) -> Counter[int]:
    """The tokens of the targets that these steps read; a token is the number of its document."""
    read = Counter[int]()
    for step in steps:
        batch = collate(*phase.batch(step))
        read.update(batch.input_ids[batch.targets].tolist())
    return read


@pytest.mark.parametrize("global_batch", [1, 8, 128])
def test_every_epoch_reads_every_token_once(store: Path, global_batch: int) -> None:
    (phase,) = load_phases(store, LENGTH, settings(3, global_batch), seed=5)
    expected = Counter({number: sum(each.loss_mask) for number, each in enumerate(documents(200))})
    assert phase.total_steps == 3 * phase.steps_per_epoch
    for epoch in range(3):
        first = epoch * phase.steps_per_epoch
        assert read_tokens(phase, range(first, first + phase.steps_per_epoch)) == expected
    with pytest.raises(ValueError, match=f"step {phase.total_steps} of a phase of {phase.total_steps} steps"):
        phase.batch(phase.total_steps)


def test_every_epoch_packs_anew_and_all_steps_are_known_at_the_start(store: Path) -> None:
    (phase,) = load_phases(store, LENGTH, settings(12, 1), seed=5)
    packed = [phase.batch(epoch * phase.steps_per_epoch)[0] for epoch in range(12)]
    assert {len(rows) for rows in packed} == {phase.steps_per_epoch}
    rows_of = [
        frozenset(frozenset(rows.packing.row(row).tolist()) for row in range(len(rows))) for rows in packed
    ]
    assert len(set(rows_of)) == 12
    rates = [learning_rate(step, phase.total_steps, 1.0, 0.03) for step in range(phase.total_steps)]
    falling = rates[phase.total_steps // 30 + 1 :]
    assert all(later < earlier for earlier, later in itertools.pairwise(falling))
    assert 0 < rates[-1] < 1e-4


def order_of(store: Path, seed: int, phase: int = 0) -> list[list[int]]:
    """For each step the documents that it reads, row by row."""
    found = load_phases(store, LENGTH, settings(2, 8, phases=2), seed)[phase]
    steps = [found.batch(step) for step in range(found.total_steps)]
    return [[number for row in rows for number in packed.packing.row(row).tolist()] for packed, rows in steps]


def test_the_order_depends_on_seed_phase_and_step_alone(store: Path) -> None:
    assert order_of(store, 1) == order_of(store, 1)
    assert order_of(store, 1) != order_of(store, 2)
    assert order_of(store, 1) != order_of(store, 1, phase=1)
    assert order_of(store, -1) != order_of(store, 1)


def test_the_rows_of_an_epoch_are_not_sorted_by_length() -> None:
    lengths = np.random.default_rng(1).integers(1, 33, 2000).astype(np.int32)
    packing = pack_epoch(plan_rows(lengths, LENGTH), lengths, seed=0, phase=0, epoch=0)
    longest = np.array([lengths[packing.row(row)].max() for row in range(len(packing))])
    halves = longest[: len(longest) // 2].mean(), longest[len(longest) // 2 :].mean()
    assert abs(halves[0] - halves[1]) < 2


@pytest.mark.parametrize(("num_rows", "global_batch"), [(20, 8), (8, 8), (3, 8), (129, 128)])
def test_the_steps_of_an_epoch_cover_its_rows(num_rows: int, global_batch: int) -> None:
    steps = steps_per_epoch(num_rows, global_batch)
    batches = [batch_rows(num_rows, global_batch, step) for step in range(steps)]
    assert [row for rows in batches for row in rows] == list(range(num_rows))
    assert all(len(rows) == global_batch for rows in batches[:-1])
    assert batches[-1]


@pytest.mark.parametrize(("workers", "micro"), list(itertools.product([1, 2, 3, 4], [1, 2, 5])))
def test_every_split_covers_the_same_rows_and_fills_up_with_weightless_ones(workers: int, micro: int) -> None:
    rows = list(range(100, 111))
    count = accumulation_steps(12, workers, micro)
    shares = [micro_batches(rows, count, workers, rank, micro) for rank in range(workers)]
    assert all(len(share) == count for share in shares)
    flat = [row for share in shares for batch in share for row in batch]
    assert all(len(batch) == micro for share in shares for batch in share)
    assert sorted(row for row in flat if row != PADDING_ROW) == rows


def test_step_100000_is_reached_as_fast_as_step_10(tmp_path: Path) -> None:
    """What a resumed run does until it has its first batch, on an order of more than 100,000 steps."""
    write_store(tmp_path, {"notes/train": documents(200), "notes/validation": []})
    training = settings(epochs=1_000, global_batch=1)

    def seconds_until_batch(step: int) -> float:
        started = time.process_time()
        (phase,) = load_phases(tmp_path, LENGTH, training, seed=1)
        assert phase.total_steps > 100_000
        assert collate(*phase.batch(step)).targets.any()
        return time.process_time() - started

    seconds_until_batch(0)
    near, far = (statistics.median(seconds_until_batch(step) for _ in range(9)) for step in (10, 100_000))
    assert far < 1.5 * near + 0.01, f"{far:.3f} s against {near:.3f} s"


def test_a_position_on_another_store_is_refused() -> None:
    state = LoopState.from_json(LoopState(total_steps=3, store_sha256="a" * 64).to_json())
    require_same_store(state, "a" * 64)
    with pytest.raises(
        StageChangedError, match=r"another token store \(aaaaaaaaaaaa, now it is bbbb.*--redo"
    ):
        require_same_store(state, "b" * 64)
