"""The section `[evaluation]`."""

from typing import Annotated, Literal

from pydantic import Field

from asclepius_ray.config import Operational, Section

MODEL_FOLDERS = {"trained": "model", "untrained": "base_model"}
"""A model's name in `evaluation.models` → its folder in the run."""


class EvaluationConfig(Section):
    models: tuple[Literal["trained", "untrained"], ...] = Field(
        default=("trained", "untrained"), min_length=1
    )
    """The models under evaluation: the run's own `model/` and `base_model/`."""
    test_set: Literal["validation"] = "validation"
    """The held-out rows of the run's own dataset."""
    limit: int = Field(default=0, ge=0)
    """The first so many held-out rows; 0 = all."""
    max_new_tokens: int = Field(default=400, ge=1)
    """The longest answer asked for; the paper's 400."""
    max_in_flight: Annotated[int, Operational(), Field(ge=1)] = 16
    """Items that are answered at the same time."""
    timeout_seconds: Annotated[float, Operational(), Field(gt=0)] = 600.0
    """The longest wait for one answer of a served model; on a CPU it shares the time with all others."""
    use_gpu: Annotated[bool, Operational()] = False
    """Whether the answer loss is computed on a GPU."""
