"""Summarization: (note, question) → the lead sentences of the main sections, shortened; all are spans."""

import re

from asclepius_ray.chat.offline.text import ParsedNote, Section, as_sentence, shorten

MOST_WORDS_OF_SENTENCE = 30
MOST_WORDS_OF_ONE_SENTENCE = 15

_COUNTS = {"one": 1, "single": 1, "two": 2, "three": 3, "four": 4}
_MAIN = re.compile(
    r"history|illness|diagnos|course|treatment|follow|assessment|outcome|condition|investig|finding", re.I
)
_MINOR = re.compile(r"patient|chief|medications|past|name|date", re.IGNORECASE)


def summarize(note: ParsedNote, question: str) -> str:
    """As many sentences as the question asks for, else three; of one section where it names one."""
    count = next(
        (number for word, number in _COUNTS.items() if re.search(rf"\b{word}\b", question.lower())), 3
    )
    section = note.section_named_in(question)
    if section is not None and sum(len(text.split()) for text in section.sentences) >= 12:
        leads = list(section.sentences)[:count]
    else:
        leads = _leads(note)[:count]
    if len(leads) == 1:
        return as_sentence(shorten(leads[0], MOST_WORDS_OF_ONE_SENTENCE))
    if not leads:
        return "The note has no text that could be summed up."
    return " ".join(as_sentence(shorten(sentence, MOST_WORDS_OF_SENTENCE)) for sentence in leads)


def _leads(note: ParsedNote) -> list[str]:
    """The first sentence of each main section, the beginning and the end of the note first."""
    main = [section for section in note.sections if _is_main(section)] or list(note.sections)
    order = [main[0], main[-1], *main[1:-1]] if len(main) > 1 else main
    chosen = {section.sentences[0]: section for section in order[:4]}
    leads = [sentence for sentence in note.sentences if sentence in chosen]
    return list(dict.fromkeys(leads + list(note.sentences)))


def _is_main(section: Section) -> bool:
    return bool(_MAIN.search(section.heading)) and not _MINOR.search(section.heading)
