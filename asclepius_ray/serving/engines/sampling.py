"""Logits → the next tokens, greedy or drawn from what temperature and top_p leave; their log-probabilities.

Pure, on any device. A draw is the inverse of the cumulative distribution at one number from 0 to 1, and that
number is a function of (seed, place in the answer) alone: the same seed draws the same answer, whoever else
is in the batch. One number a token is also cheaper than one for every entry of the vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from asclepius_ray.serving.engines.engine import TokenLogprob

MOST_NUCLEI = 512
"""Most rows keep fewer tokens than this under a top_p."""
_UNIFORM_BYTES = 6


@dataclass(frozen=True)
class Draw:
    """How one row's token is drawn."""

    temperature: float
    top_p: float
    uniform: float
    """At least 0, below 1."""


def uniform_number(seed: int, position: int) -> float:
    """At least 0, below 1; the same for the same seed and place in the answer, on every machine."""
    digest = hashlib.blake2b(f"{seed}:{position}".encode(), digest_size=_UNIFORM_BYTES).digest()
    return int.from_bytes(digest, "big") / 256.0**_UNIFORM_BYTES


def choose_tokens(logits: torch.Tensor, draws: Sequence[Draw | None]) -> torch.Tensor:
    """The next id of each row of `logits` (rows, vocabulary); a row without a draw takes its likeliest."""
    chosen = logits.argmax(-1)
    for whole in (True, False):
        rows = [row for row, draw in enumerate(draws) if draw is not None and (draw.top_p >= 1.0) is whole]
        if rows:
            index = torch.tensor(rows, device=logits.device)
            drawn = [draw for row in rows if (draw := draws[row]) is not None]
            chosen[index] = (_draw_from_all if whole else _draw_from_nucleus)(logits[index], drawn)
    return chosen


def token_logprobs(logits: torch.Tensor, chosen: torch.Tensor, num_top: Sequence[int]) -> list[TokenLogprob]:
    """What the model itself gave each row's chosen id and its `num_top` likeliest, before any sampling."""
    normalised = logits.float().log_softmax(-1)
    of_chosen = normalised.gather(-1, chosen.unsqueeze(-1)).squeeze(-1).tolist()
    best = normalised.topk(min(max(num_top, default=0), normalised.shape[-1]), dim=-1)
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        TokenLogprob(logprob, tuple(zip(ids[:count], values[:count], strict=True)))
        for logprob, (ids, values), count in zip(of_chosen, tops, num_top, strict=True)
    ]


def _draw_from_all(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    return _invert(_heated(logits, draws).softmax(-1, dtype=torch.float64), draws)


def _draw_from_nucleus(
    logits: torch.Tensor, draws: Sequence[Draw], num_likeliest: int = MOST_NUCLEI
) -> torch.Tensor:
    """From the smallest set of likeliest tokens whose probability together is top_p; never none.

    Few rows need more than the `num_likeliest`, and to sort a whole vocabulary costs more than a small model.
    """
    heated = _heated(logits, draws)
    in_part = num_likeliest < heated.shape[-1]
    likeliest = heated.topk(num_likeliest, dim=-1) if in_part else heated.sort(-1, descending=True)
    whole = heated.double().logsumexp(-1, keepdim=True)
    probabilities = (likeliest.values.double() - whole).exp()
    top_p = torch.tensor([draw.top_p for draw in draws], device=logits.device, dtype=torch.float64)
    outside = probabilities.cumsum(-1) - probabilities >= top_p.unsqueeze(-1)
    outside[:, 0] = False
    place = _invert(probabilities.masked_fill(outside, 0.0), draws)
    chosen = likeliest.indices.gather(-1, place.unsqueeze(-1)).squeeze(-1)
    if in_part:
        wider = (probabilities.sum(-1) < top_p).nonzero().flatten().tolist()
        if wider:
            there = torch.tensor(wider, device=logits.device)
            chosen[there] = _draw_from_nucleus(logits[there], [draws[row] for row in wider], heated.shape[-1])
    return chosen


def _heated(logits: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    temperatures = torch.tensor([draw.temperature for draw in draws], device=logits.device)
    return logits.float() / temperatures.unsqueeze(-1)


def _invert(probabilities: torch.Tensor, draws: Sequence[Draw]) -> torch.Tensor:
    """In 64 bits: in 32 the sum over a vocabulary would lose the unlikely tokens."""
    cumulative = probabilities.cumsum(-1)
    uniform = torch.tensor([draw.uniform for draw in draws], device=cumulative.device, dtype=torch.float64)
    found = torch.searchsorted(cumulative, (uniform * cumulative[:, -1]).unsqueeze(-1), right=True)
    return found.squeeze(-1)
