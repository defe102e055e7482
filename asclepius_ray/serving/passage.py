"""The passages of a note that an answer leans on: note and answer → ranges of characters of the note. Pure.

Each statement of the answer takes the sentences of the note that hold its words, numbers and dates: first
the one that holds most of their weight, then those that add much to it. A word weighs the more the fewer
sentences of the note have it. A statement with too little of its weight in the note takes none, and
neither does one which says that the note does not say something.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

from asclepius_ray.quality.fidelity.dates import find_dates
from asclepius_ray.quality.fidelity.quantities import UNITS
from asclepius_ray.quality.fidelity.words import normalize

# Chosen on the answers of every other labelled note of the tests; the rest of the notes measure them.
LEAST_SUPPORT = 0.42
"""The share of a statement's weight that its sentences must hold together."""
LEAST_GAIN = 0.16
"""The share that a further sentence must add."""
LEAST_GAIN_IN_LIST = 0.07
"""The same for a statement of many items, each of which may stand in a sentence of its own."""
LIST_COMMAS = 3
MOST_PASSAGES = 12

# What a term weighs against a word that as many sentences of the note have.
ABSENT_WEIGHT = 0.7
FRAME_WEIGHT = 0.4
SMALL_NUMBER_WEIGHT = 0.6
NUMBER_WEIGHT = 1.5

_WEAK_WORDS = frozenset(
    """
    a about above after again all also although an and any are as at be because been before being both
    but by can could did do does doing done due during each either for from further given had has have
    having he her here hers him his how however i if in include includes included including indicate
    indicated into is it its itself like likely listed made may mention mentioned mentions might more
    most much must my name named no nor not note noted notes now of on once one only or other our out
    over own patient patients per provide provided refer refers referred same say says she should since
    so some stand stands state stated such suggest suggested summary than that the their them then there
    these they this those through throughout to too under until up upon used using very was we were what
    when where whether which while who whom whose why will with within without would yes yet you your
    """.split()
)
"""They say nothing of a patient, or of any: no term is made of them."""
_FRAME_WORDS = frozenset(
    """
    admission admit admitted age aged boy condition course day days diagnosed diagnoses diagnosis
    discharge discharged examination exam female find finding findings follow followed following
    followup girl give given history hospital hospitalization initial initially instructed instructions
    man male medical medication medications old performed physical plan postoperative present presented
    presenting procedure procedures prescribed receive received result results stable status stay
    symptom symptoms take taken time treated treatment undergo underwent week weeks woman year years
    """.split()
)
"""They stand in every note, so that two texts which share them need not speak of the same thing."""
_ABSENCE = re.compile(
    r"\b(?:no|without) (?:\w+ )?(?:mention|information|indication|record)\b"
    r"|\bno \w+ \w+ (?:mentioned|stated|given)\b"
    r"|\bnot (?:\w+ )?(?:mention|provid|specif|stat|report|indicat|document|includ|explicit|describ|contain)"
    r"|\b(?:do|does) not (?:\w+ )?(?:say|give|list|raise)\b|\b(?:unclear|unspecified|unmentioned|unknown)\b"
    r"|\bnot clear\b|\bn/a\b"
)
"""In a normalized statement: it says that something is not in the note."""
_LINE = re.compile(r"[^\r\n]+")
_BORDER = re.compile(
    r"(?P<end>(?<![.?!])[.?!]+[\"'”’)\]]*)(?=\s+[\"'“‘(\[]?[A-Z0-9_])"
    # Transcripts that lost their line ends have commas for them: "None.,PLAN:,  Rest.", "DIAGNOSES:,1. Gout."
    r"|[.?!]\s*,(?=\s*[A-Z0-9])|,(?=[A-Z][A-Z /&-]{3,}[,:])|(?<=[A-Za-z:]),(?=\d{1,2}\.\s)"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:dr|mr|mrs|ms|prof|st|vs|no|fig|approx|e\.g|i\.e|ca|cf|jr|sr|[A-Z])\.$", re.IGNORECASE
)
_LIST_NUMBER = re.compile(r"\s*\d{1,2}[.)](?:\s+|$)")
_HEADING = re.compile(r"[A-Z][A-Z /&()-]+")
_TURN = re.compile(r",? (?:but|however|although|though) ")
_TERM = re.compile(r"\d+(?:[.,:/]\d+)*|[^\W\d_][^\W_]*(?:&[^\W_]+)?(?:'[a-z]+)?")
_ENDINGS = (
    ("ations", "at"),
    ("ically", "ic"),
    ("ation", "at"),
    ("edly", ""),
    ("sses", "ss"),
    ("ies", "y"),
    ("ing", ""),
    ("ed", ""),
    ("es", ""),
    ("ly", ""),
    ("s", ""),
    ("e", ""),
)
_SHORTEST_STEM = 4


@dataclass(frozen=True)
class Passage:
    """`note[start:end]`, and the share of a statement's weight that it holds, from 0 to 1."""

    start: int
    end: int
    score: float


@dataclass(frozen=True)
class _Sentence:
    start: int
    end: int
    terms: frozenset[str]


def find_passages(note: str, answer: str, ranges: Sequence[tuple[int, int]] | None = None) -> list[Passage]:
    """The passages in the order of the note; an empty list where it holds too little of the answer.

    Only these ranges of the note are searched, all of it where none are given. The offsets count characters
    as `str` does; JavaScript counts a character beyond U+FFFF as two.
    """
    index = _Index(list(_sentences_within(note, [(0, len(note))] if ranges is None else ranges)))
    best: dict[_Sentence, float] = {}
    for statement in _split_statements(answer):
        for sentence, score in _support(statement, index):
            best[sentence] = max(score, best.get(sentence, 0.0))
    likeliest = sorted(best, key=lambda sentence: (-best[sentence], sentence.start))[:MOST_PASSAGES]
    likeliest.sort(key=lambda sentence: sentence.start)
    return [Passage(sentence.start, sentence.end, round(best[sentence], 3)) for sentence in likeliest]


def _sentences_within(note: str, ranges: Sequence[tuple[int, int]]) -> Iterator[_Sentence]:
    for first, last in ranges:
        for start, end in split_sentences(note[first:last]):
            text = note[first + start : first + end]
            if not _is_heading(text):
                yield _Sentence(first + start, first + end, find_terms(text))


def split_sentences(text: str) -> Iterator[tuple[int, int]]:
    """The ranges of the sentences, without spaces and list marks around them; each line's end is one too."""
    for line in _LINE.finditer(text):
        start = line.start()
        for border in _BORDER.finditer(text, line.start(), line.end()):
            piece = text[max(start, border.end() - 12) : border.end()]
            if _LIST_NUMBER.fullmatch(piece) or (border["end"] and _ABBREVIATION.search(piece)):
                continue
            yield from _strip(text, start, border.end())
            start = border.end()
        yield from _strip(text, start, line.end())


def find_terms(text: str) -> frozenset[str]:
    """What is compared: stems of words that say something, numbers, numbers with their unit, dates."""
    normalized = normalize(text[_length_of_list_number(text) :]).replace("discharge summary", " ")
    words = _TERM.findall(normalized)
    terms = {_stem(word) for word in words if word not in _WEAK_WORDS and len(word) > 1}
    numbered = [place for place, word in enumerate(words) if word[0].isdigit()]
    for place in numbered:
        terms.add(words[place])
        unit = words[place + 1] if place + 1 < len(words) else ""
        if unit in UNITS:
            dimension, factor = UNITS[unit]
            terms.add(f"{words[place]} {dimension} {factor:g}")
    if numbered:
        terms |= {
            # Day and month in one order: 09/04/2007 may be written on either side of the Atlantic.
            f"{date.year} {min(date.month, date.day)} {max(date.month, date.day)}"
            for date in find_dates(normalized)
            if date.month and date.day
        }
    return frozenset(terms)


class _Index:
    """Which sentences of a note hold a term, and what it weighs there."""

    def __init__(self, sentences: Sequence[_Sentence]) -> None:
        self._num_sentences = len(sentences)
        self._holders: defaultdict[str, list[_Sentence]] = defaultdict(list)
        for sentence in sentences:
            for term in sentence.terms:
                self._holders[term].append(sentence)

    def sentences_with(self, terms: Set[str]) -> set[_Sentence]:
        return {sentence for term in terms for sentence in self._holders.get(term, ())}

    def weigh(self, terms: Set[str]) -> float:
        # fsum: the same in every process, in whatever order a set of strings is there.
        return math.fsum(self._weight(term) for term in terms)

    def _weight(self, term: str) -> float:
        num_holders = len(self._holders.get(term, ()))
        if num_holders:
            weight = math.log(1 + self._num_sentences / num_holders)
        else:
            weight = ABSENT_WEIGHT * math.log(1 + self._num_sentences)
        if term in _FRAME_STEMS:
            return weight * FRAME_WEIGHT
        if term[0].isdigit():
            return weight * (SMALL_NUMBER_WEIGHT if len(term) == 1 else NUMBER_WEIGHT)
        return weight


def _support(statement: str, index: _Index) -> list[tuple[_Sentence, float]]:
    """The sentences that hold the statement, each with the share of it that it holds."""
    terms = find_terms(statement)
    total = index.weigh(terms)
    if not total or _ABSENCE.search(normalize(statement)):
        return []
    least_gain = LEAST_GAIN_IN_LIST if statement.count(",") >= LIST_COMMAS else LEAST_GAIN
    missing = set(terms)
    found: list[tuple[_Sentence, float]] = []
    while missing:
        gains = {one: index.weigh(one.terms & missing) / total for one in index.sentences_with(missing)}
        # Of equal ones the shortest, which says least else, and of these the first.
        best = max(gains, key=lambda one: (gains[one], -len(one.terms), -one.start), default=None)
        if best is None or gains[best] < least_gain:
            break
        found.append((best, index.weigh(best.terms & terms) / total))
        missing -= best.terms
    return found if index.weigh(terms - missing) >= LEAST_SUPPORT * total else []


def _length_of_list_number(text: str) -> int:
    match = _LIST_NUMBER.match(text)
    return match.end() if match else 0


def _split_statements(answer: str) -> Iterator[str]:
    """Its sentences, and both sides of a "but", of which one may say that the note lacks something."""
    for start, end in split_sentences(answer):
        yield from _TURN.split(answer[start:end])


def _is_heading(sentence: str) -> bool:
    return sentence.rstrip(" \t,.0123456789").endswith(":") or _HEADING.fullmatch(sentence) is not None


def _strip(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end].rstrip(" \t,")
    kept = piece.lstrip(" \t,-*•–")
    if kept:
        yield start + len(piece) - len(kept), start + len(piece)


@lru_cache(maxsize=8192)
def _stem(word: str) -> str:
    """The word without its ending: two forms of one word become the same, and need not stay readable."""
    word = word.removesuffix("'s")
    for ending, put in _ENDINGS:
        shortest = _SHORTEST_STEM - (len(ending) == 1)
        if word.endswith(ending) and len(word) - len(ending) >= shortest:
            if ending == "s" and word[-2] in "su":
                break
            word = word[: -len(ending)] + put
            break
    if len(word) > _SHORTEST_STEM and word[-1] == word[-2] and word[-1] not in "sl":
        word = word[:-1]
    return word.removesuffix("e") if len(word) > _SHORTEST_STEM else word


_FRAME_STEMS = frozenset(_stem(word) for word in _FRAME_WORDS)
