"""The section `[evaluation]`."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.config import Operational, Section
from asclepius_ray.evaluation.realism_config import RealismConfig

MODEL_FOLDERS = {"trained": "model", "untrained": "base_model"}
"""A run's own model under its name in `evaluation.models` → its folder in the run."""
VALIDATION = "validation"
JUDGE = "judge"
"""The name of the judge of the section `[judge]`."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a model's or judge's name here has letters, digits, dots, hyphens and underscores, 64 at most, "
            "and begins with a letter or a digit"
        )
    return name


Name = Annotated[str, AfterValidator(_check_name)]


class TestColumnsConfig(Section):
    """`[evaluation.columns]`: the columns of a table of one's own; "" = there is none."""

    note: str = "note"
    question: str = "question"
    task: str = ""
    reference: str = ""
    """The right answer, where one is known."""
    item_id: str = ""
    """"" = the number of the row."""


class EvaluationConfig(Section):
    """Who is evaluated, on what, by whom."""

    models: tuple[Name, ...] = Field(default=("trained", "untrained"), min_length=1)
    """"trained" and "untrained" are the run's own; others stand in `endpoints` or `answer_columns`."""
    endpoints: dict[Name, EndpointConfig] = Field(default_factory=dict)
    """`[evaluation.endpoints.NAME]`: a model at an address, or in a folder (model_path) that is served
    meanwhile."""
    answer_columns: dict[Name, str] = Field(default_factory=dict)
    """Model → the column of the test set's table with the answers that it gave."""
    judges: dict[Name, EndpointConfig] = Field(default_factory=dict)
    """`[evaluation.judges.NAME]`: further judges beside that of `[judge]`."""
    test_set: str = VALIDATION
    """The held-out rows of the run's own dataset, or a table: CSV, JSON, JSON lines or Parquet."""
    columns: TestColumnsConfig = TestColumnsConfig()
    real_notes: bool = True
    """Whether a table of one's own holds real notes: they leave this machine only for trusted hosts, and the
    report shows none of them."""
    limit: int = Field(default=0, ge=0)
    """The first so many rows; 0 = all."""
    unanswerable: int = Field(default=0, ge=0)
    """So many further items whose question belongs to another note: to decline is right there."""
    protocol: Literal["together", "single"] = "together"
    """"together": all models' answers to an item in one prompt, as in the paper; "single": each alone."""
    orders: int = Field(default=2, ge=1)
    """How often an item is judged, each time with the answers in another order."""
    reasons: bool = False
    """Whether the judge says why."""
    against: Name | Literal[""] = ""
    """The model against which the others win, tie or lose; "" = the last of `models`."""
    max_new_tokens: int = Field(default=400, ge=1)
    """The longest answer asked for; the paper's 400."""
    budget_usd: Annotated[float, Operational(), Field(ge=0)] = 0.0
    """What all models and judges together may cost, over all runs on one root; 0 = no cap. Every address that
    is asked needs a price."""
    max_in_flight: Annotated[int, Operational(), Field(ge=1)] = 16
    """Items that are worked on at the same time."""
    timeout_seconds: Annotated[float, Operational(), Field(gt=0)] = 600.0
    """The longest wait for one answer of a served model; on a CPU it shares the time with all others."""
    use_gpu: Annotated[bool, Operational()] = False
    """Whether the answer loss is computed on a GPU."""
    realism: RealismConfig | None = None
    """`[evaluation.realism]`: how surprised a model is by sets of texts; none unless it is there."""

    @property
    def own_models(self) -> tuple[str, ...]:
        """Those of the run itself."""
        return tuple(name for name in self.models if name in MODEL_FOLDERS)

    def source_of(self, model: str) -> str:
        """ "endpoint", "folder" or "file"."""
        if model in self.answer_columns:
            return "file"
        return "folder" if model in self.served_models else "endpoint"

    @property
    def served_models(self) -> tuple[str, ...]:
        """Those that are served while they are evaluated."""
        return self.own_models + tuple(name for name, found in self.endpoints.items() if found.model_path)

    @property
    def compared_model(self) -> str:
        return self.against or self.models[-1]

    @property
    def has_own_table(self) -> bool:
        return self.test_set != VALIDATION

    @model_validator(mode="after")
    def _check_models(self) -> "EvaluationConfig":
        places = [set(MODEL_FOLDERS), set(self.endpoints), set(self.answer_columns)]
        for name in self.models:
            found = sum(name in place for place in places)
            if not found:
                raise ValueError(
                    f"models names {name!r}, which is none of the run's own ({', '.join(MODEL_FOLDERS)}) and "
                    f"stands neither in [evaluation.endpoints.{name}] nor in [evaluation.answer_columns]"
                )
            if found > 1:
                raise ValueError(f"the model {name!r} is described in more than one place; keep one of them")
        if len(set(self.models)) < len(self.models):
            raise ValueError("models names a model twice")
        if unused := sorted((self.endpoints.keys() | self.answer_columns.keys()) - set(self.models)):
            raise ValueError(f"{unused[0]!r} is described, but models does not name it")
        if self.against and self.against not in self.models:
            raise ValueError(f"against is {self.against!r}, which is none of models")
        if JUDGE in self.judges:
            raise ValueError(
                f"the judge {JUDGE!r} is that of the section [judge]; give this one another name"
            )
        return self

    @model_validator(mode="after")
    def _check_orders(self) -> "EvaluationConfig":
        most = most_orders(len(self.models)) if self.protocol == "together" else 1
        if "orders" in self.model_fields_set and self.orders > most:
            raise ValueError(
                f"orders is {self.orders}, but {len(self.models)} answer(s), judged {self.protocol}, can "
                f"stand in {most} order(s) here; a further one would be a prompt that was judged already"
            )
        return self

    @model_validator(mode="after")
    def _check_unanswerable(self) -> "EvaluationConfig":
        if self.unanswerable and set(self.models) == set(self.answer_columns):
            raise ValueError(
                "unanswerable is set, but the answers of all models stand in the table: nobody can be asked"
            )
        return self

    @model_validator(mode="after")
    def _check_table(self) -> "EvaluationConfig":
        if self.has_own_table:
            return self
        for name in ("columns", "answer_columns", "real_notes"):
            if name in self.model_fields_set:
                raise ValueError(f"{name} is for a table of your own: name it in test_set, or leave it out")
        return self

    @property
    def num_orders(self) -> int:
        """`orders`, or fewer where it was left at its default and there are not so many."""
        return min(self.orders, most_orders(len(self.models))) if self.protocol == "together" else 1


def most_orders(num_models: int) -> int:
    """The rotations of a row and their reversals, as far as they differ (`judging.draw_orders`)."""
    return num_models if num_models < 3 else 2 * num_models
