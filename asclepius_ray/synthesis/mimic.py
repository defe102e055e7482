"""What is MIMIC-III's own: the layout of its table of notes, and the marks of its de-identification.

A mark stands where something personal stood, such as `[**Hospital1 18**]` or `[**2101-11-5**]`. Here it
becomes a short tag: what kind of thing stood there is all that a reader can know.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

DISCHARGE_SUMMARY = "Discharge summary"
UNKNOWN_TAG = "[REDACTED]"

# The first pattern that is found in a mark (in lower case) decides, so their order matters: "hospital ward
# name" is a ward, "doctor last name" a name and "md number" none.
_KINDS = (
    ("[WARD]", r"ward ?name|hospital unit name"),
    ("[HOSPITAL]", r"hospital|medical center"),
    ("[EMAIL]", r"e-?mail"),
    ("[URL]", r"\burl\b"),
    ("[PHONE]", r"telephone|phone|\bfax\b|pager"),
    ("[ADDRESS]", r"address|po box|zip ?code"),
    ("[ORGANIZATION]", r"universit|college|company|organization"),
    ("[LOCATION]", r"location|country|\bstate\b|\bcity\b|\btown\b"),
    ("[AGE OVER 90]", r"\bage\W+over"),
    ("[AGE]", r"\bage\b"),
    ("[ID]", r"number|numeric identifier|\bid\b|identifier"),
    ("[CONTACT]", r"contact info"),
    ("[NAME]", r"name|initial|attending info|dictator info"),
    (
        "[DATE]",
        r"\b(?:date|day|month|year|holiday|season|may|june?|july?)|^[\d/ -]*\d[\d/ -]*$"
        r"|\b(?:jan|feb|mar|apr|aug|sept?|oct|nov|dec)(?:uary|ruary|ch|il|ust|ember|ober)?\b",
    ),
)
_TAGS_AND_PATTERNS = tuple((tag, re.compile(pattern)) for tag, pattern in _KINDS)
TAGS = (*(tag for tag, _ in _KINDS), UNKNOWN_TAG)
"""Everything that a mark may have become; in a note they are no placeholders."""

# A mark may run over the end of a line. One that is not closed ends where the next begins, and is none.
_MARK = re.compile(r"\[\*\*([^\[\]]{0,120}?)\*\*\]")
_COLUMNS = ("subject_id", "hadm_id", "category", "text")


def replace_marks(text: str) -> str:
    """The text with a tag for every mark; a mark that is not closed stays as it is."""
    return _MARK.sub(_tag, text) if "[**" in text else text


def noteevents_columns(found: Sequence[str]) -> dict[str, str]:
    """The table's own names by those of NOTEEVENTS in lower case; none if it is another table."""
    names = {name.lower(): name for name in found}
    return names if all(name in names for name in _COLUMNS) else {}


def _tag(mark: re.Match[str]) -> str:
    return _tag_of(mark[1])


@lru_cache(maxsize=1 << 14)
def _tag_of(content: str) -> str:
    said = " ".join(content.lower().split())
    return next((tag for tag, pattern in _TAGS_AND_PATTERNS if pattern.search(said)), UNKNOWN_TAG)
