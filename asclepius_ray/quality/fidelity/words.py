"""Text → its words, in lower case, one spelling, with the marks that end a clause or sentence."""

import re
import unicodedata

Words = list[str]

SENTENCE_ENDS = frozenset(".!?\n")

_TOKEN = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:'[a-z]+)?|\n|[.,;:!?()/%]")
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_DIGRAPHS = re.compile(r"(?<=[a-z])(?:ae|oe)(?=[a-z])|\boe(?=[a-z])")
_SPELLINGS = re.compile(r"\b(tum|od|col|hum|vap)our")


def normalize(text: str) -> str:
    """The text in lower case, with plain dashes, quotes and micro signs, and American digraphs.

    "Haematuria" and "hematuria", "oedema" and "edema", "tumour" and "tumor" become the same word.
    """
    plain = unicodedata.normalize("NFKC", text).lower().replace("\u2019", "'").replace("\u03bc", "u")
    plain = _DASHES.sub("-", plain)
    return _SPELLINGS.sub(r"\1or", _DIGRAPHS.sub("e", plain))


def split_words(normalized: str) -> Words:
    """The words and numbers, with `. , ; : ! ? ( ) / %` and line ends as words of their own."""
    return _TOKEN.findall(normalized)
