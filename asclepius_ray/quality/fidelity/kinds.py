"""The kinds of unfaithfulness; each is a reason code, and can be switched off by its name."""

from enum import StrEnum


class Unfaithful(StrEnum):
    """What a note says that its case report does not, or denies although the report says it."""

    NUMBER = "unsupported_number"
    """A number with a unit."""
    DOSE = "unsupported_dose"
    """A dose of a drug that the report gives at other doses."""
    DRUG = "unsupported_drug"
    FINDING = "unsupported_finding"
    """A disease, symptom or sign that the report does not mention."""
    NEGATION = "unsupported_negation"
    """Something is said to be absent of which the report does not say so."""
    CONTRADICTION = "contradicted_finding"
    """A finding that the report says to be absent."""
    DENIAL = "denied_fact"
    """A finding, or all medication, is said to be absent, and the report has it."""
    SIDE = "wrong_side"
    """Left for right, or both for one."""
    DATE = "unsupported_date"
