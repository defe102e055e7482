"""The records on the arrows between the stages: one frozen type each, and nothing that does work."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

_UID_OF_AN_ARTICLE = re.compile(r"([^-]*\d)-\d+")


class Task(StrEnum):
    """The eight tasks of the paper (section 3); the values are the published data set's names."""

    NAMED_ENTITY_RECOGNITION = "Named Entity Recognition"
    ABBREVIATION_EXPANSION = "Abbreviation Expansion"
    RELATION_EXTRACTION = "Relation Extraction"
    TEMPORAL_INFORMATION_EXTRACTION = "Temporal Information Extraction"
    COREFERENCE_RESOLUTION = "Coreference Resolution"
    PARAPHRASING = "Paraphrasing"
    SUMMARIZATION = "Summarization"
    QUESTION_ANSWERING = "Question Answering"

    @property
    def slug(self) -> str:
        """The name in lower case with underscores, as in file names."""
        return self.value.lower().replace(" ", "_")


def article_of(patient_uid: str) -> str:
    """The article that a patient comes from: a uid's part before the dash, as PMC-Patients has it.

    A uid of another form ("CASE-1" of one's own table) stands for an article of its own.
    """
    match = _UID_OF_AN_ARTICLE.fullmatch(patient_uid)
    return match[1] if match else patient_uid


@dataclass(frozen=True)
class CaseReport:
    """One patient of the input, cleaned.

    row_index: position in the input, from 0. row_id: patient_uid where the input has one.
    age_years: None where the input has no readable age. kind "notes": `text` is already a note.
    """

    row_index: int
    row_id: str
    patient_id: int
    patient_uid: str
    text: str
    age_years: float | None
    gender: str

    @property
    def article(self) -> str:
        """The article that the patient comes from."""
        return article_of(self.patient_uid)

    def to_row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "CaseReport":
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Rejection:
    """One row of the input that is not in the dataset.

    state: "rejected" (its content is unfit) or "failed" (the teacher did not give an answer).
    stage: "input", "note", "question", "answer". reason: a short code, never text of the row.
    """

    row_index: int
    row_id: str
    state: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Example:
    """One row of the dataset; the columns are those that the paper's authors published,
    and patient_uid, the stable key of the patient."""

    patient_id: int
    patient_uid: str
    note: str
    question: str
    answer: str
    task: str

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Example":
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Message:
    """One turn of a chat; role is "system", "user" or "assistant"."""

    role: str
    content: str
