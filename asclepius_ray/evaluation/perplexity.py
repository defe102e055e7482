"""Texts → how many nats a causal language model needs for their tokens, in windows with a stride.

Every token is scored once. A text of more tokens than the model reads at once is read in windows that
overlap: whoever cuts it into separate pieces instead scores the first tokens of each piece without what
stands before them, and finds a larger perplexity than the model has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from asclepius_ray.errors import ConfigError

# Logits of one pass: 1 GiB in 32 bits.
_MOST_LOGITS = 1 << 28
# On one core 4,096 tokens a pass were 15 % slower than 1,024: what a layer hands on leaves its caches.
_MOST_BATCH_TOKENS = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class TextScore:
    """`nats` is the sum over the scored tokens; `words` are what blanks divide."""

    nats: float
    tokens: int
    words: int


@dataclass(frozen=True)
class Window:
    """One reading of a part of a text: the tokens from `begin` to `end` - 2 are read, each to tell the next.

    Scored are those from `first_scored` to `end` - 1.
    """

    begin: int
    first_scored: int
    end: int

    @property
    def num_read(self) -> int:
        return self.end - 1 - self.begin


@dataclass(frozen=True)
class Reader:
    """A model with its tokenizer, and how much of a text it reads at once."""

    model: Any
    tokenizer: Any
    context_tokens: int
    stride_tokens: int

    @property
    def scores_first_token(self) -> bool:
        """Whether a text's first token is scored: only a model with a token for the begin can tell it."""
        return self.tokenizer.bos_token_id is not None


def choose_window(context_tokens: int, stride_tokens: int, longest: int | None) -> tuple[int, int]:
    """Context and stride in tokens where 0 stands for the model's own context and for half of it.

    `longest`: the positions that the model has, None where it names none. A ConfigError if they do not fit.
    """
    if longest is not None and context_tokens > longest:
        raise ConfigError(
            f"evaluation.realism.context_tokens {context_tokens} is longer than the {longest} positions of "
            "the model; lower it"
        )
    context = context_tokens or longest
    if context is None:
        raise ConfigError(
            "evaluation.realism.context_tokens is 0, but the model names no longest text; set how many "
            "tokens it is to read at once"
        )
    if stride_tokens > context:
        raise ConfigError(
            f"evaluation.realism.stride_tokens {stride_tokens} is more than the {context} tokens that the "
            "model reads at once; lower it"
        )
    return context, stride_tokens or max(1, context // 2)


def windows_of(num_ids: int, context_tokens: int, stride_tokens: int) -> Iterator[Window]:
    """The windows of a text of so many ids; all but its first id are scored, each in one window.

    A scored id has at least context - stride + 1 ids before it in its window, or all that there are.
    """
    begin, first_scored = 0, 1
    while first_scored < num_ids:
        # What stands behind the last id that is read can be scored too.
        end = min(begin + context_tokens + 1, num_ids)
        yield Window(begin, first_scored, end)
        begin, first_scored = begin + stride_tokens, end


def score_texts(reader: Reader, texts: Sequence[str]) -> list[TextScore]:
    """The score of each text, in their order; what else is among them changes it by rounding alone."""
    ids_of_texts = _encode(reader, texts)
    work = [
        (text, window)
        for text, ids in enumerate(ids_of_texts)
        for window in windows_of(len(ids), reader.context_tokens, reader.stride_tokens)
    ]
    nats = [0.0] * len(texts)
    for batch in _batches(work, _most_tokens(reader)):
        windows = [(ids_of_texts[text], window) for text, window in batch]
        for (text, _), window_nats in zip(batch, _score_windows(reader.model, windows), strict=True):
            nats[text] += window_nats
    return [
        TextScore(text_nats, max(len(ids) - 1, 0), len(text.split()))
        for text_nats, ids, text in zip(nats, ids_of_texts, texts, strict=True)
    ]


def _encode(reader: Reader, texts: Sequence[str]) -> list[list[int]]:
    begin = [reader.tokenizer.bos_token_id] if reader.scores_first_token else []
    # verbose=False: a text longer than the model is no warning.
    encoded = reader.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [begin + list(ids) for ids in encoded]


def _most_tokens(reader: Reader) -> int:
    vocabulary: int = reader.model.config.get_text_config().vocab_size
    return min(_MOST_BATCH_TOKENS[reader.model.device.type], _MOST_LOGITS // vocabulary)


def _batches(work: Sequence[tuple[int, Window]], most_tokens: int) -> Iterator[list[tuple[int, Window]]]:
    """Windows of like length side by side, with their padding no more than `most_tokens` a batch."""
    longest_first = sorted(work, key=lambda item: -item[1].num_read)
    batch: list[tuple[int, Window]] = []
    for item in longest_first:
        if batch and batch[0][1].num_read * (len(batch) + 1) > most_tokens:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


@torch.inference_mode()
def _score_windows(model: Any, windows: Sequence[tuple[list[int], Window]]) -> list[float]:
    """The nats of each window. Padding stands behind its text, where no causal model sees it."""
    longest = max(window.num_read for _, window in windows)
    input_ids_BT = torch.zeros((len(windows), longest), dtype=torch.long)
    for row, (ids, window) in enumerate(windows):
        input_ids_BT[row, : window.num_read] = torch.tensor(ids[window.begin : window.end - 1])
    logits_BTV = model(input_ids=input_ids_BT.to(model.device), use_cache=False).logits
    found = []
    for row, (ids, window) in enumerate(windows):
        scored = slice(window.first_scored - 1 - window.begin, window.num_read)
        targets = torch.tensor(ids[window.first_scored : window.end], device=model.device)
        losses = torch.nn.functional.cross_entropy(logits_BTV[row, scored].float(), targets, reduction="none")
        found.append(losses.double().sum())
    return [float(nats) for nats in torch.stack(found).cpu()]
