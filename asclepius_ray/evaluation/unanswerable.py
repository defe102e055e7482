"""Items of a test set → items that cannot be answered: a note with the question of another one. Pure.

A question fits a note only if it shares no content word with it and asks about something that its own note
names. Never used are questions that a right "no" answers, and those that can be answered without a note (a
sentence to rephrase, an abbreviation or a term to explain). Of 30 pairs made from the real questions of
camel_eval_500.jsonl and read one by one, none could be answered from its note, and one (what a drug has to
do with the disease it is given for) could from general knowledge.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from asclepius_ray.evaluation.content_words import beginnings, content_words
from asclepius_ray.evaluation.records import Item, ItemKind

# A note that does not have what is asked about may well be answered with a right "no".
_YES_OR_NO = (
    r"^\W*(?:was|were|is|are|did|does|do|has|have|had)\b|\b(?:whether|if)\b"
    r"|\b(?:yes|true)\s*(?:/|or)\s*(?:no|false)\b"
    r"|^\W*(?:can|could) (?:you|we)\b[^?]*\b(?:any|possible)\b"
)
# Answerable from general knowledge, or from what the question itself brings along.
_NEEDS_NO_NOTE = (
    r"\b(?:stands? for|expand\w*|abbreviat\w+|acronyms?|full (?:form|name)|rephras\w+|paraphras\w+"
    r"|re-?word\w*|restat\w+|rewrit\w+|simpl\w+|layman\w*|your own words|defin\w+|mean(?:s|ing|t)?"
    r"|medical terms?|normali[sz]\w+|standardi[sz]\w+|generic name|icd|snomed|how to|examples?|generate|write"
    r"|create|compose|draft|(?:type|kind|category|class) of)\b"
    r"|^\W*what (?:is|are) (?!(?:the|her|his|their|its|this|that|these|those)\b)"
    r"|\bbetween (?!.*\b(?:patient|baby|infant|child|mother|woman|man|her|his|their|this|these))"
    r"|[\"\u201c\u201d]"
)
_UNFIT = re.compile(f"{_YES_OR_NO}|{_NEEDS_NO_NOTE}", re.IGNORECASE)
_ASIDE = re.compile(r"\([^()]*\)")


@dataclass(frozen=True)
class _Note:
    """A note; of its items the one stands for it that leaves most room for a longer question."""

    item: Item
    words: frozenset[str]
    own_questions: frozenset[str]


@dataclass
class _Uses:
    """Questions by how often they were used: of each level a set of bits, one a question."""

    levels: list[int]

    def take(self, eligible: int) -> int | None:
        """The place of the least used of the eligible questions, which counts as used once more."""
        for level, questions in enumerate(self.levels):
            fitting = questions & eligible
            if fitting:
                lowest = fitting & -fitting
                self.levels[level] ^= lowest
                if level + 1 == len(self.levels):
                    self.levels.append(0)
                self.levels[level + 1] |= lowest
                return lowest.bit_length() - 1
        return None


def pair_unanswerable(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """At most `count` items of a note and a question that the note cannot answer; fewer where no more exist.

    The notes take turns, each with the question that has been used least so far of those that fit it: the
    uses of two notes differ by one at most while both have questions left. The same items in any order and
    the same seed give the same pairs, and a larger count begins with those of a smaller one.
    """
    tests = sorted((item for item in items if item.kind == ItemKind.TEST), key=lambda item: item.item_id)
    notes = _shuffled_notes(tests, seed)
    questions = _shuffled_questions(tests, notes, seed)
    eligible = _match(notes, questions)
    uses = _Uses([(1 << len(questions)) - 1])
    pairs: list[Item] = []
    turn = 1
    while len(pairs) < count and any(eligible.values()):
        for note in notes:
            place = uses.take(eligible[note.item.note_id]) if len(pairs) < count else None
            if place is not None:
                eligible[note.item.note_id] ^= 1 << place
                pairs.append(_pair(note.item, questions[place], turn))
        turn += 1
    return pairs


def _pair(note: Item, question: Item, turn: int) -> Item:
    return replace(
        note,
        item_id=f"{note.note_id}|unanswerable|{turn}",
        kind=ItemKind.UNANSWERABLE.value,
        task=question.task,
        question=question.question,
        reference="",
    )


def _shuffled_notes(tests: Sequence[Item], seed: int) -> list[_Note]:
    by_note: dict[str, list[Item]] = defaultdict(list)
    for item in tests:
        by_note[item.note_id].append(item)
    notes = [
        _Note(
            min(own, key=lambda item: len(item.asked_note)),
            frozenset().union(*(_beginnings(text) for text in {item.note for item in own})),
            frozenset(_folded(item.question) for item in own),
        )
        for own in by_note.values()
    ]
    return sorted(notes, key=lambda note: _draw(seed, "note", note.item.note_id))


def _shuffled_questions(tests: Sequence[Item], notes: Sequence[_Note], seed: int) -> list[Item]:
    """One item for each question that can be used."""
    words_of = {note.item.note_id: note.words for note in notes}
    usable: dict[str, Item] = {}
    for item in tests:
        if not _UNFIT.search(item.question) and _asked(item.question) & words_of[item.note_id]:
            usable.setdefault(_folded(item.question), item)
    return sorted(usable.values(), key=lambda item: _draw(seed, "question", item.item_id))


def _match(notes: Sequence[_Note], questions: Sequence[Item]) -> dict[str, int]:
    """Per note the questions that fit it, as bits, since sets are slow with thousands of both."""
    with_word: dict[str, int] = defaultdict(int)
    with_text: dict[str, int] = {}
    for place, item in enumerate(questions):
        with_text[_folded(item.question)] = 1 << place
        for word in _asked(item.question):
            with_word[word] |= 1 << place
    every = (1 << len(questions)) - 1
    return {note.item.note_id: every & ~_all_bits(note, with_word, with_text) for note in notes}


def _all_bits(note: _Note, with_word: dict[str, int], with_text: dict[str, int]) -> int:
    taken = 0
    for bits in _bits(note, with_word, with_text):
        taken |= bits
    return taken


def _bits(note: _Note, with_word: dict[str, int], with_text: dict[str, int]) -> Iterator[int]:
    yield from (with_word[word] for word in note.words if word in with_word)
    yield from (with_text[text] for text in note.own_questions if text in with_text)


def _asked(question: str) -> frozenset[str]:
    """What a question is about; an aside "(e.g. infectious, respiratory)" is not it."""
    return _beginnings(_ASIDE.sub(" ", question))


def _beginnings(text: str) -> frozenset[str]:
    return beginnings(content_words(text))


def _folded(question: str) -> str:
    return " ".join(question.casefold().split())


def _draw(seed: int, what: str, key: str) -> bytes:
    return hashlib.sha256(f"{seed}|{what}|{key}".encode()).digest()
