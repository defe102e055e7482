"""What a text says to be there and what it says to be absent."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from asclepius_ray.quality.fidelity.lexicon import Lexicon, Mention
from asclepius_ray.quality.fidelity.polarity import Polarity
from asclepius_ray.quality.fidelity.words import Words

_STEM_CHARACTERS = 5
# What follows them says what is meant: hyperkalemia is no hypertension.
_PREFIX = re.compile(
    r"(?:hyper|hypo|hemo|cardio|gastro|hepato|intra|inter|leuko|lympho|micro|macro|neuro|osteo|para|peri|pneumo"
    r"|poly|psycho|spleno|tachy|brady|thrombo)"
)
_SMALL_WORDS = frozenset("of the in and or a to with on by for".split())


@dataclass(frozen=True)
class Findings:
    """The findings of one text by how it speaks of them."""

    said: dict[Polarity, dict[str, list[Mention]]]
    words: Words
    stems: frozenset[str]
    """Of all words."""
    negated_stems: frozenset[str]
    """Of the words within the reach of a negation."""

    def concepts(self, *polarities: Polarity) -> set[str]:
        return {concept for polarity in polarities for concept in self.said[polarity]}


def read_findings(words: Words, polarity: bytearray, lexicon: Lexicon) -> Findings:
    said: dict[Polarity, dict[str, list[Mention]]] = {kind: {} for kind in Polarity}
    for mention in lexicon.find(words):
        spoken = Polarity(polarity[mention.start])
        said[spoken].setdefault(mention.concept, []).append(mention)
    negated = {word for word, kind in zip(words, polarity, strict=True) if kind == Polarity.NEGATED}
    return Findings(said, words, _stems(words), _stems(negated))


def find_added(text: Findings, source: Findings, lexicon: Lexicon) -> set[str]:
    """Concepts that the text affirms and the source does not speak of at all."""
    mentioned = source.concepts(*Polarity)
    return {
        concept
        for concept, mentions in text.said[Polarity.AFFIRMED].items()
        if concept not in mentioned
        and not any(lexicon.covers(concept, other) for other in mentioned)
        and not any(_is_worded(text, mention, source.stems) for mention in mentions)
    }


def find_contradicted(text: Findings, source: Findings) -> set[str]:
    """Concepts that the text affirms and the source only denies."""
    only_denied = source.concepts(Polarity.NEGATED) - source.concepts(Polarity.AFFIRMED, Polarity.OPEN)
    return set(text.said[Polarity.AFFIRMED]) & only_denied


def find_denied(text: Findings, source: Findings) -> set[str]:
    """Concepts that the text denies and the source only affirms."""
    only_affirmed = source.concepts(Polarity.AFFIRMED) - source.concepts(Polarity.NEGATED, Polarity.OPEN)
    return text.concepts(Polarity.NEGATED) & only_affirmed


def find_unsupported_negations(text: Findings, source: Findings, lexicon: Lexicon) -> set[str]:
    """Concepts that the text denies and the source does not speak of."""
    mentioned = source.concepts(*Polarity)
    denied = source.concepts(Polarity.NEGATED, Polarity.OPEN)
    return {
        concept
        for concept, mentions in text.said[Polarity.NEGATED].items()
        if concept not in mentioned
        and not any(lexicon.covers(other, concept) or lexicon.covers(concept, other) for other in denied)
        and not any(_is_worded(text, mention, source.negated_stems) for mention in mentions)
    }


def _is_worded(text: Findings, mention: Mention, stems: frozenset[str]) -> bool:
    """Whether the source has all words of the name, if not side by side."""
    return _stems(text.words[mention.start : mention.end]) <= stems


def _stems(words: Iterable[str]) -> frozenset[str]:
    stems = {_stem(word) for word in words}
    stems.discard("")
    return frozenset(stems)


# Most words of a text are among the few thousand that all texts share.
@lru_cache(maxsize=1 << 15)
def _stem(word: str) -> str:
    """What the word's forms have in common; "" for a number, a mark or a small word."""
    if not word.isalpha() or word in _SMALL_WORDS:
        return ""
    prefix = _PREFIX.match(word)
    return word[: prefix.end() + _STEM_CHARACTERS - 1 if prefix else _STEM_CHARACTERS]
