"""Attention document by document: rows laid end to end, with the borders of their documents.

For kernels that take the borders instead of a mask: nothing is calculated for two documents at once, and
no mask of (positions x positions) is held. On GPUs only; the probe at the start holds for it as for all.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from asclepius_ray.errors import TrainingError

VARLEN = "varlen"


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
    """torch's own flash attention, in the form that transformers calls."""
    if unknown := [name for name in ("softcap", "s_aux") if options.get(name) is not None]:
        raise TrainingError(
            f'training.attention = "{VARLEN}" does not know {unknown[0]}, which this base model uses; '
            'set it to "sdpa" or "flash_attention_2"'
        )
    if options.get("dropout"):
        raise TrainingError(
            f'training.attention = "{VARLEN}" has no dropout, which this base model\'s attention uses; '
            'set it to "sdpa" or "flash_attention_2"'
        )
    window: int | None = options.get("sliding_window")
    borders, longest = options["cu_seq_lens_q"], options["max_length_q"]
    attended_THD = varlen_attn(
        query_1HTD[0].transpose(0, 1),
        key_1HTD[0].transpose(0, 1),
        value_1HTD[0].transpose(0, 1),
        borders,
        borders,
        longest,
        longest,
        scale=options.get("scaling"),
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=True,
    )
    assert isinstance(attended_THD, torch.Tensor)
    return attended_THD[None], None


AttentionInterface.register(VARLEN, _varlen_attention)
