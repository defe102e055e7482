"""How much of a GPU's arithmetic a training step uses: model FLOPs utilisation.

Counted is what the model needs and nothing else. For every token two operations a weight forwards and four
backwards, six in all; four for a frozen weight, which has no gradient of its own. For every pair of
positions of one document that see each other, in every layer, twelve operations for each of the
`attention_width` numbers that its heads hold together: two products forwards, each of a multiplication and
an addition, and twice as much backwards. So a step takes

    tokens x (6 trained + 4 frozen) + 12 x layers x attention_width x pairs

operations. Padding and what gradient checkpointing computes again are not counted. Published figures often
take every position to see the whole row, twice of what a causal model needs; for them `pairs` is
tokens x the row's length.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TRILLION = 1e12
# Dense 16-bit products, in 10^12 operations a second, from NVIDIA's data sheets. A name that is not here has
# no utilisation: better none than a wrong one.
_PEAKS: dict[tuple[str, ...], float] = {
    ("B200",): 2250,
    ("H200",): 989.4,
    ("H200", "NVL"): 835.5,
    ("H100",): 989.4,
    ("H100", "NVL"): 835.5,
    ("H100", "PCIe"): 756,
    ("H800",): 989.4,
    ("GH200",): 989.4,
    ("H20",): 148,
    ("A100",): 312,
    ("A800",): 312,
    ("A40",): 149.7,
    ("A30",): 165,
    ("A10",): 125,
    ("A10G",): 70,
    ("L40S",): 362,
    ("L40",): 181,
    ("L4",): 121,
}


@dataclass(frozen=True)
class ModelSize:
    """What the number of operations depends on."""

    trained_weights: int
    """Weights that are multiplied with every token and learn."""
    frozen_weights: int
    layers: int
    attention_width: int
    """Heads x numbers of one head."""

    def step_flops(self, tokens: int, pairs: int) -> int:
        """Operations of an optimizer step over so many tokens, of which so many pairs see each other."""
        weights = 6 * self.trained_weights + 4 * self.frozen_weights
        return tokens * weights + 12 * self.layers * self.attention_width * pairs


def causal_pairs(lengths: list[int]) -> int:
    """Pairs of positions in documents of these lengths, each with itself and with every one before it."""
    return sum(length * (length + 1) // 2 for length in lengths)


def peak_flops(device_name: str) -> float | None:
    """What a GPU of this name can do in a second in 16 bits; None for one that is not known, or a part."""
    words = set(re.split(r"[^0-9A-Za-z]+", device_name))
    if "MIG" in words:
        return None
    fitting = [name for name in _PEAKS if words.issuperset(name)]
    return _PEAKS[max(fitting, key=len)] * TRILLION if fitting else None


def known_gpus() -> list[str]:
    """The names of the GPUs whose peak is known, as `peak_flops` takes them."""
    return sorted(" ".join(words) for words in _PEAKS)


def measure_model(model: "PreTrainedModel") -> ModelSize | None:
    """The sizes of a model under any ZeRO stage; None for a mixture of experts: a token meets a few.

    The table of the tokens' vectors is looked up and not multiplied, unless it is the output's too.
    """
    config = model.config.get_text_config()
    if any(getattr(config, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return None
    table = model.get_input_embeddings().weight
    head = model.get_output_embeddings()
    looked_up = table if head is None or head.weight is not table else None
    weights = {True: 0, False: 0}
    for parameter in model.parameters():
        if parameter is not looked_up:
            # Under ZeRO 3 a parameter is empty but for when it is used.
            weights[parameter.requires_grad] += getattr(parameter, "ds_numel", parameter.numel())
    heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelSize(weights[True], weights[False], config.num_hidden_layers, heads * head_width)
