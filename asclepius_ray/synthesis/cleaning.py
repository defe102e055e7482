"""Text and age of one row of the input, made plain; pure functions that change no fact.

What the published tables hold beside the prose: line breaks as the two characters backslash and n
(V1), real line breaks in the middle of sentences (V2), and the brackets that were left empty when
links to figures, tables and references were taken out (both).
"""

import ast
import re
from itertools import pairwise

from asclepius_ray.synthesis.mimic import replace_marks

_DAYS_IN_A_YEAR = 365.25
_YEARS_IN_UNIT = {
    "year": 1.0,
    "month": 1 / 12,
    "week": 7 / _DAYS_IN_A_YEAR,
    "day": 1 / _DAYS_IN_A_YEAR,
    "hour": 1 / _DAYS_IN_A_YEAR / 24,
}
_OLDEST_YEARS = 130.0
_LONGEST_AGE_CHARACTERS = 200

# Soft hyphen, zero-width characters and byte order marks: invisible, and never a fact.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
# Every blank but the plain one and the line break, and control characters.
_ODD_BLANKS = re.compile("[\x00-\x09\x0b-\x1f\x7f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")
_BLANK_RUN = re.compile("  +")
_BLANK_LINES = re.compile(r" ?\n[ \n]*")
# "()", "( )", "(, )", "[]": a sign between the brackets, as in "(-)", is a finding and stays.
_EMPTY_BRACKETS = re.compile(r"\([\s,;]*\)|\[[\s,;]*\]")
_BLANK_AFTER_OPENING = re.compile(r"([(\[]) +")
_BLANK_BEFORE_CLOSING = re.compile(r" +([)\]]|[,;.](?=\s|$))")

_SENTENCE_END = re.compile(r"[.!?:][\"'\u201d\u2019)\]]*(?:\[\d[^\]]*\])?$")
_LIST_ITEM = re.compile(r"(?:\d{1,2}[.)]|[ivx]{1,4}\)|[-*\u2022])\s")
_SPLIT_WORD = re.compile(r"[^\W_]-$")
# Lines of text that was cut at a fixed width are this long; a heading is shorter, a paragraph longer.
_WRAPPED_CHARACTERS = range(60, 100)


def clean_text(text: str) -> str:
    """Makes a case report plain prose: one line for each paragraph, one blank between words."""
    text = _INVISIBLE.sub("", _with_line_breaks(text))
    text = _ODD_BLANKS.sub(" ", text)
    while (shorter := _EMPTY_BRACKETS.sub(" ", text)) != text:
        text = shorter
    text = _BLANK_RUN.sub(" ", text)
    text = _join_sentences(_BLANK_LINES.sub("\n", text).strip())
    text = _BLANK_AFTER_OPENING.sub(r"\1", text)
    return _BLANK_BEFORE_CLOSING.sub(r"\1", text).strip()


def clean_note(text: str) -> str:
    """Makes the lines of a real note plain, and leaves their layout: a note says things with its
    lines, and an empty bracket in it is a box that nobody ticked. MIMIC-III's marks become tags."""
    lines = replace_marks(_INVISIBLE.sub("", _with_line_breaks(text))).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip()


def _with_line_breaks(text: str) -> str:
    return text.replace("\\n", "\n").replace("\r\n", "\n").replace("\r", "\n")


def _join_sentences(text: str) -> str:
    lines = text.split("\n")
    parts = lines[:1]
    for previous, line in pairwise(lines):
        if _starts_paragraph(previous, line):
            parts.append("\n")
        elif not (_SPLIT_WORD.search(previous) and line[:1].isalnum()):
            parts.append(" ")
        parts.append(line)
    return "".join(parts)


def _starts_paragraph(previous: str, line: str) -> bool:
    if _SENTENCE_END.search(previous) or _LIST_ITEM.match(line):
        return True
    if not line[:1].isupper() or previous.endswith(","):
        return False
    return len(previous) not in _WRAPPED_CHARACTERS


def age_years(value: object) -> float | None:
    """The age in years, or None where it cannot be read.

    Takes what the published tables hold, `[[60.0, 'year'], [3.0, 'month']]` as a list or as its
    text (the entries add up), and what one's own table may hold, a plain number of years.
    """
    if isinstance(value, str):
        value = _literal(value)
    if isinstance(value, int | float):
        value = [[value, "year"]]
    if not isinstance(value, list | tuple) or not value:
        return None
    years = [_entry_years(entry) for entry in value]
    known = [each for each in years if each is not None]
    total = sum(known)
    return total if len(known) == len(years) and 0 <= total <= _OLDEST_YEARS else None


def _entry_years(entry: object) -> float | None:
    if not isinstance(entry, list | tuple) or len(entry) != 2:
        return None
    amount, unit = entry
    if not isinstance(unit, str) or isinstance(amount, bool):
        return None
    try:
        return float(amount) * _YEARS_IN_UNIT[unit.strip().lower().removesuffix("s")]
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _literal(text: str) -> object:
    if len(text) > _LONGEST_AGE_CHARACTERS:
        return None
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
