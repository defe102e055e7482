"""Where in a note an answer leans: the sentences that share the most words with it."""

import re
from dataclasses import dataclass

LEAST_SCORE = 0.5
MOST_PASSAGES = 3
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?](?!\s|$)[^.!?\n]*)*[.!?]?")
_WORD = re.compile(r"\w+")
SHORTEST_WORD = 4


@dataclass(frozen=True)
class Passage:
    """Characters `start` to `end` of the note; `score` is the share of their words that the answer has."""

    start: int
    end: int
    score: float


def find_passages(note: str, answer: str) -> list[Passage]:
    """The best passages above the least score, in the order of the note; none where nothing is shared."""
    said = _words(answer)
    found = []
    for match in _SENTENCE.finditer(note):
        words = _words(match[0])
        score = len(words & said) / len(words) if words else 0.0
        if score >= LEAST_SCORE:
            start = match.start() + len(match[0]) - len(match[0].lstrip())
            found.append(Passage(start, match.end(), round(score, 3)))
    best = sorted(found, key=lambda passage: -passage.score)[:MOST_PASSAGES]
    return sorted(best, key=lambda passage: passage.start)


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text) if len(word) >= SHORTEST_WORD or word.isdigit()}
