"""A located causal model → a reader of texts, on the node and the device of the process that asks."""

from dataclasses import dataclass

import torch
from pydantic import SecretStr
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from asclepius_ray.config import shown_name
from asclepius_ray.errors import EvaluationError, first_line
from asclepius_ray.evaluation.perplexity import Reader, choose_window
from asclepius_ray.evaluation.realism_model import fetch_model


@dataclass(frozen=True)
class ReaderSettings:
    """What a worker needs to open a model; `token` opens those of the hub that are not open to all."""

    place: str
    token: SecretStr
    """Ray Data writes the fields of what its workers get into its logs."""
    context_tokens: int
    stride_tokens: int
    use_gpu: bool


def open_reader(settings: ReaderSettings) -> Reader:
    """Loads the model in its own precision; on a CPU one thread works, as Ray counts one for a worker.

    A ConfigError where it cannot be had or does not read so many tokens, an EvaluationError where it is no
    causal language model with a tokenizer.
    """
    transformers_logging.disable_progress_bar()
    if not settings.use_gpu:
        # With another number of threads sums would round otherwise.
        torch.set_num_threads(1)
    path = fetch_model(settings.place, settings.token.get_secret_value())
    device = "cuda" if settings.use_gpu else "cpu"
    name = shown_name(settings.place)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").to(device).eval()
    except (OSError, ValueError, KeyError) as error:
        raise EvaluationError(
            f"evaluation.realism.model {name!r} cannot be opened as a causal language model with its "
            f"tokenizer: {first_line(error)}"
        ) from None
    shape = model.config.get_text_config()
    if len(tokenizer) > shape.vocab_size:
        raise EvaluationError(
            f"evaluation.realism.model {name!r}: its tokenizer has {len(tokenizer)} tokens, its model only "
            f"{shape.vocab_size}"
        )
    longest = getattr(shape, "max_position_embeddings", None)
    return Reader(model, tokenizer, *choose_window(settings.context_tokens, settings.stride_tokens, longest))
