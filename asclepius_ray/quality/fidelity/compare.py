"""A note beside its case report, or an answer beside its note → what it says that the other does not."""

import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import cached_property

from asclepius_ray.quality.fidelity.dates import Date, find_counted_days, find_dates, find_durations
from asclepius_ray.quality.fidelity.doses import (
    Medication,
    find_unsupported_doses,
    find_unsupported_drugs,
    read_medication,
)
from asclepius_ray.quality.fidelity.findings import (
    Findings,
    find_added,
    find_contradicted,
    find_denied,
    find_unsupported_negations,
    read_findings,
)
from asclepius_ray.quality.fidelity.kinds import Unfaithful
from asclepius_ray.quality.fidelity.lexicon import drug_lexicon, finding_lexicon
from asclepius_ray.quality.fidelity.polarity import find_polarity
from asclepius_ray.quality.fidelity.quantities import (
    Quantity,
    find_bare_numbers,
    find_quantities,
    find_unsupported,
    spell_numbers,
)
from asclepius_ray.quality.fidelity.sides import Pair, find_sides, find_wrong_sides
from asclepius_ray.quality.fidelity.words import Words, normalize, split_words

_NO_MEDICATION = re.compile(
    r"\b(?:medications?|drugs?|prescriptions?)(?: (?:on|at) (?:discharge|admission))?"
    r"\s*:\s*\n?[\s*-]*(?:none|nil|no\b|n/a|not applicable)(?! known)"
    r"|\bno (?:discharge |home |current |regular )?medications? (?:was|were|is|are|has been|had been)? ?"
    r"(?:prescribed|given|administered|taken|started|needed|required)"
)
_TREATED = re.compile(r"\b(?:medication|drugs|therapy with|treated with|antibiotics?|steroids?|prescribed)\b")


@dataclass
class ReadText:
    """One text; each reading of it is made when a check first asks for it, and then kept.

    Where many texts are held against one source, one ReadText of the source saves most of the time.
    """

    raw: str

    @cached_property
    def normalized(self) -> str:
        return normalize(self.raw)

    @cached_property
    def words(self) -> Words:
        return split_words(self.normalized)

    @cached_property
    def findings(self) -> Findings:
        return read_findings(self.words, find_polarity(self.words), finding_lexicon())

    @cached_property
    def medication(self) -> Medication:
        return read_medication(self.spelt, drug_lexicon())

    @cached_property
    def spelt(self) -> str:
        return spell_numbers(self.normalized)

    @cached_property
    def quantities(self) -> list[Quantity]:
        return find_quantities(self.spelt)

    @cached_property
    def bare_numbers(self) -> set[float]:
        return find_bare_numbers(self.spelt, self.quantities)

    @cached_property
    def sides(self) -> list[Pair]:
        return find_sides(self.words)

    @cached_property
    def dates(self) -> list[Date]:
        return find_dates(self.normalized)


def load_lexicons() -> None:
    """Reads the dictionaries of drugs and findings, which takes a second or two, once a process."""
    drug_lexicon()
    finding_lexicon()


def find_unfaithful(
    note: str, report: str, kinds: Set[Unfaithful] = frozenset(Unfaithful)
) -> Unfaithful | None:
    """The first kind of `kinds` of which the note is guilty, or None.

    Rules on words: they know names, numbers, negations and sides, and understand nothing. Measured on
    seeded corruptions of real case reports by tests/quality/test_fidelity.py.
    """
    text, source = ReadText(note), ReadText(report)
    return next((kind for kind, check in _CHECKS.items() if kind in kinds and check(text, source)), None)


def find_all_unfaithful(note: str, report: str) -> set[Unfaithful]:
    """Every kind of which the note is guilty."""
    return find_kinds(ReadText(note), ReadText(report), frozenset(Unfaithful))


def find_kinds(text: ReadText, source: ReadText, kinds: Set[Unfaithful]) -> set[Unfaithful]:
    """Those of `kinds` of which the text is guilty towards its source."""
    return {kind for kind, check in _CHECKS.items() if kind in kinds and check(text, source)}


def _has_unsupported_number(text: ReadText, source: ReadText) -> bool:
    return bool(find_unsupported(text.quantities, text.spelt, source.quantities, source.bare_numbers))


def _has_unsupported_dose(text: ReadText, source: ReadText) -> bool:
    return bool(find_unsupported_doses(text.medication, source.medication))


def _has_unsupported_drug(text: ReadText, source: ReadText) -> bool:
    return bool(find_unsupported_drugs(text.medication, source.medication, set(source.words)))


def _has_added_finding(text: ReadText, source: ReadText) -> bool:
    return bool(find_added(text.findings, source.findings, finding_lexicon()))


def _has_unsupported_negation(text: ReadText, source: ReadText) -> bool:
    return bool(find_unsupported_negations(text.findings, source.findings, finding_lexicon()))


def _has_contradiction(text: ReadText, source: ReadText) -> bool:
    return bool(find_contradicted(text.findings, source.findings))


def _denies_fact(text: ReadText, source: ReadText) -> bool:
    if find_denied(text.findings, source.findings):
        return True
    denies_medication = _NO_MEDICATION.search(text.normalized) is not None
    return denies_medication and bool(source.medication.drugs or _TREATED.search(source.normalized))


def _has_wrong_side(text: ReadText, source: ReadText) -> bool:
    return bool(find_wrong_sides(text.sides, source.sides))


def _has_unsupported_date(text: ReadText, source: ReadText) -> bool:
    if any(not any(date.agrees_with(other) for other in source.dates) for date in text.dates):
        return True
    days = find_counted_days(text.normalized)
    if not days:
        return False
    return not days <= find_counted_days(source.normalized) | find_durations(source.spelt)


_CHECKS: dict[Unfaithful, Callable[[ReadText, ReadText], bool]] = {
    Unfaithful.DOSE: _has_unsupported_dose,
    Unfaithful.DRUG: _has_unsupported_drug,
    Unfaithful.DENIAL: _denies_fact,
    Unfaithful.CONTRADICTION: _has_contradiction,
    Unfaithful.SIDE: _has_wrong_side,
    Unfaithful.DATE: _has_unsupported_date,
    Unfaithful.NUMBER: _has_unsupported_number,
    Unfaithful.FINDING: _has_added_finding,
    Unfaithful.NEGATION: _has_unsupported_negation,
}
