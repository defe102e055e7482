"""The section `[tokens]`."""

from pydantic import Field

from asclepius_ray.config import Section


class TokensConfig(Section):
    sequence_length: int = Field(default=2048, ge=64)
    """Positions of one training row; the paper used 2,048."""
