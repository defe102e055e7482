"""Abbreviation Expansion: (note, question) → the note's abbreviations with the long forms of the table."""

import re

from asclepius_ray.chat.offline.text import ParsedNote, as_sentence, shorten
from asclepius_ray.chat.offline.vocabulary import ABBREVIATIONS

MOST_ABBREVIATIONS = 8
SEPARATOR = " stands for "

_KNOWN = re.compile(r"(?<![\w-])(?:" + "|".join(
    re.escape(short) for short in sorted(ABBREVIATIONS, key=len, reverse=True)
) + r")(?![\w-])")  # fmt: skip


def find_abbreviations(text: str) -> tuple[str, ...]:
    """The distinct abbreviations of the table, as they stand in the text, in its order."""
    return tuple(dict.fromkeys(_KNOWN.findall(text)))


def expand_abbreviations(note: ParsedNote, question: str) -> str:
    present = find_abbreviations("\n".join(note.sentences))
    quoted = [short for short in find_abbreviations(question) if short in present]
    asked = quoted or _of_section(note, question) or list(present)
    if asked:
        return (
            "; ".join(f"{short}{SEPARATOR}{ABBREVIATIONS[short]}" for short in asked[:MOST_ABBREVIATIONS])
            + "."
        )
    unknown = re.findall(r"\b[A-Z]{2,6}\b", "\n".join(note.sentences))
    if unknown:
        return (
            f"The note uses {unknown[0]} and does not say what it stands for; it is no common abbreviation."
        )
    lead = as_sentence(shorten((*note.sentences, "nothing")[0], 25))
    return f"There is nothing to expand: the note writes its terms in full, as in this sentence. {lead}"


def _of_section(note: ParsedNote, question: str) -> list[str]:
    section = note.section_named_in(question)
    return list(find_abbreviations("\n".join(section.sentences))) if section is not None else []
