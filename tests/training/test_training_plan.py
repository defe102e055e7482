"""What is decided without a model: the learning rate, DeepSpeed's configuration, what is told of it."""

import itertools

import pytest

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError, TrainingError
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.deepspeed_config import deepspeed_config
from asclepius_ray.training.failures import original_error
from asclepius_ray.training.recorder import summarize
from asclepius_ray.training.schedule import learning_rate


def test_the_rate_rises_over_the_warm_up_and_falls_along_a_cosine() -> None:
    rates = [learning_rate(step, 100, 2e-5, 0.03) for step in range(100)]
    assert rates[:3] == pytest.approx([2e-5 / 3, 4e-5 / 3, 2e-5])
    assert max(rates) == rates[3] == 2e-5
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[3:]))
    assert rates[51] == pytest.approx(1e-5, rel=0.03)
    assert 0 < rates[-1] < 1e-7
    assert learning_rate(0, 1, 1.0, 0.0) == 1.0


@pytest.mark.parametrize(("workers", "micro", "batch"), [(2, 2, 128), (3, 2, 128), (1, 8, 5), (4, 1, 6)])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_is_told_a_consistent_batch(workers: int, micro: int, batch: int, stage: int) -> None:
    precision = "bf16" if stage else "fp32"
    training = TrainingConfig(zero_stage=stage, micro_batch=micro, global_batch=batch, precision=precision)
    config = deepspeed_config(training, workers)
    steps = config["gradient_accumulation_steps"]
    assert config["train_batch_size"] == workers * micro * steps >= batch
    assert workers * micro * (steps - 1) < batch
    assert config["zero_optimization"]["stage"] == stage
    assert ("bf16" in config) == bool(stage)
    assert config["optimizer"]["params"]["weight_decay"] == 0.0
    assert config["optimizer"]["params"]["torch_adam"]


@pytest.mark.parametrize(("offloaded", "forced"), [(True, False), (False, None)])
def test_an_offloaded_optimizer_is_torchs_own(offloaded: bool, forced: bool | None) -> None:
    config = deepspeed_config(TrainingConfig(zero_stage=2, optimizer_offload=offloaded), 2)
    assert config.get("zero_force_ds_cpu_optimizer") is forced
    assert ("offload_optimizer" in config["zero_optimization"]) == offloaded
    assert config["optimizer"]["params"].get("fused", False) == offloaded


def test_parameters_are_offloaded_only_if_asked_for() -> None:
    zero = deepspeed_config(TrainingConfig(zero_stage=3, parameter_offload=True), 2)["zero_optimization"]
    assert zero["offload_param"] == {"device": "cpu", "pin_memory": False}
    assert "offload_param" not in deepspeed_config(TrainingConfig(zero_stage=3), 2)["zero_optimization"]


TABLE = {
    "zero_optimization": {"reduce_bucket_size": 1000, "offload_optimizer": {"pin_memory": True}},
    "optimizer": {"params": {"betas": [0.9, 0.95]}},
    "wall_clock_breakdown": True,
}


def test_deepspeeds_table_is_laid_over_what_the_settings_say() -> None:
    plain = TrainingConfig(zero_stage=2, optimizer_offload=True)
    laid = parse_section(
        TrainingConfig, {"zero_stage": 2, "optimizer_offload": True, "deepspeed": TABLE}, "the test"
    )
    config, before = deepspeed_config(laid, 2), deepspeed_config(plain, 2)
    assert config["zero_optimization"] == {
        **before["zero_optimization"],
        "reduce_bucket_size": 1000,
        "offload_optimizer": {"device": "cpu", "pin_memory": True},
    }
    assert config["optimizer"]["params"] == {**before["optimizer"]["params"], "betas": [0.9, 0.95]}
    assert config["wall_clock_breakdown"]
    assert {key: config[key] for key in before.keys() - TABLE.keys()} == {
        key: before[key] for key in before.keys() - TABLE.keys()
    }
    assert laid.fingerprint()["deepspeed"] == TABLE
    assert plain.fingerprint() != laid.fingerprint()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"train_batch_size": 8}, r"deepspeed\.train_batch_size .*training\.global_batch"),
        ({"gradient_accumulation_steps": 2}, r"deepspeed\.gradient_accumulation_steps .*micro_batch"),
        ({"scheduler": {"type": "WarmupLR"}}, r"deepspeed\.scheduler .*training\.phases"),
        ({"gradient_clipping": 1.0}, r"deepspeed\.gradient_clipping .*max_gradient_norm"),
        ({"zero_optimization": {"stage": 3}}, r"deepspeed\.zero_optimization\.stage .*zero_stage"),
        ({"optimizer": {"params": {"lr": 1.0}}}, r"deepspeed\.optimizer\.params\.lr .*training\.phases"),
        ({"bf16": {"enabled": True}}, r"deepspeed\.bf16\.enabled .*training\.precision"),
        ({"optimizer": "Lion"}, r"deepspeed\.optimizer: there is no such setting"),
        ({"zero_optimization": 3}, r"deepspeed\.zero_optimization: there is no such setting"),
        ({"train_batch_sise": 8}, r"deepspeed\.train_batch_sise: there is no such setting"),
        ({"zero_optimization": {"offload_param": {"pin_memory": True}}}, "needs parameter_offload = true"),
    ],
)
def test_a_key_that_is_decided_elsewhere_or_unknown_is_refused(
    table: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_section(TrainingConfig, {"deepspeed": table}, "the test")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"zero_stage": 5}, "zero_stage"),
        ({"phases": []}, "phases"),
        ({"phases": [{"kind": "poems", "epochs": 1}]}, r"phases\.0\.kind"),
        ({"tiny": {"hidden_size": 50, "heads": 4}}, "hidden_size 50"),
        ({"workers": 0}, "workers: .*from 1 on"),
        ({"workers": [3, 2]}, r"workers: .*\[fewest, most\]"),
        ({"workers": [1, 2, 3]}, r"workers: .*\[fewest, most\]"),
        ({"learning_rate": 1.0}, "learning_rate: there is no such setting"),
    ],
)
def test_a_wrong_training_setting_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_section(TrainingConfig, values, "the test")


@pytest.mark.parametrize(("written", "meant"), [(4, (4, 4)), ([2, 8], (2, 8))])
def test_workers_are_a_number_or_a_range(written: object, meant: tuple[int, int]) -> None:
    training = parse_section(TrainingConfig, {"workers": written}, "the test")
    assert training.workers == meant
    assert TrainingConfig.model_validate(training.model_dump(mode="json")) == training
    assert training.fingerprint() == TrainingConfig().fingerprint()


def test_the_workers_own_error_is_found_under_what_ray_wraps_around_it() -> None:
    from ray.train import WorkerGroupError
    from ray.train.v2._internal.exceptions import UserExceptionWithTraceback

    own = TrainingError("the loss is nan after 3 steps; lower the phase's learning_rate")
    lost = RuntimeError("Connection closed by peer [127.0.0.1]:1")
    for failures in ({0: own, 1: lost}, {0: lost, 1: own}):
        wrapped = {rank: UserExceptionWithTraceback(error, "a\nb") for rank, error in failures.items()}
        assert original_error(WorkerGroupError("long\ntext", wrapped)) is own
    first = UserExceptionWithTraceback(MemoryError("no room\nfor this"), "a\nb")
    for order in ({0: first, 1: lost}, {0: lost, 1: first}):
        message = str(original_error(WorkerGroupError("long\ntext", order)))
        assert "MemoryError: no room;" in message
        assert "\n" not in message


def test_the_summary_tells_losses_by_phase() -> None:
    lines = [
        {"phase": "notes", "phase_number": 1, "step": 0, "validation_loss": 5.0},
        {"phase": "notes", "phase_number": 1, "step": 1, "loss": 5.1, "tokens": 10},
        {"phase": "notes", "phase_number": 1, "step": 1, "validation_loss": 4.5},
        {"phase": "notes", "phase_number": 1, "step": 2, "loss": 4.1, "tokens": 11},
        {"phase": "notes", "phase_number": 1, "step": 2, "validation_loss": 4.0},
        {"phase": "instructions", "phase_number": 2, "step": 2, "validation_loss": None},
        {"phase": "instructions", "phase_number": 2, "step": 3, "loss": 3.0, "tokens": 12},
        {"phase": "instructions", "phase_number": 2, "step": 3, "validation_loss": None},
    ]
    counts, phases = summarize(lines)
    assert counts == {"steps": 3, "tokens": 33}
    assert phases == [
        {
            "phase": "notes",
            "validation_loss_before": 5.0,
            "first_loss": 5.1,
            "last_loss": 4.1,
            "steps": 2,
            "validation_loss_after": 4.0,
        },
        {
            "phase": "instructions",
            "validation_loss_before": None,
            "first_loss": 3.0,
            "last_loss": 3.0,
            "steps": 1,
            "validation_loss_after": None,
        },
    ]
