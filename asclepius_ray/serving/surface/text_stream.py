"""Token ids → text as it grows: characters split over tokens, and stop strings over token borders."""

from collections.abc import Iterable
from typing import Protocol

UNFINISHED_CHARACTER = "\ufffd"


class Decoding(Protocol):
    """What is needed of a tokenizer here."""

    def decode(
        self, token_ids: list[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool
    ) -> str: ...


class TokenDecoder:
    """Decodes one answer token by token; what it gave, joined, is the decoded whole.

    A token is decoded together with the one before it, because some tokenizers write a space only
    between two; text that ends inside a character is held back until the character is whole.
    """

    def __init__(self, tokenizer: Decoding) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._context_start = 0
        self._given_end = 0

    def add(self, token_id: int) -> str:
        self._ids.append(token_id)
        text = self._new_text()
        if not text or text.endswith(UNFINISHED_CHARACTER):
            return ""
        self._context_start, self._given_end = self._given_end, len(self._ids)
        return text

    def finish(self) -> str:
        """What is still held back, with a replacement for a character that never became whole."""
        text = self._new_text()
        self._given_end = self._context_start = len(self._ids)
        return text

    def _new_text(self) -> str:
        known = self._decode(self._ids[self._context_start : self._given_end])
        return self._decode(self._ids[self._context_start :])[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class StopFilter:
    """Lets text through up to the first stop string; holds back what may still become one."""

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        if self.stopped:
            return ""
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
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for length in range(min(longest, len(self._held)), 0, -1):
            end = self._held[-length:]
            if any(stop.startswith(end) for stop in self._stops):
                return length
        return 0
