"""The figures of a step: counted by hand, and what is refused or left out where it is not known."""

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from asclepius_ray.training.recorder import spoken_time
from asclepius_ray.training.threads import share_of_cores, usable_cores
from asclepius_ray.training.utilisation import ModelSize, causal_pairs, measure_model, peak_flops


def llama(**changed: object) -> LlamaForCausalLM:
    config = {
        "vocab_size": 50,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
    return LlamaForCausalLM(LlamaConfig(**{**config, **changed}))


def test_the_operations_of_a_model_are_those_of_its_products() -> None:
    """Against torch's own count of a forward pass; a step is three of them."""
    from torch.utils.flop_counter import FlopCounterMode

    model, length = llama(attn_implementation="eager"), 32
    size = measure_model(model)
    assert size is not None
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros((1, length), dtype=torch.long), use_cache=False)
    # Written out, attention is over the whole square; what only scales a vector (the norms) is no product.
    norms = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 1)
    counted = size.step_flops(length, length * length) - 6 * length * norms
    assert counted == 3 * counter.get_total_flops()


def test_a_frozen_weight_costs_no_gradient_of_its_own() -> None:
    model = llama()
    for parameter in model.model.layers[0].parameters():
        parameter.requires_grad = False
    size = measure_model(model)
    assert size is not None
    frozen = sum(parameter.numel() for parameter in model.model.layers[0].parameters())
    assert size.frozen_weights == frozen
    assert size.step_flops(10, 0) == 10 * (6 * size.trained_weights + 4 * frozen)


def test_a_table_that_is_looked_up_counts_only_where_it_is_the_output_too() -> None:
    untied, tied = measure_model(llama()), measure_model(llama(tie_word_embeddings=True))
    assert untied == tied


def test_packing_does_not_add_pairs() -> None:
    assert causal_pairs([3]) == 6
    assert causal_pairs([3, 4, 1]) == 6 + 10 + 1
    assert ModelSize(0, 0, 2, 8).step_flops(tokens=8, pairs=17) == 12 * 2 * 8 * 17


@pytest.mark.parametrize(
    ("name", "trillions"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989.4),
        ("NVIDIA A10", 125),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
    ],
)
def test_the_peak_of_a_gpu_is_found_by_its_name(name: str, trillions: float) -> None:
    assert peak_flops(name) == trillions * 1e12


@pytest.mark.parametrize("name", ["NVIDIA Graphics Device", "NVIDIA A100-SXM4-40GB MIG 1g.5gb", "A1000"])
def test_an_unknown_gpu_and_a_part_of_one_have_no_peak(name: str) -> None:
    assert peak_flops(name) is None


def test_a_container_gives_its_share_of_the_cores_and_not_the_machines(tmp_path: Path) -> None:
    everything = usable_cores(tmp_path / "absent")
    quota = tmp_path / "cpu.max"
    quota.write_text("max 100000\n")
    assert usable_cores(quota) == everything
    quota.write_text("100000 100000\n")
    assert usable_cores(quota) == 1
    quota.write_text("50000 100000\n")
    assert usable_cores(quota) == 1
    quota.write_text("99900000 100000\n")
    assert usable_cores(quota) == everything


def test_the_cores_of_a_machine_are_shared_by_its_workers() -> None:
    assert [share_of_cores(8, workers) for workers in (1, 2, 3, 8, 9)] == [8, 4, 2, 1, 1]


def test_time_left_is_told_in_the_unit_that_fits() -> None:
    assert spoken_time(42.4) == "42 s"
    assert spoken_time(600) == "10 min"
    assert spoken_time(11_100) == "3 h 5 min"
