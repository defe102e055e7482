"""Rows → what the model will be shown and what it will learn to say: the loss mask, to be looked at."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from asclepius_ray.doctor.findings import Finding, ok, problem, warning
from asclepius_ray.doctor.rows import Row, Sample
from asclepius_ray.errors import InputError
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.tokens.rendering import TokenizedExample, render_example

OPENS, CLOSES = "[[", "]]"
"""Stand around what loss is paid on where there are no colours."""
_LOSS_STYLE = "bold green"


@dataclass(frozen=True)
class Preview:
    """One example as it will be trained on."""

    spans: list[tuple[str, bool]]
    """Its text in order, each part with whether loss is paid on it."""
    num_tokens: int
    num_loss_tokens: int
    is_shortened: bool
    is_private: bool


def preview_rows(
    sample: Sample, tokenizer: PreTrainedTokenizerBase, tokens: TokensConfig
) -> tuple[Finding, Preview | None]:
    """What the rows come to under this tokenizer and its template, and the first of them to look at."""
    sequence_length = tokens.sequence_length
    try:
        examples = [_render(row, tokenizer, sequence_length) for row in sample.rows]
    except InputError as error:
        return problem("template", str(error)), None
    usable = [example for example in examples if example is not None and _is_kept(example, tokens)]
    what = "an invented example" if sample.is_invented else f"the first {len(examples)} rows"
    lost = len(examples) - len(usable)
    if not usable:
        said = f"{what}: no token to learn from, the answers leave no room for their questions"
        advice = f"raise tokens.sequence_length ({sequence_length}), or look at the chat template"
        return problem("template", said, advice), None
    num_tokens = sum(len(example.input_ids) for example in usable)
    loss_tokens = sum(sum(example.loss_mask) for example in usable)
    shortened = sum(example.shortened for example in usable)
    said = f"{what}: {loss_tokens} of {num_tokens} tokens are learnt from, {shortened} notes are shortened"
    finding = ok("template", said)
    if lost > tokens.max_dropped_share * len(examples):
        advice = f"raise tokens.sequence_length ({sequence_length})"
        lost_for = "they" if tokens.overlong == "reject" else "their answers"
        finding = warning("template", f"{said}; {lost} rows are lost, {lost_for} are too long", advice)
    return finding, _preview(usable[0], tokenizer, sample.is_private)


def show_preview(console: Console, preview: Preview, with_text: bool) -> None:
    """Prints the example, what is learnt from in colour or in brackets; of a real note its lengths alone."""
    lengths = f"{preview.num_tokens} tokens, {preview.num_loss_tokens} of them learnt from"
    if preview.is_private and not with_text:
        console.print(f"row      {lengths} (its text: --show-text)", highlight=False, soft_wrap=True)
        return
    in_colour = console.is_terminal
    marked = "in green" if in_colour else f"between {OPENS} and {CLOSES}"
    console.print(f"row      {lengths}, {marked}:", highlight=False, soft_wrap=True, markup=False)
    text = Text()
    for part, is_learnt in preview.spans:
        if is_learnt and not in_colour:
            part = f"{OPENS}{part}{CLOSES}"
        text.append(part, style=_LOSS_STYLE if is_learnt and in_colour else "")
    console.print(text, soft_wrap=True)


def _is_kept(example: TokenizedExample, tokens: TokensConfig) -> bool:
    return any(example.loss_mask) and not (example.shortened and tokens.overlong == "reject")


def _render(row: Row, tokenizer: PreTrainedTokenizerBase, sequence_length: int) -> TokenizedExample | None:
    return render_example(tokenizer, row.note, row.question, row.answer, sequence_length)


def _preview(example: TokenizedExample, tokenizer: PreTrainedTokenizerBase, is_private: bool) -> Preview:
    return Preview(
        spans=list(_spans(example, tokenizer)),
        num_tokens=len(example.input_ids),
        num_loss_tokens=sum(example.loss_mask),
        is_shortened=example.shortened,
        is_private=is_private,
    )


def _spans(example: TokenizedExample, tokenizer: PreTrainedTokenizerBase) -> Iterator[tuple[str, bool]]:
    pairs = zip(example.loss_mask, example.input_ids, strict=True)
    for is_learnt, run in groupby(pairs, key=lambda pair: pair[0]):
        yield tokenizer.decode([token for _, token in run]), is_learnt
