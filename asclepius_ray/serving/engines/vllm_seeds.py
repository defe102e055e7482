"""Seeds under vLLM on a CPU: our own draw, in the process of the model, the same as of the other engine.

vLLM 0.29's own seeds end its engine there: where a prompt is read in two steps it sets a generator's offset
back, and a generator on a CPU has none. So a request with a seed is a greedy one to vLLM, and this makes the
id that the seed draws the likeliest of its row. On a GPU vLLM's own seeds are used: the ids that this needs to
count would make each step wait for the one before.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from asclepius_ray.serving.engines.engine import GenerationRequest
from asclepius_ray.serving.engines.sampling import Draw, choose_tokens, uniform_number

_KEY = "asclepius_draw"


class SeededDraws(AdapterLogitsProcessor):  # type: ignore[misc]
    """Chooses the next id of each request that carries a draw; the log-probabilities are taken before it."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(
        self, params: SamplingParams
    ) -> Callable[[Sequence[int], torch.Tensor], torch.Tensor] | None:
        draw = (params.extra_args or {}).get(_KEY)
        return None if draw is None else partial(_choose, *draw)


def seeded_draw(request: GenerationRequest, seed: int) -> dict[str, Any]:
    """What SamplingParams carries for it; they are greedy otherwise."""
    return {"temperature": 0.0, "extra_args": {_KEY: (request.temperature, request.top_p, seed)}}


def _choose(
    temperature: float, top_p: float, seed: int, output_ids: Sequence[int], logits: torch.Tensor
) -> torch.Tensor:
    draw = Draw(temperature, top_p, uniform_number(seed, len(output_ids)))
    chosen = choose_tokens(logits.unsqueeze(0), [draw])
    logits[chosen] = torch.finfo(logits.dtype).max
    return logits
