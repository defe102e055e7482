"""The exported weights of `model/` → a whole artefact: tokenizer, prompt, card and manifests."""

from typing import Any

from asclepius_ray.artifacts import Folder, Manifest, read_manifest, write_manifest
from asclepius_ray.errors import TrainingError
from asclepius_ray.metric_log import METRICS_NAME
from asclepius_ray.prompts.rendering import prompt_hash, prompt_text
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.tokens.parity import token_ids_sha256
from asclepius_ray.tokens.tokenizer import load_tokenizer
from asclepius_ray.training.base_model_origin import ORIGINS, origin_of_rows, told_origins
from asclepius_ray.training.card import CardFacts, render_card
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.recorder import summarize
from asclepius_ray.training.sources import rows_manifest

SETTINGS_NAME = "settings.json"
PROMPT_NAME = "instruction_prompt.txt"
CARD_NAME = "README.md"


def finish(
    root: Folder,
    tokens: TokensConfig,
    training: TrainingConfig,
    lines: list[dict[str, Any]],
    made_from: dict[str, Any],
) -> Manifest:
    """Writes the manifests of `training/` and `model/`, and what the model needs beside its weights."""
    counts, phases = summarize(lines)
    if not counts["steps"]:
        raise TrainingError("no optimizer step ran, so there is no trained model; see training.phases")
    details = {"phases": phases, "instruction_prompt_sha256": prompt_hash("instruction")}
    # The checkpoints are no part of the artefact: nobody reads them once the model is there, and to hash
    # those of a large model would take longer than an epoch.
    files = [METRICS_NAME, SETTINGS_NAME]
    written = write_manifest(root.child("training"), "training", counts, made_from, details, files)
    base_model, model = root.child("base_model"), root.child("model")
    source = read_manifest(base_model)
    for name in source.details["tokenizer_files"]:
        model.write_bytes(name, base_model.read_bytes(name))
    model.write_bytes(PROMPT_NAME, prompt_text("instruction").encode())
    rows = rows_manifest(root, training.dataset)
    facts = CardFacts(
        training=training,
        sequence_length=tokens.sequence_length,
        num_parameters=source.counts["parameters"],
        prompt_sha256=prompt_hash("instruction"),
        dataset=rows,
        packages=written.packages,
    )
    model.write_bytes(CARD_NAME, render_card(facts, phases, lines).encode())
    # Of the rows first, then of what the base model had learnt before.
    origins = [origin_of_rows(rows), *told_origins(source)]
    details |= {
        "base_model": source.details["base_model"],
        ORIGINS: origins,
        "prompt_ids_sha256": token_ids_sha256(load_tokenizer(base_model)),
    }
    return write_manifest(model, "model", {"parameters": source.counts["parameters"]}, made_from, details)
