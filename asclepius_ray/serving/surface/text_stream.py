"""Token ids → text as it grows: characters split over tokens, and stop strings over token borders."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

UNFINISHED_CHARACTER = "\ufffd"
# A character has at most four bytes. A model that only says bytes that are none would otherwise be
# decoded anew from the first of them with every token.
MOST_TOKENS_HELD_BACK = 64

_STRAY_BYTE = "<0x80>"
"""The inside of a character, as tokenizers call it that fall back on bytes."""


@dataclass(frozen=True)
class Decode:
    """Ids → text, special tokens left out."""

    decode: Callable[[list[int]], str]
    stray_byte: int | None
    """The id of a byte that is no character; None where the tokenizer has no tokens for bytes."""

    def __call__(self, ids: list[int]) -> str:
        return self.decode(ids)

    def is_final(self, ids: list[int]) -> bool:
        """Whether these ids stand for the same text whatever follows them.

        Tokenizers that fall back on bytes read a run of bytes as a whole: a wrong one at its end makes all
        of them wrong, also those that were whole characters before.
        """
        return self.stray_byte is None or self([*ids, self.stray_byte]).startswith(self(ids))


def text_decoding(tokenizer: Any) -> Decode:
    """How ids become text; the Rust tokenizer itself is five times as quick."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        decode = partial(backend.decode, skip_special_tokens=True)
        return Decode(decode, backend.token_to_id(_STRAY_BYTE))
    decode = partial(tokenizer.decode, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Decode(decode, tokenizer.get_vocab().get(_STRAY_BYTE))


class TokenDecoder:
    """Decodes one answer token by token; what it gave, joined, is the decoded whole.

    Tokens are decoded together with those given before them, because some tokenizers write a space only
    between two; text that ends inside a character, or with bytes that the next one may still change, is
    held back until it is whole.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._context: list[int] = []
        self._context_text = ""
        self._new: list[int] = []

    def add(self, token_id: int) -> str:
        self._new.append(token_id)
        text = self._new_text()
        if not text:
            return ""
        is_whole = not text.endswith(UNFINISHED_CHARACTER) and self._decode.is_final(
            self._context + self._new
        )
        if not is_whole and len(self._new) < MOST_TOKENS_HELD_BACK:
            return ""
        self._context, self._new = self._new, []
        self._context_text = self._decode(self._context)
        return text

    def finish(self) -> str:
        """What is still held back, with a replacement for a character that never became whole."""
        text = self._new_text() if self._new else ""
        self._new = []
        return text

    def _new_text(self) -> str:
        return self._decode(self._context + self._new)[len(self._context_text) :]


class StopFilter:
    """Lets text through up to the first stop string; holds back what may still become one."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._longest = max((len(stop) for stop in self._stops), default=1) - 1
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        if self.stopped:
            return ""
        if not self._stops:
            return text
        self._held += text
        found = [position for stop in self._stops if (position := self._held.find(stop)) >= 0]
        if found:
            self.stopped = True
            given, self._held = self._held[: min(found)], ""
            return given
        kept = self._length_of_possible_stop()
        given, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return given

    def finish(self) -> str:
        given, self._held = self._held, ""
        return given

    def _length_of_possible_stop(self) -> int:
        """The longest end of the held text that is the beginning of a stop string."""
        for length in range(min(self._longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
