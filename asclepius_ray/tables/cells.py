"""One cell of a table → a key, a text or a number; the names of its columns → words for a message."""

import math
import re
from collections.abc import Sequence

from asclepius_ray.tables.files import BROKEN_TEXT

# A lone half of a pair cannot be written as UTF-8.
_NOT_UNICODE = re.compile(f"[\ud800-\udfff{BROKEN_TEXT}]")
_LARGEST_INTEGER = 2**63
# Three words at most; the first column of a table saved with its index may have no name at all.
_LOOKS_LIKE_A_NAME = re.compile(r"(?:[^\W\d]\S*(?: +\S+){0,2})?")
_LONGEST_NAME_CHARACTERS = 30
_MOST_NAMES_SHOWN = 30


def is_unicode(text: str) -> bool:
    """Whether the text holds neither half a pair nor bytes that were not UTF-8."""
    return _NOT_UNICODE.search(text) is None


def key_of(value: object) -> str:
    """A cell as a key, the same for 17, 17.0 and "17"; empty for what cannot be one."""
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) and value.is_integer() else value
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip()


def text_of(value: object) -> str | None:
    """The cell's text, "" for an empty one, None for one that is not text."""
    if value is None:
        return ""
    return value if isinstance(value, str) and is_unicode(value) else None


def integer_of(value: object, otherwise: int) -> int:
    """The cell as a number of 64 bits, `otherwise` where it is none."""
    match = re.fullmatch(r"(-?[0-9]{1,19})(?:\.0*)?", key_of(value))
    number = int(match.group(1)) if match else otherwise
    return number if -_LARGEST_INTEGER <= number < _LARGEST_INTEGER else otherwise


def show_names(found: Sequence[str]) -> str:
    """The columns for a message; where one may be a cell of a table without a header, none is shown."""
    if not all(_looks_like_a_name(name) for name in found):
        return f"{len(found)} columns, and the first row does not look like a header"
    more = f" and {len(found) - _MOST_NAMES_SHOWN} more" if len(found) > _MOST_NAMES_SHOWN else ""
    return ", ".join(repr(name) for name in found[:_MOST_NAMES_SHOWN]) + more


def _looks_like_a_name(text: str) -> bool:
    return len(text) <= _LONGEST_NAME_CHARACTERS and _LOOKS_LIKE_A_NAME.fullmatch(text) is not None
