"""The sections `[teacher]` and `[judge]`: a chat endpoint, how it is asked, what it costs."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from asclepius_ray.config import ModelName, Operational, Section

OFFLINE = "offline"
OFFLINE_MODEL = "offline-rules"

StepName = Literal["note", "question", "answer", "judge"]
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


class SamplingConfig(Section):
    """One step's sampling: `[teacher.sampling.note]`, `.question`, `.answer`, `[judge.sampling.judge]`."""

    temperature: float = Field(default=1.0, ge=0, le=2)
    """1 for the teacher's three steps in the paper; a judge wants 0."""
    max_tokens: int = Field(default=1024, gt=0)
    """The longest reply, in tokens."""


class PriceConfig(Section):
    """`[teacher.price]`: without it the report says that the cost is unknown, not that it is 0."""

    input_usd_per_million_tokens: float = Field(ge=0)
    output_usd_per_million_tokens: float = Field(ge=0)
    as_of: str = ""
    """When the prices held, such as "2026-11-24"; it stands beside every cost."""
    batch_share: float = Field(default=0.5, gt=0, le=1)
    """What a call costs through the batch endpoint, as a share of the price above."""


class BatchConfig(Section):
    """`[teacher.batch]`: the provider's limits on its batch endpoint, for `transport = "batch"`."""

    max_requests: Annotated[int, Operational(), Field(ge=1)] = 50_000
    """Requests in one batch."""
    max_file_mib: Annotated[int, Operational(), Field(ge=1)] = 100
    """Size of one batch's input file."""
    max_enqueued_tokens: Annotated[int, Operational(), Field(ge=0)] = 0
    """Tokens in all batches that wait at the provider; 0 = unlimited."""
    poll_seconds: Annotated[float, Operational(), Field(gt=0)] = 30.0
    """How often the provider is asked how far a batch is."""


class EndpointConfig(Section):
    """One OpenAI-compatible chat endpoint."""

    base_url: Annotated[str, Operational()] = ""
    """"offline" for the rules that ship with the package, or an address that ends in /v1."""
    model: str = ""
    """The name that goes into the requests; the offline teacher's own where base_url is "offline"."""
    api_key_env: Annotated[str, Operational()] = "OPENAI_API_KEY"
    """The environment variable with the key ("" = no key); the key itself never stands in a run file."""
    model_path: Annotated[str, ModelName()] = ""
    """A model's folder, URI or Hugging Face id: served on the cluster while the run asks it."""
    api_version: Annotated[str, Operational()] = ""
    """Azure's `api-version`; with it base_url ends in /openai/deployments/NAME."""
    transport: Annotated[Literal["requests", "batch"], Operational()] = "requests"
    """"batch" sends the requests through the provider's batch endpoint: cheaper, within a day."""
    batch: BatchConfig = BatchConfig()
    requests_per_minute: Annotated[int, Operational(), Field(ge=0)] = 0
    """Over all workers; 0 = what the endpoint's headers and refusals tell."""
    tokens_per_minute: Annotated[int, Operational(), Field(ge=0)] = 0
    """In and out, over all workers; 0 = what the endpoint's headers and refusals tell."""
    budget_usd: Annotated[float, Operational(), Field(ge=0)] = 0.0
    """Spending never passes it, over all runs on one root; 0 = no cap. Needs a price."""
    max_in_flight: Annotated[int, Operational(), Field(ge=0)] = 64
    """Requests at the same time over all workers; 0 = unlimited."""
    timeout_seconds: Annotated[float, Operational(), Field(gt=0)] = 120.0
    """One attempt of one request."""
    max_attempts: Annotated[int, Operational(), Field(ge=1)] = 6
    """Attempts of one request on timeouts, broken connections and 5xx; waiting out a 429 is none."""
    max_retry_seconds: Annotated[float, Operational(), Field(gt=0)] = 1800.0
    """Time that one row may lose to broken attempts and the waits between them, outages left out."""
    max_outage_seconds: Annotated[float, Operational(), Field(gt=0)] = 7200.0
    """An endpoint that answers nobody for longer ends the run; a rerun goes on from there."""
    allow_real_notes: Annotated[bool, Operational()] = False
    """Real notes may be sent to this endpoint, wherever it is."""
    trusted_hosts: Annotated[tuple[str, ...], Operational()] = ()
    """Hosts that real notes may be sent to, besides loopback and what the run itself started."""
    extra_body: dict[str, object] = Field(default_factory=dict)
    """Further fields of each request's body."""
    headers: Annotated[dict[str, str], Operational()] = Field(default_factory=dict)
    """Further headers of each request."""
    price: Annotated[PriceConfig | None, Operational()] = None
    sampling: dict[StepName, SamplingConfig] = Field(default_factory=dict)
    """By step: note, question, answer, judge."""

    @field_validator("api_key_env")
    @classmethod
    def _check_variable_name(cls, name: str) -> str:
        if name and not _VARIABLE_NAME.fullmatch(name):
            raise ValueError(
                "this is no name of an environment variable; put the key into one and give its name here"
            )
        return name

    # Of the whole section: a message about one setting repeats its value.
    @model_validator(mode="after")
    def _check_address_holds_no_password(self) -> "EndpointConfig":
        if "@" in self.base_url:
            raise ValueError(
                "base_url holds an @, as where a password stands before the host; take it out, and put the "
                "key into the environment variable that api_key_env names"
            )
        return self

    @property
    def starts_offline_teacher(self) -> bool:
        """Whether the run starts the offline teacher for this endpoint."""
        return self.base_url == OFFLINE

    @property
    def model_name(self) -> str:
        return self.model or (OFFLINE_MODEL if self.starts_offline_teacher else "")

    @property
    def is_offline(self) -> bool:
        """Whether rules answer here, and no language model: started by the run or at an address."""
        return self.model_name == OFFLINE_MODEL


def default_sampling(step: str) -> SamplingConfig:
    """The sampling of a step without a table of its own: a judge's temperature is 0, as in the paper."""
    return SamplingConfig(temperature=0.0) if step == "judge" else SamplingConfig()
