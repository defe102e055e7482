"""What the clinical routes take and give, field by field."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from asclepius_ray.records import Task
from asclepius_ray.serving.surface.api_errors import ApiError
from asclepius_ray.serving.surface.body_checks import Body
from asclepius_ray.serving.surface.schemas import LARGEST_COUNT, NamedOrFirstModel

MOST_BATCH_ITEMS = 256
TaskId = Literal[
    "named_entity_recognition",
    "abbreviation_expansion",
    "relation_extraction",
    "temporal_information_extraction",
    "coreference_resolution",
    "paraphrasing",
    "summarization",
    "question_answering",
]


def _id_of_task(task: object) -> object:
    """The id also where the dataset's name of the task was sent."""
    return next((known.slug for known in Task if known.value == task), task)


@cache
def default_questions() -> dict[Task, str]:
    """What each task asks of a note where the request has no question of its own."""
    values = tomllib.loads(files(__package__).joinpath("clinical_questions.toml").read_text(encoding="utf-8"))
    return {task: str(values[task.slug]) for task in Task}


class Asking(Body):
    """A note, and what is asked of it: a question, or a task with its default question."""

    note: Annotated[str, Field(min_length=1)]
    """The clinical note, as it is."""
    question: Annotated[str | None, Field(min_length=1)] = None
    """What is asked, in your own words; it comes before the task's."""
    task: Annotated[TaskId | None, BeforeValidator(_id_of_task)] = None
    """The id of one of the tasks of GET /v1/clinical/tasks; without a question its default one is asked."""

    @model_validator(mode="after")
    def _check(self) -> "Asking":
        if self.question is None and self.task is None:
            message = "Missing required parameter: question (or task, for its default question)."
            raise ApiError(400, "missing_required_parameter", message, "question")
        return self

    @property
    def asked(self) -> str:
        """The question that the model is given."""
        if self.question is not None:
            return self.question
        [question] = [text for task, text in default_questions().items() if task.slug == self.task]
        return question


class BatchItem(Asking):
    """One item of a batch."""

    id: Annotated[str | None, Field(min_length=1, max_length=200)] = None
    """Yours; it stands beside the answer."""


class Settings(NamedOrFirstModel):
    """What is the same for all items of a batch."""

    max_tokens: Annotated[int | None, Field(ge=1, le=LARGEST_COUNT)] = None
    """The longest answer, in tokens."""
    long_note: Literal["shorten", "refuse"] = "shorten"
    """A note that is too long loses sentences, as in the training, or is refused."""


class ClinicalBody(Settings, Asking):
    """The body of POST /v1/clinical/answers."""

    stream: bool | None = None
    """Server-sent events while the answer grows."""


class BatchBody(Settings):
    """The body of POST /v1/clinical/answers/batch."""

    items: Annotated[list[object], Field(min_length=1, max_length=MOST_BATCH_ITEMS)]
    """Each is answered, or fails, on its own."""
