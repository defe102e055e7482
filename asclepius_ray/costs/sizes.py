"""How many rows a run has and how long their texts are: what all its costs are reckoned from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from asclepius_ray.config import Section, load_section

if TYPE_CHECKING:
    from asclepius_ray.synthesis.estimate import Estimate

Count = Annotated[int, Field(ge=1)]
Length = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True)
class KeptRows:
    """The rows that are trained on and held out, and the mean lengths of their texts."""

    num_rows: float
    note_characters: float
    question_characters: float
    answer_characters: float


class Sizes(Section):
    """A file of sizes: expected, or measured elsewhere, so that nobody is asked."""

    reports: Count
    """Rows of the input."""
    rows: Count
    """Those of them that come through all checks."""
    report_characters: Length
    note_characters: Length
    question_characters: Length
    answer_characters: Length

    @model_validator(mode="after")
    def _rows_are_of_reports(self) -> "Sizes":
        if self.rows > self.reports:
            raise ValueError(f"rows is {self.rows}, and only {self.reports} reports can become one")
        return self

    def limited(self, limit: int) -> "Sizes":
        """Of the first so many reports alone, of which the same share comes through; 0 = all."""
        if not 0 < limit < self.reports:
            return self
        rows = max(1, round(self.rows * limit / self.reports))
        return self.model_copy(update={"reports": limit, "rows": rows})

    @property
    def kept(self) -> KeptRows:
        return KeptRows(self.rows, self.note_characters, self.question_characters, self.answer_characters)


def load_sizes(path: str) -> Sizes:
    """Reads a file of sizes; a ConfigError names what is wrong with it."""
    return load_section(Sizes, path, "file of sizes", "cluster/sizes/")


def kept_rows(estimate: "Estimate") -> KeptRows:
    """What a sample that was asked for says of the whole input."""
    return KeptRows(
        estimate.num_rows * estimate.num_ok / estimate.num_sampled,
        estimate.note_characters,
        estimate.question_characters,
        estimate.answer_characters,
    )
