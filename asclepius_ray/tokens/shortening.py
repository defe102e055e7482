"""A note that is too long → the same note with whole sentences left out behind its middle.

The head of a discharge summary says who and why, its end what was decided; the middle goes first.
"""

import itertools
import re
from collections.abc import Callable

from asclepius_ray.errors import InputError

OMISSION = "[...]"
"""Stands where sentences were left out, so that the model can tell a gap from the note's own order."""
LONGEST_PIECE_CHARACTERS = 400
_SENTENCE_END = re.compile(r"(?<=[.!?])[ \t]+|(?<=\n)")
_CUT_AT = 2 / 3


def shorten_text(text: str, limit: int, measure: Callable[[str], int]) -> str:
    """The longest text of this family with `measure(text) <= limit`; all of it if that fits."""
    if measure(text) <= limit:
        return text
    pieces = split_sentences(text)
    if measure(without_middle(pieces, len(pieces))) > limit:
        raise InputError(
            f"the question leaves no room for a note within {limit} tokens; "
            "ask a shorter question or allow a longer sequence"
        )
    fits, too_long = len(pieces), 0
    while fits - too_long > 1:
        middle = (fits + too_long) // 2
        if measure(without_middle(pieces, middle)) <= limit:
            fits = middle
        else:
            too_long = middle
    return without_middle(pieces, fits)


def split_sentences(text: str) -> list[str]:
    """Sentences and lines with their spaces; joined again they are the text.

    A stretch without any end is cut at words, and one without spaces at a fixed length.
    """
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    bounds = [0, *ends, len(text)]
    sentences = [text[start:end] for start, end in itertools.pairwise(bounds) if end > start]
    return [piece for sentence in sentences for piece in _cut_long(sentence)]


def without_middle(pieces: list[str], dropped: int) -> str:
    """The text without `dropped` pieces around the point two thirds into it; more dropped, less kept."""
    if dropped == 0:
        return "".join(pieces)
    start = max(0, int(len(pieces) * _CUT_AT) - (dropped + 1) // 2)
    start = min(start, len(pieces) - dropped)
    head = "".join(pieces[:start]).rstrip()
    tail = "".join(pieces[start + dropped :]).lstrip()
    return "\n".join(part for part in (head, OMISSION, tail) if part)


def _cut_long(sentence: str) -> list[str]:
    pieces = []
    while len(sentence) > LONGEST_PIECE_CHARACTERS:
        space = sentence.rfind(" ", 0, LONGEST_PIECE_CHARACTERS)
        end = space + 1 if space > 0 else LONGEST_PIECE_CHARACTERS
        pieces.append(sentence[:end])
        sentence = sentence[end:]
    return [*pieces, sentence]
