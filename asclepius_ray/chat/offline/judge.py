"""The judge step: how well an answer rests on the note and says what the rules' own answer says → 1 to 4."""

import re
from collections import Counter

from asclepius_ray.chat.offline.text import content_words, numbers

_DIGIT_WORDS = re.compile(r"\S+")


def grade_answer(note: str, question: str, own_answer: str, answer: str) -> int:
    """4 for the rules' own answer; 1 for none, gibberish or words that are not the note's; at most 2 for
    an answer with a number that the note has not."""
    if _plain(answer) == _plain(own_answer):
        return 4
    words, own, asked = content_words(answer), content_words(own_answer), content_words(question)
    if not words or answer.rstrip().endswith("?") or _is_repetitive(answer):
        return 1
    told = content_words(note)
    support = len(words & (told | own | asked)) / len(words)
    # What an answer must hold: the note's words in the rules' own answer, but for those of the question.
    core = (own & told) - asked or own
    recall = len(words & core) / len(core) if core else 0.0
    if support < 0.6:
        return 1
    if numbers(answer) - numbers(note):
        return 2 if support >= 0.8 else 1
    if recall >= 0.6 and support >= 0.85:
        return 4
    if recall >= 0.3:
        return 3
    return 2 if support >= 0.8 else 1


def _plain(text: str) -> str:
    return " ".join(re.findall(r"[\w.]+", text.lower()))


def _is_repetitive(answer: str) -> bool:
    """A text that goes in circles: one run of three words in four places, or few words used many times."""
    words = [word.lower() for word in _DIGIT_WORDS.findall(answer)]
    if len(words) < 12:
        return False
    runs = Counter(zip(words, words[1:], words[2:], strict=False))
    return runs.most_common(1)[0][1] >= 4 or len(set(words)) / len(words) < 0.3
