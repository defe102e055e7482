"""Reads a model folder and held-out items → the loss of the reference answers, row by row, in a Ray task.

The loss needs no judge and no sampling: it says how surprised a model is by the teacher's answer.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import EvaluationError
from asclepius_ray.evaluation.config import MODEL_FOLDERS
from asclepius_ray.evaluation.records import Item
from asclepius_ray.evaluation.statistics.intervals import interval_of_mean
from asclepius_ray.tokens.rendering import TokenizedExample, render_example

CONFIDENCE = 0.95


@dataclass(frozen=True)
class RowLoss:
    """Mean loss over the answer tokens of one row, in nats; None where the row does not fit the model."""

    mean_nats: float | None
    num_tokens: int


def measure_answer_loss(
    root: Folder, models: Sequence[str], items: Sequence[Item], sequence_length: int, use_gpu: bool
) -> dict[str, list[RowLoss]]:
    """The loss of each model's folder on each item's reference answer, one Ray task after the other.

    Never two models at a time: a small node has the memory for one.
    """
    measure = ray.remote(num_cpus=1, num_gpus=1 if use_gpu else 0)(_measure_model)
    shared_items = ray.put(list(items))
    return {
        model: ray.get(measure.remote(root.child(MODEL_FOLDERS[model]).uri, shared_items, sequence_length))
        for model in models
    }


def summarize_loss(
    losses: Mapping[str, Sequence[RowLoss]], notes: Sequence[str], seed: int
) -> dict[str, Any]:
    """Mean per model, and trained − untrained over the rows that both have, with its interval.

    `notes`: the note of each row, as rows of one note are not independent.
    """
    models = {model: _summarize_model(rows) for model, rows in losses.items()}
    difference = None
    if {"trained", "untrained"} <= losses.keys():
        pairs = zip(losses["trained"], losses["untrained"], notes, strict=True)
        measured = [
            (trained.mean_nats - untrained.mean_nats, note)
            for trained, untrained, note in pairs
            if trained.mean_nats is not None and untrained.mean_nats is not None
        ]
        difference = paired_difference([one for one, _ in measured], [note for _, note in measured], seed)
    return {"unit": "nats per answer token, mean of rows", "models": models, "difference": difference}


def paired_difference(differences: Sequence[float], notes: Sequence[str], seed: int) -> dict[str, Any]:
    """The mean of paired differences with an interval over notes; none for fewer than two notes."""
    found = interval_of_mean(differences, notes, seed)
    return {
        "of": "trained - untrained",
        "n": len(differences),
        "mean": found.value,
        "low": found.low,
        "high": found.high,
        "confidence": CONFIDENCE,
        "method": "bootstrap over notes",
    }


def _summarize_model(rows: Sequence[RowLoss]) -> dict[str, Any]:
    measured = [row.mean_nats for row in rows if row.mean_nats is not None]
    return {
        "mean": float(np.mean(measured)) if measured else None,
        "rows": len(measured),
        "rows_too_long": len(rows) - len(measured),
        "answer_tokens": sum(row.num_tokens for row in rows),
    }


def _measure_model(model_uri: str, items: Sequence[Item], sequence_length: int) -> list[RowLoss]:
    transformers_logging.disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with Folder(model_uri).as_local() as path:
        tokenizer = AutoTokenizer.from_pretrained(path)
        model = AutoModelForCausalLM.from_pretrained(path, dtype="auto").to(device).eval()
    rows = []
    for item in items:
        example = render_example(tokenizer, item.note, item.question, item.reference, sequence_length)
        rows.append(RowLoss(None, 0) if example is None else _row_loss(model, example, device))
    bad = sum(1 for row in rows if row.mean_nats is not None and not math.isfinite(row.mean_nats))
    if bad:
        raise EvaluationError(f"{model_uri} gives a loss that is not a number on {bad} row(s); train it anew")
    return rows


@torch.inference_mode()
def _row_loss(model: Any, example: TokenizedExample, device: str) -> RowLoss:
    ids = torch.tensor([list(example.input_ids)], device=device)
    mask = torch.tensor(list(example.loss_mask)[1:], dtype=torch.bool, device=device)
    logits = model(input_ids=ids, use_cache=False).logits[0, :-1][mask].float()
    loss = torch.nn.functional.cross_entropy(logits, ids[0, 1:][mask])
    return RowLoss(float(loss), int(mask.sum()))
