"""Which drug a text gives at which dose, and what it calls a drug."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from asclepius_ray.quality.fidelity.lexicon import AMBIGUOUS_DRUGS, Lexicon
from asclepius_ray.quality.fidelity.quantities import Quantity, find_quantities
from asclepius_ray.quality.fidelity.words import split_words

_DOSED_IN = {"mass", "mass/kg", "mass/m2", "units", "units/kg", "units/m2", "equivalents", "moles"}
_FAR_BEFORE_WORDS, _FAR_AFTER_WORDS = 8, 3
_DIGIT = re.compile(r"\d")
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")
# Endings of international nonproprietary names (WHO's stem book) that no other English word has.
_DRUG_ENDING = re.compile(
    r"\w{2,}(?:mab|tinib|ciclib|parib|platin|rubicin|taxel|sartan|olol|pril|statin|prazole|conazole|floxacin"
    r"|cillin|mycin|micin|cycline|penem|oxetine|azepam|zolam|gliptin|gliflozin|glutide|xaban|gatran|parin"
    r"|setron|triptan|dipine|caine|vir|barbital|curonium|olone|asone|isone|terol|tropium|lukast|thiazide"
    r"|semide|zosin|zepine|apine|idone|stigmine|trexate|limus|dronate|formin|glitazone|fibrate)"
)
_ROUTE = (
    r"(?:iv|im|po|sc|orally|oral|intravenous(?:ly)?|tablets?|capsules?|injections?|infusions?|daily|twice"
    r"|bid|tid|qd)"
)
_NEAR_DOSE = re.compile(rf"([a-z]{{6,}})[\s,:(-]+(?:(?:at|dose|of|a|\d[\d.,]*)\s+)*(?:\d|{_ROUTE}\b)")


@dataclass(frozen=True)
class Dose:
    """A drug by its generic name, and one dose that is given of it."""

    drug: str
    quantity: Quantity


@dataclass(frozen=True)
class Medication:
    """What one text says of drugs."""

    drugs: frozenset[str]
    """Generic names."""
    doses: tuple[Dose, ...]
    quantities_beside: dict[str, list[Quantity]]
    """Drug → every quantity in the sentences that name it and in the next ones."""
    unknown: frozenset[str]
    """Words of no lexicon that look like a drug's name and stand beside a dose, a route or a frequency."""


def read_medication(spelt: str, lexicon: Lexicon) -> Medication:
    """All drugs and doses of a text that `quantities.spell_numbers` has read."""
    drugs: set[str] = set()
    doses: list[Dose] = []
    beside: dict[str, list[Quantity]] = {}
    named_before: set[str] = set()
    for sentence in _SENTENCE.split(spelt):
        has_number = _DIGIT.search(sentence) is not None
        quantities = (
            [one for one in find_quantities(sentence) if one.dimension in _DOSED_IN] if has_number else []
        )
        named = _drugs_in(sentence, lexicon, quantities)
        for drug in {name for name, _position in named} or named_before:
            beside.setdefault(drug, []).extend(quantities)
        doses += _pair(named, quantities, sentence)
        named_before = {name for name, _position in named}
        drugs |= named_before
    return Medication(frozenset(drugs), tuple(doses), beside, _unknown_drugs(spelt, lexicon))


def find_unsupported_drugs(medication: Medication, source: Medication, source_words: set[str]) -> set[str]:
    """Drugs, and words that look like one, that the source does not hold under any of their names."""
    known = {drug for drug in medication.drugs - source.drugs if not set(drug.split()) <= source_words}
    return known | (medication.unknown - source_words)


def find_unsupported_doses(medication: Medication, source: Medication) -> list[Dose]:
    """Doses of drugs that the source gives too, but never so."""
    return [
        dose
        for dose in medication.doses
        if source.quantities_beside.get(dose.drug)
        and not any(dose.quantity.may_round(other) for other in source.quantities_beside[dose.drug])
    ]


def _drugs_in(sentence: str, lexicon: Lexicon, quantities: Sequence[Quantity]) -> list[tuple[str, int]]:
    """(generic name, position in the sentence) of each drug."""
    words = split_words(sentence)
    found, position = [], 0
    for mention in lexicon.find(words):
        word = words[mention.start]
        position = sentence.index(word, position)
        if word not in AMBIGUOUS_DRUGS or _is_beside(sentence, position, quantities):
            found.append((mention.concept, position))
        position += len(word)
    return found


def _is_beside(sentence: str, position: int, quantities: Sequence[Quantity]) -> bool:
    doses = [one for one in quantities if "volume" not in one.dimension]
    return any(_words_between(sentence, position, one) <= _FAR_AFTER_WORDS for one in doses)


def _pair(named: list[tuple[str, int]], quantities: Sequence[Quantity], sentence: str) -> list[Dose]:
    """Each quantity with the drug that it most likely belongs to."""
    doses = []
    for quantity in quantities:
        near = []
        for drug, position in named:
            distance = _words_between(sentence, position, quantity)
            if position > quantity.end and distance <= _FAR_AFTER_WORDS:
                near.append((distance, drug))
            elif position < quantity.start and distance <= _FAR_BEFORE_WORDS:
                near.append((distance + 1, drug))
        if near:
            doses.append(Dose(min(near)[1], quantity))
    return doses


def _words_between(sentence: str, position: int, quantity: Quantity) -> int:
    if position > quantity.end:
        return len(sentence[quantity.end : position].split())
    return max(0, len(sentence[position : quantity.start].split()) - 1)


def _unknown_drugs(spelt: str, lexicon: Lexicon) -> frozenset[str]:
    candidates = set(_NEAR_DOSE.findall(spelt))
    return frozenset(word for word in candidates if _DRUG_ENDING.fullmatch(word) and not lexicon.find([word]))
