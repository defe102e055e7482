"""The section `[tokens]`."""

from typing import Annotated, Literal

from pydantic import Field

from asclepius_ray.config import Operational, Section


class TokensConfig(Section):
    sequence_length: int = Field(default=2048, ge=64)
    """Positions of one training row; the paper used 2,048."""
    overlong: Literal["shorten", "reject"] = "shorten"
    """What becomes of a row longer than that. "shorten": sentences of the note in the prompt are left out, as
    in serving, and a note of the phase "notes" is cut into pieces. "reject": it is left out, and counted."""
    max_dropped_share: Annotated[float, Operational(), Field(ge=0, le=1)] = 0.05
    """A larger share of rows without a token to learn from ends the run with an error."""
