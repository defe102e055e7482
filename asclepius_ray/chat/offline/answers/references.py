"""Coreference Resolution: (note, question) → an expression of the note and what it takes up."""

import re
from dataclasses import dataclass

from asclepius_ray.chat.offline.text import ParsedNote, as_sentence, shorten, without_stop

MOST_REFERENCES = 3

_FEMALE = r"woman|female|girl|lady"
_MALE = r"man|male|boy|gentleman"
_PERSON = re.compile(
    r"(?P<age>\d{1,3}(?:\.\d)?[- ](?:year|month|week|day)s?[- ]old\b[\w\s()/-]{0,40}?)?"
    rf"\b(?:{_FEMALE}|{_MALE}|infant|neonate|newborn|child|patient)\b",
    re.IGNORECASE,
)
_SEXES = {
    "female": re.compile(rf"\b(?:{_FEMALE})\b", re.IGNORECASE),
    "male": re.compile(rf"\b(?:{_MALE})\b", re.IGNORECASE),
}
_RELATIVES = {
    "female": re.compile(r"\b(?:[Hh]is|[Hh]er|[Tt]he) (?:mother|sister|wife|daughter|grandmother|aunt)\b"),
    "male": re.compile(r"\b(?:[Hh]is|[Hh]er|[Tt]he) (?:father|brother|husband|son|grandfather|uncle)\b"),
}
_EXPRESSION = re.compile(
    r"\b(?:(?P<male>[Hh]e|[Hh]is|[Hh]im)|(?P<female>[Ss]he|[Hh]er)|(?P<person>[Tt]h(?:e|is) patient)|"
    r"(?P<phrase>[Tt]he (?P<noun>lesion|lesions|mass|tumor|tumour|cyst|symptoms|procedure|operation|surgery|"
    r"pain|fracture|swelling|treatment|wound|ulcer)))\b|^(?P<other>It|This|These|They)\b"
)
_ACTS = "surgery|resection|excision|ectomy|otomy"
_KIND_OF = {"operation": _ACTS, "procedure": f"{_ACTS}|biopsy"}


@dataclass(frozen=True)
class Reference:
    """An expression, the sentence that it stands in, and the span of the note that it takes up."""

    expression: str
    sentence: str
    referent: str

    def told(self) -> str:
        start = shorten(without_stop(self.sentence), 10)
        return f'"{self.expression}" in "{start}" refers to: {self.referent}'


def find_references(note: ParsedNote) -> list[Reference]:
    """The expressions of which the note names the referent, each once, in the order of the note."""
    references: dict[str, Reference] = {}
    sentences = note.sentences
    for index, sentence in enumerate(sentences):
        for match in _EXPRESSION.finditer(sentence):
            key = match.group(0).lower()
            if key in references:
                continue
            referent = _resolve(match, (*sentences[:index], sentence[: match.start()]))
            if referent is not None:
                references[key] = Reference(match.group(0), sentence, referent)
    return list(references.values())


def resolve_references(note: ParsedNote, question: str) -> str:
    references = find_references(note)
    quoted = {text.lower() for text in re.findall(r"[\"']([^\"']+)[\"']", question)}
    asked = [reference for reference in references if reference.expression.lower() in quoted] or references
    if asked:
        return "\n".join(reference.told() for reference in asked[:MOST_REFERENCES])
    lead = as_sentence(shorten((*note.sentences, "nothing")[0], 30))
    return f"The note has no pronoun that takes up another mention; it names its subjects in full. {lead}"


def _resolve(match: re.Match[str], before: tuple[str, ...]) -> str | None:
    """The referent of an expression in the text before it, the last item being its own sentence's part."""
    if match.group("noun"):
        return _find_thing(match.group("noun"), before)
    if match.group("other"):
        return shorten(without_stop(before[-2]), 30) if len(before) > 1 else None
    if match.group("person"):
        return _find_patient("", before, with_age=True)
    sex = "male" if match.group("male") else "female"
    if relative := list(_RELATIVES[sex].finditer(before[-1])):
        return relative[-1].group(0)
    return _find_patient(sex, before, with_age=False)


def _find_patient(sex: str, before: tuple[str, ...], with_age: bool) -> str | None:
    """The fullest mention of the patient; None where it is of the other sex, since that is someone else."""
    people = [found for text in before for found in _PERSON.finditer(text)]
    mentions = [found.group(0) for found in people if found.group("age") or not with_age]
    fullest = max(mentions, key=len, default=None)
    if fullest is None or any(_SEXES[other].search(fullest) for other in _SEXES if sex not in ("", other)):
        return None
    return fullest


def _find_thing(noun: str, before: tuple[str, ...]) -> str | None:
    words = _KIND_OF.get(noun, noun.rstrip("s"))
    earlier = re.compile(
        rf"\b(?:[Aa]n?|[Hh]is|[Hh]er|[Tt]wo|[Mm]ultiple)\s(?:[\w-]+\s){{0,4}}?\w*(?:{words})s?\b"
    )
    for text in reversed(before):
        if found := list(earlier.finditer(text)):
            return found[-1].group(0)
    return None
