"""The section `[serving]`."""

from typing import Annotated, Literal

from pydantic import Field

from asclepius_ray.config import Operational, Section


class ServingConfig(Section):
    """How the model is served. Nothing here makes an artefact."""

    engine: Annotated[Literal["transformers"], Operational()] = "transformers"
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
