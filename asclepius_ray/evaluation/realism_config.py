"""The section `[evaluation.realism]`: which model reads which sets of texts."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from asclepius_ray.config import ModelName, Operational, Section

OWN_NOTES, OWN_INPUT = "run:notes", "run:input"
"""Paths that stand for texts of the run itself."""
_OWN_PREFIX = "run:"


class TextsConfig(Section):
    """`[evaluation.realism.texts.NAME]`: one set of texts, scored as they stand there."""

    path: Annotated[str, Operational(), Field(min_length=1)]
    """A file, a folder or a URI of tables. "run:notes": the notes that the run has made. "run:input": the
    run's own input, its texts cleaned as for the teacher. What counts is the content."""
    column: str = ""
    """The column that holds the text; none for the run's own texts."""
    kind: Literal["case_reports", "synthetic", "real"]
    """What the texts are; the paper asks whether synthetic notes lie among the real ones."""
    limit: int = Field(default=0, ge=0)
    """The first so many rows; 0 = as many as `evaluation.realism.limit` says."""

    @property
    def is_own(self) -> bool:
        return self.path in (OWN_NOTES, OWN_INPUT)

    @model_validator(mode="after")
    def _check_path(self) -> "TextsConfig":
        if self.path.startswith(_OWN_PREFIX) and not self.is_own:
            raise ValueError(f"path {self.path!r}: a run has texts of its own in {OWN_NOTES} and {OWN_INPUT}")
        if self.is_own and self.column:
            raise ValueError(f"column {self.column!r}: {self.path} needs none; leave it out")
        if not (self.is_own or self.column):
            raise ValueError("column is required: name the column that holds the text")
        return self


class RealismConfig(Section):
    """How surprised a causal language model is by each set of texts."""

    model: Annotated[str, ModelName(), Field(min_length=1)] = "trained"
    """"trained" or "untrained" (the run's own), or a Hugging Face folder that every node
    sees, its URI or an id."""
    context_tokens: int = Field(default=0, ge=0)
    """Tokens that the model reads at once; 0 = as many as it can."""
    stride_tokens: int = Field(default=0, ge=0)
    """A longer text is read in windows, each so many tokens behind the one before; 0 = half a context."""
    workers: Annotated[int, Operational(), Field(ge=1)] = 1
    """Ray actors with the model in memory, each on one CPU."""
    use_gpu: Annotated[bool, Operational()] = False
    """Whether each worker has a GPU as well."""
    limit: int = Field(default=0, ge=0)
    """The first so many rows of each set that names no limit of its own; 0 = all."""
    texts: dict[Annotated[str, Field(min_length=1)], TextsConfig] = Field(min_length=1)
    """The sets by name."""

    @model_validator(mode="after")
    def _check_stride(self) -> "RealismConfig":
        if self.context_tokens and self.stride_tokens > self.context_tokens:
            raise ValueError(
                f"stride_tokens is {self.stride_tokens}, more than context_tokens ({self.context_tokens}): "
                "tokens between two windows would be read by none"
            )
        return self

    def fingerprint(self) -> dict[str, Any]:
        """The settings that make the figures; of the sets all but where they lie."""
        sets = {name: texts.fingerprint() for name, texts in sorted(self.texts.items())}
        return super().fingerprint() | {"texts": sets}

    def limit_of(self, name: str) -> int:
        """How many rows of a set are read; 0 = all."""
        return self.texts[name].limit or self.limit
