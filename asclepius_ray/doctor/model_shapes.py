"""What of a base model decides its memory: from the figures of its configuration, without its weights."""

import json
from pathlib import Path
from typing import Any

from asclepius_ray.doctor.memory import ModelShape
from asclepius_ray.training.config import LoraConfig, TrainingConfig

KNOWN: dict[str, dict[str, int]] = {
    "huggyllama/llama-7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
    },
    "huggyllama/llama-13b": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "vocab_size": 32000,
    },
    "meta-llama/Meta-Llama-3-8B": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    },
}
"""The base models of jobs/runs: their configurations' figures."""
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def find_shape(training: TrainingConfig) -> ModelShape | None:
    """The shape of the run's base model; None where it is neither a folder here nor one of the known."""
    values: dict[str, Any] = KNOWN.get(training.base_model, {})
    configuration = Path(training.base_model_folder or "/nowhere") / "config.json"
    if training.base_model_folder and configuration.is_file():
        values = json.loads(configuration.read_text(encoding="utf-8"))
    if not all(isinstance(values.get(name), int) for name in _NEEDED):
        return None
    return llama_shape(values, training.lora)


def llama_shape(values: dict[str, Any], lora: LoraConfig | None) -> ModelShape:
    """The counts of a model built as Llama is: attention, three matrices and two norms a layer."""
    hidden, inner = values["hidden_size"], values["intermediate_size"]
    layers, vocabulary = values["num_hidden_layers"], values["vocab_size"]
    head = values.get("head_dim") or hidden // values["num_attention_heads"]
    queries = head * values["num_attention_heads"]
    keys = head * (values.get("num_key_value_heads") or values["num_attention_heads"])
    matrices = {
        "q_proj": (hidden, queries),
        "k_proj": (hidden, keys),
        "v_proj": (hidden, keys),
        "o_proj": (queries, hidden),
        "gate_proj": (hidden, inner),
        "up_proj": (hidden, inner),
        "down_proj": (inner, hidden),
    }
    embeddings = vocabulary * hidden * (1 if values.get("tie_word_embeddings") else 2)
    in_layer = sum(rows * columns for rows, columns in matrices.values()) + 2 * hidden
    parameters = embeddings + layers * in_layer + hidden
    trained = parameters
    if lora is not None:
        targets = lora.target_modules or tuple(matrices)
        trained = layers * sum(lora.rank * sum(matrices[name]) for name in targets if name in matrices)
    return ModelShape(
        parameters=parameters + (trained if lora else 0),
        trainable_parameters=trained,
        largest_tensor=max(vocabulary * hidden, hidden * inner),
        hidden_size=hidden,
        intermediate_size=inner,
        layers=layers,
        vocabulary_size=vocabulary,
    )
