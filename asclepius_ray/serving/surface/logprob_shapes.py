"""Scored tokens → the log-probabilities of OpenAI's two routes."""

from collections.abc import Sequence
from typing import Any

from asclepius_ray.serving.surface.choice import ScoredToken
from asclepius_ray.serving.surface.token_bytes import TokenBytes, shown_token

LEAST_LOGPROB = -9999.0
"""JSON has no minus infinity; OpenAI's API gives this for a token that is all but impossible."""


def chat_logprobs(tokens: Sequence[ScoredToken], token_bytes: TokenBytes) -> dict[str, Any]:
    """`logprobs` of a chat completion's choice."""
    content = []
    for token in tokens:
        top = [_entry(token_id, logprob, token_bytes) for token_id, logprob in token.score.top]
        content.append(_entry(token.token_id, token.score.logprob, token_bytes) | {"top_logprobs": top})
    return {"content": content, "refusal": None}


def completion_logprobs(tokens: Sequence[ScoredToken], token_bytes: TokenBytes) -> dict[str, Any]:
    """`logprobs` of a completion's choice: four lists of one entry a token."""

    def shown(token_id: int) -> str:
        return shown_token(token_bytes.of(token_id))

    tops = []
    for token in tokens:
        scores = {shown(token_id): _finite(logprob) for token_id, logprob in token.score.top}
        # The token itself is always among them, as one more where it is none of the likeliest.
        tops.append(scores | {shown(token.token_id): _finite(token.score.logprob)})
    return {
        "tokens": [shown(token.token_id) for token in tokens],
        "token_logprobs": [_finite(token.score.logprob) for token in tokens],
        "top_logprobs": tops,
        "text_offset": [token.text_offset for token in tokens],
    }


def _entry(token_id: int, logprob: float, token_bytes: TokenBytes) -> dict[str, Any]:
    found = token_bytes.of(token_id)
    return {"token": shown_token(found), "logprob": _finite(logprob), "bytes": list(found)}


def _finite(logprob: float) -> float:
    return logprob if logprob > LEAST_LOGPROB else LEAST_LOGPROB
