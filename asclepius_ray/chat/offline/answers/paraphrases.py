"""Paraphrasing: (note, question) → one or two sentences of the note with plain words in place of others."""

import re

from asclepius_ray.chat.offline.text import ParsedNote, alternatives, as_sentence, numbers, without_stop
from asclepius_ray.chat.offline.vocabulary import PLAIN_WORDS

MOST_SENTENCES = 2

_PLAIN = {long.lower(): plain for long, plain in PLAIN_WORDS.items()}
_TERM = re.compile(alternatives(list(PLAIN_WORDS), ignore_case=True))
_FALLBACK = "Put differently, the note says this: "


def paraphrase(note: ParsedNote, question: str) -> str:
    """The section that the question names, or the part of the note with the most words to put plainly."""
    section = note.section_named_in(question)
    sentences = section.sentences if section is not None else note.sentences
    if not sentences:
        return "The note has no text that could be put into other words."
    chosen = sorted(sentences, key=lambda sentence: -len(_TERM.findall(sentence)))[:MOST_SENTENCES]
    chosen = [sentence for sentence in sentences if sentence in chosen][:MOST_SENTENCES]
    reworded = [reword(sentence) for sentence in chosen]
    if reworded == [as_sentence(sentence) for sentence in chosen]:
        return _FALLBACK + " ".join(reworded)
    return " ".join(reworded)


def reword(sentence: str) -> str:
    """The sentence in plain words; its numbers stay as they are."""
    plain = _TERM.sub(lambda match: _PLAIN[match.group(0).lower()], without_stop(sentence))
    plain = re.sub(r"\ba(?= [aeio])", "an", plain)
    assert numbers(plain) == numbers(without_stop(sentence))
    return as_sentence(plain)
