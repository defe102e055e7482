"""One answer: tokens of the engine → pieces of text, its counts, and the audit line at its end.

The audit line holds ids, counts and times; no text ever reaches a log.
"""

import json
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from asclepius_ray.serving.engines.engine import Engine, GenerationRequest
from asclepius_ray.serving.surface.text_stream import Decoding, StopFilter, TokenDecoder

# A child of Ray Serve's logger: its lines go to the replica's log file, and not to the console.
_audit = logging.getLogger("ray.serve.asclepius.audit")


@dataclass
class Answer:
    """What is known of one answer while it grows."""

    request: GenerationRequest
    route: str
    model: str
    completion_tokens: int = 0
    finish_reason: str = ""
    started: float = field(default_factory=time.monotonic)
    first_token_seconds: float | None = None

    @property
    def usage(self) -> dict[str, int]:
        prompt_tokens = len(self.request.prompt_ids)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt_tokens + self.completion_tokens,
        }


async def stream_text(
    engine: Engine, tokenizer: Decoding, answer: Answer, stops: Sequence[str]
) -> AsyncGenerator[str, None]:
    """Yields the answer's text in pieces; closing it cancels the generation.

    Afterwards `answer.finish_reason` is "stop" (an end token or a stop string) or "length".
    """
    decoder, stop_filter = TokenDecoder(tokenizer), StopFilter(stops)
    try:
        async with aclosing(engine.stream(answer.request)) as chunks:
            async for chunk in chunks:
                text = _take(engine, answer, chunk.ids, decoder, stop_filter)
                if text:
                    yield text
                if stop_filter.stopped:
                    break
        if not stop_filter.stopped:
            text = stop_filter.add(decoder.finish()) + stop_filter.finish()
            if text:
                yield text
        if not answer.finish_reason:
            answer.finish_reason = "stop" if stop_filter.stopped else "length"
    finally:
        _write_audit_line(answer)


def _take(
    engine: Engine, answer: Answer, ids: list[int], decoder: TokenDecoder, stop_filter: StopFilter
) -> str:
    """The text that these ids release; ids behind a stop string are not counted."""
    if answer.first_token_seconds is None:
        answer.first_token_seconds = time.monotonic() - answer.started
    text = ""
    for token_id in ids:
        answer.completion_tokens += 1
        if token_id in engine.end_token_ids:
            answer.finish_reason = "stop"
        text += stop_filter.add(decoder.add(token_id))
        if stop_filter.stopped:
            break
    return text


def _write_audit_line(answer: Answer) -> None:
    first = answer.first_token_seconds
    line = {
        "request": answer.request.request_id,
        "route": answer.route,
        "model": answer.model,
        **answer.usage,
        "first_token_ms": None if first is None else round(first * 1000, 1),
        "total_ms": round((time.monotonic() - answer.started) * 1000, 1),
        "outcome": answer.finish_reason or "not finished",
    }
    _audit.info("answered %s", json.dumps(line), extra={"log_to_stderr": False})
