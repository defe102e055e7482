"""Attention document by document: rows laid end to end, with the borders of their documents.

Nothing is calculated for two documents at once, and no mask of (positions x positions) is held. The probe at
the start holds for it as for all.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from asclepius_ray.errors import TrainingError

VARLEN = "varlen"
States = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Queries, keys and values."""


def attend_by_documents(model: PreTrainedModel) -> None:
    """Has the model lay its rows end to end: they come in and go out as (rows, positions), as before."""
    model.forward = partial(_forward_end_to_end, model.forward)


def document_borders(position_ids_BT: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Where each document begins in the rows laid end to end, with the end of all, and the longest's length.

    A document begins where the positions begin anew, so a row never goes on in the next one.
    """
    flat = position_ids_BT.flatten()
    starts = (flat == 0).nonzero().flatten()
    borders = torch.nn.functional.pad(starts, (0, 1), value=flat.numel()).to(torch.int32)
    return borders, int(borders.diff().max())


def _forward_end_to_end(
    forward: Callable[..., Any], *, input_ids: torch.Tensor, position_ids: torch.Tensor, **arguments: Any
) -> Any:
    borders, longest = document_borders(position_ids)
    output = forward(
        input_ids=input_ids.reshape(1, -1),
        position_ids=position_ids.reshape(1, -1),
        cu_seq_lens_q=borders,
        cu_seq_lens_k=borders,
        max_length_q=longest,
        max_length_k=longest,
        **arguments,
    )
    output.logits = output.logits.reshape(*input_ids.shape, -1)
    return output


def _varlen_attention(
    module: torch.nn.Module,
    query_1HTD: torch.Tensor,
    key_1HTD: torch.Tensor,
    value_1HTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention within the borders alone, in the form that transformers calls."""
    if unknown := [name for name in ("softcap", "s_aux") if options.get(name) is not None]:
        raise TrainingError(
            f'training.attention = "{VARLEN}" does not know {unknown[0]}, which this base model uses; '
            'set it to "sdpa"'
        )
    states = (query_1HTD, key_1HTD, value_1HTD)
    has_kernel = query_1HTD.is_cuda and query_1HTD.dtype in (torch.bfloat16, torch.float16)
    attended_THD = _by_kernel(states, options) if has_kernel else _one_by_one(states, options)
    return attended_THD[None], None


def _by_kernel(states_1HTD: States, options: dict[str, Any]) -> torch.Tensor:
    """All documents at once, by torch's own flash attention."""
    if options.get("dropout"):
        raise TrainingError(
            f'training.attention = "{VARLEN}" has no dropout on GPUs, which this base model\'s attention '
            'uses; set it to "sdpa" or "flash_attention_2"'
        )
    window: int | None = options.get("sliding_window")
    borders, longest = options["cu_seq_lens_q"], options["max_length_q"]
    query_THD, key_THD, value_THD = (states[0].transpose(0, 1) for states in states_1HTD)
    attended_THD = varlen_attn(
        query_THD,
        key_THD,
        value_THD,
        borders,
        borders,
        longest,
        longest,
        scale=options.get("scaling"),
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
    )
    assert isinstance(attended_THD, torch.Tensor)
    return attended_THD


def _one_by_one(states_1HTD: States, options: dict[str, Any]) -> torch.Tensor:
    """One document after the other: on a CPU, less work than a mask over all positions of the row."""
    lengths = options["cu_seq_lens_q"].diff().tolist()
    parts_1HTD = []
    # Split and not sliced: the gradient of each slice would be as long as the whole.
    split = (torch.split(states, lengths, 2) for states in states_1HTD)
    for query_1HTD, key_1HTD, value_1HTD in zip(*split, strict=True):
        mask_TT = _window_mask(query_1HTD.shape[2], options.get("sliding_window"), query_1HTD.device)
        part_1HTD = torch.nn.functional.scaled_dot_product_attention(
            query_1HTD,
            key_1HTD,
            value_1HTD,
            attn_mask=mask_TT,
            is_causal=mask_TT is None,
            dropout_p=options.get("dropout") or 0.0,
            scale=options.get("scaling"),
            enable_gqa=True,
        )
        parts_1HTD.append(part_1HTD)
    return torch.cat(parts_1HTD, dim=2)[0].transpose(0, 1)


def _window_mask(length: int, window: int | None, device: torch.device) -> torch.Tensor | None:
    """What a position sees of a document longer than the window: itself and those just before; else None."""
    if window is None or length <= window:
        return None
    positions = torch.arange(length, device=device)
    distance_TT = positions[:, None] - positions
    return (distance_TT >= 0) & (distance_TT < window)


AttentionInterface.register(VARLEN, _varlen_attention)
