"""The sections `[input]` and `[synthesis]`."""

from typing import Annotated, Literal

from pydantic import Field

from asclepius_ray.config import Operational, Section
from asclepius_ray.quality.fidelity.kinds import Unfaithful
from asclepius_ray.synthesis.mimic import DISCHARGE_SUMMARY


class ColumnsConfig(Section):
    """`[input.columns]`: the names that one's own table uses; empty = recognised by the usual names."""

    patient_id: str = ""
    patient_uid: str = ""
    text: str = ""
    age: str = ""
    gender: str = ""


class InputConfig(Section):
    """Where the case reports come from."""

    path: Annotated[str, Operational()] = ""
    """A file, a folder or a URI: CSV, a JSON array, JSON lines or Parquet. What counts is the content."""
    kind: Literal["case_reports", "notes"] = "case_reports"
    """"notes": the text is a real note already, and leaves this machine only for trusted hosts."""
    note_category: str = DISCHARGE_SUMMARY
    """Of a table in the layout of MIMIC-III's NOTEEVENTS: the CATEGORY that is taken; "" = all."""
    limit: int = Field(default=0, ge=0)
    """The first so many rows; 0 = all."""
    licence: str = ""
    """Of the texts, for the dataset's card; "" = that of PMC-Patients or MIMIC-III if it is their table, else
    unknown."""
    columns: ColumnsConfig = ColumnsConfig()


class SynthesisConfig(Section):
    """How the dataset is made."""

    workers: Annotated[int, Operational(), Field(ge=1)] = 2
    """Ray actors that ask the teacher."""
    cpus_per_worker: Annotated[float, Operational(), Field(gt=0)] = 0.1
    """What Ray keeps for each: a worker mostly waits. On a cluster that grows with what is asked for it says
    how many nodes come for the workers."""
    validation_share: float = Field(default=0.05, gt=0, lt=1)
    """Share of the articles (not of the rows) that is held out; at least one article."""
    pilot_rows: int = Field(default=400, ge=0)
    """The first so many rows see seed questions alone; their own are examples for the rest."""
    min_note_words: int = Field(default=30, ge=1)
    """A shorter note is rejected (the paper dropped extremely short ones)."""
    reject_note_placeholders: bool = False
    """A note with a bracket such as [Name] is rejected; about a third of the published ones hold one."""
    fidelity: tuple[Unfaithful, ...] = tuple(Unfaithful)
    """Kinds of unfaithfulness to its case report for which a note is rejected; [] = none."""
    max_note_similarity: float = Field(default=0.9, gt=0, le=1)
    """A note as similar as this to an earlier one is rejected (share of common five-word runs)."""
    max_failed_share: Annotated[float, Operational(), Field(ge=0, le=1)] = 0.05
    """More failed rows than this share end the run with an error."""
