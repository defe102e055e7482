"""Named Entity Recognition: (note, question) → the entities of the kinds asked for, all spans of the note."""

import re

from asclepius_ray.chat.offline.entities import LABELS, find_entities
from asclepius_ray.chat.offline.text import ParsedNote, as_sentence, shorten

MOST_ENTITIES = 12

_ASKED = (
    ("medication", re.compile(r"medic(?:ation|ine)|drug|dose|substance|prescri", re.IGNORECASE)),
    ("result", re.compile(r"result|value|laborator|vital|measure", re.IGNORECASE)),
    (
        "test",
        re.compile(
            r"\btests?\b|investigation|imaging (?:stud|test|exam)|study|studies|diagnostic", re.IGNORECASE
        ),
    ),
    ("procedure", re.compile(r"procedure|operation|surg|intervention", re.IGNORECASE)),
    (
        "problem",
        re.compile(
            r"diagnos[ei]s\b|symptom|problem|disease|condition|complaint|sign|disorder", re.IGNORECASE
        ),
    ),
    ("anatomy", re.compile(r"anatom|parts? of the body|body parts?|organ", re.IGNORECASE)),
)


def list_entities(note: ParsedNote, question: str) -> str:
    """One line of each kind asked for; where the note names none, what it names instead."""
    kinds = asked_kinds(question) or ("medication", "test")
    section = note.section_named_in(question)
    lines = []
    if section is not None:
        lines = _lines_of("\n".join(section.sentences), kinds)
    lines = lines or _lines_of("\n".join(note.sentences), kinds)
    if lines:
        return "\n".join(lines)
    asked = " or ".join(LABELS[kind].lower() for kind in kinds)
    others = _lines_of("\n".join(note.sentences), tuple(kind for kind in LABELS if kind not in kinds))
    if others:
        return f"The note names no {asked}. It does name these.\n" + others[0]
    return f"The note names no {asked}; it only says this: " + as_sentence(
        shorten((*note.sentences, "nothing")[0], 25)
    )


def asked_kinds(question: str) -> tuple[str, ...]:
    return tuple(kind for kind, pattern in _ASKED if pattern.search(question))


def _lines_of(text: str, kinds: tuple[str, ...]) -> list[str]:
    found = ((kind, find_entities(text, kind)[:MOST_ENTITIES]) for kind in kinds)
    return [f"{LABELS[kind]}: {'; '.join(entities)}" for kind, entities in found if entities]
