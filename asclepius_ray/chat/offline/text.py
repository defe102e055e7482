"""Taking clinical text apart: sections, sentences (spans of the text), content words, numbers."""

import re
from dataclasses import dataclass
from functools import lru_cache

_HEADING = re.compile(r"^([A-Z][A-Za-z/&' -]{2,48}):[ \t]*(.*)$")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]?\s+(?=[\"'(\[]?[A-Z0-9])")
# A full stop after one of these ends no sentence.
_NO_END = re.compile(
    r"(?:\b(?:Fig|Figs|Dr|Mr|Mrs|Ms|St|No|Nos|vs|al|approx|ca|cf|e\.g|i\.e|resp|Inc|Co|Ltd|Prof|Tab)|\b[A-Z])$"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_PLACEHOLDER = re.compile(r"^\s*(?:\[[^\]]*\]|N/?A|None|Redacted|Unknown)?\s*\.?\s*$", re.IGNORECASE)

STOP_WORDS = frozenset(
    """
    a about above after again all also although an and any are as at be because been before being
    between both but by can could did do does during each for from further give had has have he her here
    him his how i if in into is it its itself may might more most name no nor not note of off on once
    one only or other our out over patient patients per same say says she should show so some state such
    summary tell than that the their them then there these they this those through to under until up
    upon us very was we were what when where which while who whom whose why will with within without
    would you your
    """.split()  # noqa: SIM905 - a list of 160 quoted words says no more
)


@dataclass(frozen=True)
class Section:
    """One part of a note; `heading` is "" for text before the first heading."""

    heading: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class ParsedNote:
    text: str
    sections: tuple[Section, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        return tuple(sentence for section in self.sections for sentence in section.sentences)

    def section_named_in(self, question: str) -> Section | None:
        """The section whose heading shares the most words with the question; None where none shares any."""
        asked = content_words(question)
        best = max(self.sections, key=lambda section: _shared(section.heading, asked), default=None)
        return best if best is not None and _shared(best.heading, asked) > 0 else None


@lru_cache(maxsize=512)
def parse_note(text: str) -> ParsedNote:
    """Sections by their headings ("Treatment:"), placeholders such as [Name] and N/A left out."""
    sections: list[Section] = []
    heading, sentences = "", list[str]()
    for line in text.splitlines():
        found = _HEADING.match(line.strip())
        if found:
            sections.append(Section(heading, tuple(sentences)))
            heading, sentences = found.group(1).strip(), []
            line = found.group(2)
        if not _PLACEHOLDER.match(line) and not (not found and _is_title(line)):
            sentences += split_sentences(line)
    sections.append(Section(heading, tuple(sentences)))
    return ParsedNote(text, tuple(section for section in sections if section.sentences))


def split_sentences(text: str) -> list[str]:
    """Sentences as they stand in the text, without the white space around them; list marks are cut off."""
    pieces, start = [], 0
    for end in _SENTENCE_END.finditer(text):
        if text[end.start()] == "." and _NO_END.search(text[start : end.start()]):
            continue
        pieces.append(text[start : end.end()])
        start = end.end()
    pieces.append(text[start:])
    stripped = (re.sub(r"^\s*(?:[-*\u2022]|\d{1,2}[.)])\s+", "", piece).strip() for piece in pieces)
    return [piece for piece in stripped if re.search(r"\w", piece)]


def content_words(text: str) -> set[str]:
    """Lower-case words that carry meaning, with a plural's s cut off."""
    return {stem(word) for word in _WORD.findall(text) if word.lower() not in STOP_WORDS and len(word) > 1}


def stem(word: str) -> str:
    word = word.lower().removesuffix("'s")
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def numbers(text: str) -> set[str]:
    """The numbers of a text as they are written, parts of longer names included (T2 has 2)."""
    return set(_NUMBER.findall(text))


def without_stop(sentence: str) -> str:
    return sentence.rstrip().rstrip(".;,:")


def as_sentence(text: str) -> str:
    """The text with a capital letter and a full stop."""
    text = text.strip()
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!")) else without_stop(text) + "."


def shorten(text: str, num_words: int) -> str:
    """The first words of a text, cut at a comma of the second half and never after "of the"; still a span."""
    matches = list(re.finditer(r"\S+", text))
    if len(matches) <= num_words:
        return text
    cut = text[: matches[num_words - 1].end()]
    comma = cut.rfind(", ")
    cut = cut[:comma] if comma > len(cut) // 2 else cut
    if cut.count("(") > cut.count(")") and cut.rfind("(") > 0:
        cut = cut[: cut.rfind("(")]
    while (last := cut.rsplit(None, 1)) and len(last) == 2 and last[1].lower() in STOP_WORDS:
        cut = last[0]
    return cut.rstrip(" ,;:(")


def lower(text: str) -> str:
    """The text in lower case, each character in its place; patterns without IGNORECASE are twice as fast."""
    lowered = text.lower()
    return lowered if len(lowered) == len(text) else text


def alternatives(words: tuple[str, ...] | list[str], ignore_case: bool = False) -> str:
    """A pattern for any of the words as a whole, the longest first; case matters for all-capital ones."""
    ordered = sorted(words, key=len, reverse=True)
    parts = [
        re.escape(word) if word.isupper() or not ignore_case else f"(?i:{re.escape(word)})"
        for word in ordered
    ]
    return r"(?<![\w-])(?:" + "|".join(parts) + r")(?![\w-])"


def _is_title(line: str) -> bool:
    words = line.split()
    return len(words) <= 6 and bool(words) and line.strip()[-1] not in ".!?" and line.strip().istitle()


def _shared(heading: str, asked: set[str]) -> int:
    return len(content_words(heading) & asked)
