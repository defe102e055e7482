"""Temporal Information Extraction: (note, question) → the note's time expressions, each in its clause."""

import re
from dataclasses import dataclass

from asclepius_ray.chat.offline.text import ParsedNote, as_sentence, content_words, shorten, without_stop

MOST_TIMES = 5

_DIGITS = r"\d+(?:[.,]\d+)?(?:\s?(?:[-\u2013]|to|or)\s?\d+)?"
_COUNT = (
    rf"(?:{_DIGITS}|an?|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|several|many|some|"
    r"a few|few|the (?:next|past|last|following|first))"
)
_UNIT = r"(?:minutes?|hours?|days?|weeks?|months?|years?)"
_TIME = re.compile(
    r"\b(?:(?:for|over|within|after|during|since|about|approximately|every|in) )?"
    r"(?:the (?:past|last|next|following|first) )?"
    rf"(?:{_COUNT}[- ]{_UNIT}|{_DIGITS} (?:h|min))\b(?![- ]old)"
    r"(?:(?: of)? (?:later|ago|after \w+|before \w+|prior to \w+|earlier|duration|history))?"
    r"|\b(?:on|by|from) (?:the )?(?:\w+ )?(?:postoperative )?day \w+\b"
    r"|\b(?:January|February|March|April|May|June|July|August|September|October|November|December)"
    r" \d{1,4}(?:, \d{4})?\b"
    r"|\b(?:in|since) (?:19|20)\d\d\b",
    re.IGNORECASE,
)
_AGE = re.compile(r"^(?:at |an? )?\d+[- ]years? (?:of age|and)", re.IGNORECASE)


@dataclass(frozen=True)
class TimeMention:
    """A time expression and the clause that it stands in; both are spans of the note."""

    expression: str
    clause: str


def find_times(note: ParsedNote) -> list[TimeMention]:
    """The time expressions in the order of the note, each expression once; ages are none."""
    mentions: dict[str, TimeMention] = {}
    for sentence in dict.fromkeys(note.sentences):
        for match in _TIME.finditer(sentence):
            expression = match.group(0)
            if _AGE.match(sentence[match.start() :]) or expression.lower() in mentions:
                continue
            clause = _clause_around(sentence, match.start(), match.end())
            mentions[expression.lower()] = TimeMention(expression, clause)
    return list(mentions.values())


def tell_times(note: ParsedNote, question: str) -> str:
    mentions = find_times(note)
    if not mentions:
        lead = as_sentence(shorten((*note.sentences, "nothing")[0], 30))
        return f"The note gives no time or duration. It says what happened without it: {lead}"
    asked = content_words(question)
    quoted = [mention for mention in mentions if f'"{mention.expression}"' in question]
    overlap = [len(asked & content_words(mention.clause)) for mention in mentions]
    best = max(overlap)
    close = [
        mention for mention, shared in zip(mentions, overlap, strict=True) if best >= 2 and shared == best
    ]
    chosen = (quoted or close or mentions)[:MOST_TIMES]
    return "\n".join(f"{mention.expression}: {mention.clause}" for mention in chosen)


def _clause_around(sentence: str, start: int, end: int) -> str:
    """The part between the commas around an expression, widened to the left until it has five words."""
    sentence = without_stop(sentence)
    right = sentence.find(", ", end)
    right = len(sentence) if right < 0 else right
    left = start
    while left > 0:
        comma = sentence.rfind(", ", 0, left - 1)
        left = comma + 2 if comma >= 0 else 0
        if len(sentence[left:right].split()) >= 5:
            break
    if len(sentence[left:right].split()) < 5:
        right = len(sentence)
    return sentence[left:right]
