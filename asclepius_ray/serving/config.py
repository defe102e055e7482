"""The section `[serving]`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from asclepius_ray.config import Operational, Section


class ServingConfig(Section):
    """How the model is served. Nothing here makes an artefact."""

    engine: Annotated[Literal["transformers", "vllm"], Operational()] = "transformers"
    model: Annotated[str, Operational()] = ""
    """A Hugging Face folder, id or URI; empty = the model that this run trained."""
    host: Annotated[str, Operational()] = "127.0.0.1"
    """The address to listen on; "0.0.0.0" opens it to the network."""
    port: Annotated[int, Operational(), Field(ge=0, le=65535)] = 8000
    """0 = any free port."""
    api_key_env: Annotated[str, Operational()] = "ASCLEPIUS_API_KEY"
    """The environment variable with the key that clients must send."""
    replicas: Annotated[int, Operational(), Field(ge=1)] = 1
    use_gpu: Annotated[bool, Operational()] = False
    max_concurrent_requests: Annotated[int, Operational(), Field(ge=1)] = 64
    """Of one replica; beyond it a request is answered with 429 and Retry-After."""
    max_new_tokens: Annotated[int, Operational(), Field(ge=1)] = 400
    """The longest answer where a request names no max_tokens; the paper's 400."""
    tensor_parallel: Annotated[int, Operational(), Field(ge=1)] = 1
    """GPUs of one replica, over which vLLM divides the model."""
    cache_gib: Annotated[float, Operational(), Field(ge=0)] = 0.0
    """Memory of one replica for the keys and values of its requests; 0 = on a CPU 2, on a GPU what the model
    leaves."""
    max_context_tokens: Annotated[int, Operational(), Field(ge=0)] = 0
    """A prompt and its answer together; 0 = as many as the model has positions."""

    @model_validator(mode="after")
    def _divides_the_model_where_it_can(self) -> "ServingConfig":
        if self.tensor_parallel > 1 and not (self.engine == "vllm" and self.use_gpu):
            raise ValueError(
                f'tensor_parallel = {self.tensor_parallel} needs engine = "vllm" and use_gpu = true'
            )
        return self
