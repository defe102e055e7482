"""Clinical entities in a text, found by word lists: each is a span of the text as it stands there."""

import re
from functools import lru_cache

from asclepius_ray.chat.offline import lexicon
from asclepius_ray.chat.offline.text import alternatives

_AMOUNT = (
    r"\d[\d.,]*(?:\s?[-\u2013]\s?\d[\d.,]*)?"
    r"\s?(?:mg|mcg|\u00b5g|\u03bcg|g|gram|grams|IU|units|U|mL|ml|mEq|mmol|%)(?!\w)"
    r"(?:\s?/\s?(?:kg|day|d|dose|m2|h|hour|min|24 h)(?!\w))*"
)
_RHYTHM = (
    r"(?:once|twice|three times|four times)(?: a day| daily| per day| a week| weekly)|bid|tid|"
    r"(?:once |twice )?daily|every \w+ (?:hours|days|weeks)|per day|weekly|"
    r"orally|intravenously|IV|for \w+ (?:days|weeks|months)"
)
_DRUG = (
    "(?:"
    + alternatives(list(lexicon.DRUGS), ignore_case=True)
    + r"|(?<![\w-])[A-Za-z][a-z]{2,}(?:"
    + "|".join(lexicon.DRUG_ENDINGS)
    + r")(?![\w-]))"
)
_MEDICATION = re.compile(rf"(?:{_AMOUNT} (?:of )?)?{_DRUG}(?:\s\(?{_AMOUNT}\)?)?(?:,?\s(?:{_RHYTHM})(?!\w))*")
_NOT_A_DRUG = frozenset({"cystatin", "somatostatin"})

_UNIT = (
    r"%|\u00b0C|\u00b0F|mmHg|mm Hg|bpm|beats per minute|breaths per minute|"
    r"[A-Za-z\u00b5\u03bc]{1,5}/[A-Za-z\u00b5\u03bc\d.]{1,6}|/min|/\u00b5L|/mm3"
)
_VALUE = (
    r"(?:\s(?:level|levels|count|value|concentration))?"
    r"(?:\s(?:was|were|of|at|:|=|is|elevated to|increased to|decreased to|dropped to)){0,2}\s?"
    rf"[<>\u2265\u2264~]?\s?\d[\d.,/]*(?:\s?[-\u2013\u00d7x]\s?\d[\d.,^]*)*(?:\s?(?:{_UNIT}))?"
)
_RESULT = re.compile(alternatives(list(lexicon.LABORATORY_VALUES), ignore_case=True) + _VALUE)

_KINDS = {
    "medication": _MEDICATION,
    "test": re.compile(alternatives(list(lexicon.TESTS), ignore_case=True)),
    "result": _RESULT,
    "procedure": re.compile(alternatives(list(lexicon.PROCEDURES), ignore_case=True)),
    "problem": re.compile(alternatives(list(lexicon.PROBLEMS), ignore_case=True)),
    "anatomy": re.compile(alternatives(list(lexicon.ANATOMY), ignore_case=True)),
}
LABELS = {
    "medication": "Medications",
    "test": "Tests",
    "result": "Results",
    "procedure": "Procedures",
    "problem": "Problems",
    "anatomy": "Parts of the body",
}


@lru_cache(maxsize=2048)
def find_entities(text: str, kind: str) -> tuple[str, ...]:
    """The distinct entities of one kind in the order of the text; the longer of two that say the same."""
    found: dict[str, str] = {}
    for match in _KINDS[kind].finditer(text):
        span = match.group(0).strip(" ,;")
        if span.count("(") != span.count(")"):
            span = span.replace("(", "").strip() if span.endswith("(") else span.rstrip(")")
        if span.lower() in _NOT_A_DRUG or span not in text:
            continue
        key = span.lower()
        if not any(key in known for known in found):
            found = {known: value for known, value in found.items() if known not in key} | {key: span}
    return tuple(found.values())


def drug_name(medication: str) -> str:
    """The name alone of a medication that may carry dose and rhythm."""
    match = re.search(_DRUG, medication)
    return match.group(0) if match else medication
