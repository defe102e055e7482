"""What a machine cannot do is said in one sentence before anything is loaded."""

from dataclasses import replace

import pytest

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError, TrainingError
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.machine import Machine, require_machine, this_machine

H100 = Machine("node", num_gpus=8, compute_capability=9, has_bf16=True, has_flash_attn=True)
ON_GPUS = {"use_gpu": True, "precision": "bf16"}


def settings(**values: object) -> TrainingConfig:
    return parse_section(TrainingConfig, values, "the test")


@pytest.mark.parametrize(
    ("machine", "values", "message"),
    [
        (replace(H100, num_gpus=0, compute_capability=0), {}, r"torch sees no GPU on node.*use_gpu = false"),
        (replace(H100, has_bf16=False), {}, r'"bf16", which the GPU of node cannot do.*"fp32"'),
        (replace(H100, compute_capability=7), {"attention": "varlen"}, r"too old \(compute capability 7"),
        (replace(H100, has_flash_attn=False), {"attention": "flash_attention_2"}, r'flash-attn.*"varlen"'),
    ],
    ids=["no GPU", "no bf16", "too old", "no flash-attn"],
)
def test_what_a_node_cannot_do_is_refused(machine: Machine, values: dict[str, object], message: str) -> None:
    training = settings(**ON_GPUS, **values)
    require_machine(training, H100)
    with pytest.raises(TrainingError, match=message) as refused:
        require_machine(training, machine)
    assert "\n" not in str(refused.value)


def test_a_node_without_flash_attn_does_all_that_does_not_need_it() -> None:
    for attention in ("sdpa", "varlen"):
        require_machine(settings(**ON_GPUS, attention=attention), replace(H100, has_flash_attn=False))


def test_a_training_on_cpus_asks_nothing_of_gpus() -> None:
    require_machine(settings(precision="bf16"), replace(H100, num_gpus=0, has_bf16=False))


def test_the_machine_is_described_as_it_is() -> None:
    import torch

    machine = this_machine()
    assert machine.num_gpus == torch.cuda.device_count()
    assert bool(machine.compute_capability) == bool(machine.num_gpus)
    assert machine.host


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"parameter_offload": True, "zero_stage": 2}, "parameter_offload needs zero_stage 3, not 2"),
        ({"optimizer_offload": True, "zero_stage": 0}, "optimizer_offload needs zero_stage 1, 2 or 3"),
        ({"attention": "flash_attention_2"}, 'attention = "flash_attention_2" is for GPUs in 16 bits'),
        ({"attention": "flash_attention_2", "use_gpu": True}, "is for GPUs in 16 bits"),
        (
            {"zero_stage": 0, "precision": "bf16", "workers": (2, 8), "micro_batch": 2, "global_batch": 5},
            r"gradients of 2 micro-batches in 16 bits.*zero_stage = 1",
        ),
        ({"zero_stage": 4}, "zero_stage"),
        ({"lora": {"rank": 0}}, r"lora\.rank"),
        ({"lora": {"r": 8}}, r"lora\.r: there is no such setting"),
        ({"export_shard_gb": 0}, "export_shard_gb"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**values)


@pytest.mark.parametrize("change", [{"zero_stage": 1}, {"precision": "fp32"}, {"global_batch": 4}])
def test_gradients_are_added_up_in_32_bits_or_not_at_all(change: dict[str, object]) -> None:
    in_16_bits: dict[str, object] = {
        "zero_stage": 0,
        "precision": "bf16",
        "micro_batch": 2,
        "global_batch": 5,
        "workers": 2,
    }
    with pytest.raises(ConfigError, match="set zero_stage = 1"):
        settings(**in_16_bits)
    settings(**{**in_16_bits, **change})
