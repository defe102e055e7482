"""Strings shaped like what identifies a person: numbers and addresses that a teacher makes up or leaks."""

import re
from collections.abc import Iterator

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]*[a-z]{2}", re.IGNORECASE)
_IDENTIFIER = re.compile(
    r"""
    (?<![\w.-])(?:\+?1[ .-]?)?(?:\(\d{3}\)\s?|\d{3}[.-])\d{3}[.-]\d{4}(?![\w-])      # telephone
    | (?<![\w.-])\d{3}-\d{2}-\d{4}(?![\w-])                                      # social security
    | \b(?:MRN\b|medical\ record\ (?:number|no\.?)|patient\ (?:ID|identification(?:\ number)?)
        |account\ (?:number|no\.?)|SSN|insurance\ (?:ID|number)|passport)\s*[:\#]?\s*[A-Z]{0,3}-?\d[\d-]{3,}
    | \b(?:DOB|date\ of\ birth)\s*[:.]?\s*(?:\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}|\d{4}-\d\d-\d\d|[A-Z][a-z]+\ \d)
    | \b(?:patient(?:'s)?\ name|name\ of\ (?:the\ )?patient)\s*:\s*(?:Mr\.?|Mrs\.?|Ms\.?)?\s*
      (?-i:(?!Not\b|Unknown\b)[A-Z][a-z]+\s+[A-Z][a-z]+)
    | \b\d{1,5}\ (?-i:(?:[A-Z][a-z]+\ ){1,3}(?:Street|Avenue|Boulevard|Road|Lane))\b
    """,
    re.IGNORECASE | re.VERBOSE,
)


def has_new_identifier(text: str, source: str) -> bool:
    """Whether the text holds such a string that its source has not."""
    return any(found not in source for found in _identifiers(text))


def _identifiers(text: str) -> Iterator[str]:
    if "@" in text:
        # Apart, and only then: it tries every word of a text, which takes as long as all the others.
        yield from (match.group() for match in _EMAIL.finditer(text))
    yield from (match.group() for match in _IDENTIFIER.finditer(text))
