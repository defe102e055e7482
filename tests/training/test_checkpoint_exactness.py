"""A restored training is the one that was saved, bit for bit: every ZeRO stage, on any number of workers."""

from dataclasses import replace
from pathlib import Path

import pytest
from checkpoint_ranks import Seen, Task, Variant, run_ranks

pytestmark = pytest.mark.whole

FP32 = {stage: Variant(stage) for stage in (0, 1, 2, 3)}
BF16 = {stage: Variant(stage, "bf16") for stage in (0, 1, 2, 3)}
OTHERS = [
    # Several flat tensors a group, whose step counts DeepSpeed's own conversion lets run away.
    Variant(3, zero={"sub_group_size": 5000}),
    # Small parameters are not kept put together on every rank.
    Variant(3, zero={"stage3_param_persistence_threshold": 0}),
    Variant(1, tied=False, no_decay=False),
    Variant(1, frozen=True),
    Variant(3, "bf16", frozen=True, tied=False),
    Variant(2, zero={"offload_optimizer": {"device": "cpu"}}),
    Variant(3, "bf16", zero={"offload_optimizer": {"device": "cpu"}, "offload_param": {"device": "cpu"}}),
]
VARIANTS = {variant.name: variant for variant in [*FP32.values(), *BF16.values(), *OTHERS]}
CROSSINGS = [(3, 1), (1, 3), (0, 2), (2, 0), (3, 0)]
SAVED_AT, STEPS_AFTER = 3, 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def unbroken(folder: Path) -> dict[str, Seen]:
    """On two workers: three steps, a checkpoint, five more steps while it is being written."""
    tasks = [
        Task(name, variant, steps=SAVED_AT, save=str(folder / name), more_steps=STEPS_AFTER)
        for name, variant in VARIANTS.items()
    ]
    return run_ranks(2, tasks, folder)


@pytest.fixture(scope="module")
def on_one(folder: Path, unbroken: dict[str, Seen]) -> dict[str, Seen]:
    """On one worker: from those checkpoints, five steps, a checkpoint."""
    tasks = [
        Task(name, variant, load=str(folder / name), steps=STEPS_AFTER, save=str(folder / f"one-{name}"))
        for name, variant in VARIANTS.items()
    ]
    return run_ranks(1, tasks, folder)


@pytest.fixture(scope="module")
def on_two(folder: Path, on_one: dict[str, Seen]) -> dict[str, Seen]:
    """On two workers again: from both, and from those of other stages."""
    tasks = [
        Task(f"again-{name}", variant, load=str(folder / name), more_steps=STEPS_AFTER)
        for name, variant in VARIANTS.items()
    ]
    tasks += [
        Task(f"back-{name}", variant, load=str(folder / f"one-{name}")) for name, variant in VARIANTS.items()
    ]
    tasks += [
        Task(
            f"{before}-{after}-{variants[before].precision}",
            variants[after],
            load=str(folder / variants[before].name),
        )
        for variants in (FP32, BF16)
        for before, after in CROSSINGS
    ]
    return run_ranks(2, tasks, folder)


@pytest.fixture(scope="module")
def on_three(folder: Path, unbroken: dict[str, Seen]) -> dict[str, Seen]:
    """On three workers, a number by which nothing divides."""
    tasks = [Task(variant.name, variant, load=str(folder / variant.name)) for variant in FP32.values()]
    return run_ranks(3, tasks, folder)


def test_each_kind_of_optimizer_is_among_the_variants(unbroken: dict[str, Seen]) -> None:
    assert {seen.optimizer for seen in unbroken.values()} == {
        "AdamW",
        "FP16_UnfusedOptimizer",
        "DeepSpeedZeroOptimizer",
        "BF16_Optimizer",
        "DeepSpeedZeroOptimizer_Stage3",
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_the_same_number_of_workers_goes_on_as_if_nothing_had_been(
    unbroken: dict[str, Seen], on_two: dict[str, Seen], name: str
) -> None:
    before, again = unbroken[name], on_two[f"again-{name}"]
    assert again.loaded == before.saved
    assert again.end == before.end
    assert again.losses == before.losses[SAVED_AT:]
    assert before.end != before.saved
    assert again.loop_state["total_steps"] == SAVED_AT
    assert again.loop_state["metric_bytes"] == SAVED_AT + 1


@pytest.mark.parametrize("name", VARIANTS)
def test_one_worker_goes_on_from_what_two_have_saved(
    unbroken: dict[str, Seen], on_one: dict[str, Seen], name: str
) -> None:
    before, after = unbroken[name], on_one[name]
    assert after.loaded == before.saved
    assert after.adam_step == before.adam_step + STEPS_AFTER
    # DeepSpeed sums up the norm of offloaded gradients in an order that depends on the number of workers.
    if VARIANTS[name].precision == "fp32" and "offload" not in name:
        assert after.end == before.end
        assert after.losses == before.losses[SAVED_AT:]
    # Without the moments it is off by a hundredth.
    assert after.losses == pytest.approx(before.losses[SAVED_AT:], abs=5e-4)


@pytest.mark.parametrize("name", VARIANTS)
def test_two_workers_go_on_from_what_one_has_saved(
    on_one: dict[str, Seen], on_two: dict[str, Seen], name: str
) -> None:
    back = on_two[f"back-{name}"]
    assert back.loaded == on_one[name].saved
    assert back.adam_step == on_one[name].adam_step


@pytest.mark.parametrize("stage", FP32)
def test_three_workers_read_what_two_have_saved(
    unbroken: dict[str, Seen], on_three: dict[str, Seen], stage: int
) -> None:
    assert on_three[FP32[stage].name].loaded == unbroken[FP32[stage].name].saved


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("before", "after"), CROSSINGS)
def test_the_zero_stage_may_change_between_two_runs(
    unbroken: dict[str, Seen], on_two: dict[str, Seen], before: int, after: int, precision: str
) -> None:
    crossed = on_two[f"{before}-{after}-{precision}"]
    saved = unbroken[replace(FP32[before], precision=precision).name]
    assert crossed.loaded == saved.saved
    assert crossed.adam_step == saved.adam_step


@pytest.mark.parametrize("name", [FP32[1].name, FP32[3].name, BF16[1].name, BF16[3].name])
def test_a_rank_reads_its_own_part_alone(
    folder: Path, unbroken: dict[str, Seen], on_one: dict[str, Seen], on_two: dict[str, Seen], name: str
) -> None:
    whole = sum(file.stat().st_size for file in (folder / name).rglob("rank-*.safetensors"))
    assert on_one[name].bytes_read > whole
    assert on_two[f"again-{name}"].bytes_read < 0.6 * whole
