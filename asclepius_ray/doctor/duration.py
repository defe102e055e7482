"""How many optimizer steps a run will take, from a few of its rows. Pure but for the tokenizer."""

import math

from transformers import PreTrainedTokenizerBase

from asclepius_ray.doctor.rows import Sample
from asclepius_ray.run import Run
from asclepius_ray.tokens.rendering import render_example, render_note


def estimate_steps(run: Run, sample: Sample, tokenizer: PreTrainedTokenizerBase) -> int:
    """Steps of all phases; 0 where the dataset is not there yet. Rows are taken as full."""
    batch = run.training.global_batch
    return sum(
        math.ceil(_rows(phase.kind, run, sample, tokenizer) / batch) * phase.epochs
        for phase in run.training.phases
    )


def _rows(kind: str, run: Run, sample: Sample, tokenizer: PreTrainedTokenizerBase) -> int:
    length = run.tokens.sequence_length
    documents = []
    for row in sample.rows:
        if kind == "notes":
            documents += render_note(tokenizer, row.note, length)
        elif example := render_example(tokenizer, row.note, row.question, row.answer, length):
            documents.append(example)
    tokens = sum(len(document.input_ids) for document in documents)
    return math.ceil(tokens / len(sample.rows) * sample.num_rows / length)
