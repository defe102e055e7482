"""The wording of a ward: long terms → the abbreviations and everyday words that a note uses."""

import re

from asclepius_ray.chat.offline.text import alternatives, lower
from asclepius_ray.chat.offline.vocabulary import EVERYDAY_WORDS, SHORTENED

_SHORTEN = {long.lower(): short for long, short in (EVERYDAY_WORDS | SHORTENED).items()}
_LONG_FORM = re.compile(alternatives(list(_SHORTEN)))
_OWN_SHORT_FORM = re.compile(r"\s\(([A-Za-z][\w/-]{0,9})\)")


def put_in_house_style(text: str) -> str:
    """The text with short forms, and without the explanation of a short form beside it."""
    pieces, end = list[str](), 0
    for found in _LONG_FORM.finditer(lower(text)):
        short = _SHORTEN[found.group(0)]
        pieces.append(text[end : found.start()])
        end = found.end()
        # "magnetic resonance imaging (MRI)" becomes "MRI": used, not explained.
        if explained := _OWN_SHORT_FORM.match(text, end):
            own = explained.group(1)
            is_short = len(own) > 1 and own.upper() == own
            if is_short or own.lower() == short.lower():
                short, end = (own if is_short else short), explained.end()
        pieces.append(short)
    return "".join([*pieces, text[end:]])
