"""One answer while it grows: chunks of an engine's tokens → pieces of text with their log-probabilities."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from asclepius_ray.serving.engines.engine import GenerationRequest, TokenChunk, TokenLogprob
from asclepius_ray.serving.surface.text_stream import Decode, StopFilter, TokenDecoder


@dataclass(frozen=True)
class ScoredToken:
    """One token of the answer, and where its text begins in it (in characters)."""

    token_id: int
    score: TokenLogprob
    text_offset: int


@dataclass(frozen=True)
class Piece:
    """Text that is ready to be sent, and the tokens whose text begins in it where scores were asked for."""

    text: str
    tokens: list[ScoredToken] = field(default_factory=list)


class Choice:
    """What is known of one answer; afterwards `finish_reason` is "stop" or "length"."""

    def __init__(
        self,
        index: int,
        request: GenerationRequest,
        end_token_ids: frozenset[int],
        decode: Decode,
        stops: Sequence[str],
    ) -> None:
        self.index = index
        self.request = request
        self.completion_tokens = 0
        self.finish_reason = ""
        self._end_token_ids = end_token_ids
        self._decoder, self._stop_filter = TokenDecoder(decode), StopFilter(stops)
        self._decoded_characters = self._given_characters = 0
        self._waiting_tokens: deque[ScoredToken] = deque()

    def take(self, chunk: TokenChunk) -> Piece:
        """What these tokens release; those behind the end of the answer are not counted."""
        text = ""
        for place, token_id in enumerate(chunk.ids):
            if self.finish_reason:
                break
            self.completion_tokens += 1
            if token_id in self._end_token_ids:
                self.finish_reason = "stop"
                break
            if chunk.logprobs is not None:
                scored = ScoredToken(token_id, chunk.logprobs[place], self._decoded_characters)
                self._waiting_tokens.append(scored)
            text += self._filter(self._decoder.add(token_id))
        return self._release(text)

    def finish(self) -> Piece:
        """What was held back; the engine has no more tokens, or none that count."""
        text = "" if self._stop_filter.stopped else self._filter(self._decoder.finish())
        text += self._stop_filter.finish()
        self.finish_reason = self.finish_reason or "length"
        return self._release(text)

    def _filter(self, decoded: str) -> str:
        self._decoded_characters += len(decoded)
        given = self._stop_filter.add(decoded)
        if self._stop_filter.stopped:
            self.finish_reason = "stop"
        return given

    def _release(self, text: str) -> Piece:
        """A token comes with the piece in which its text begins, so one behind a stop string never does."""
        self._given_characters += len(text)
        tokens = []
        while self._waiting_tokens and self._waiting_tokens[0].text_offset < self._given_characters:
            tokens.append(self._waiting_tokens.popleft())
        return Piece(text, tokens)
