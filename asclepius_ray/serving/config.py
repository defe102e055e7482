"""The section `[serving]`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from asclepius_ray.config import CountRange, Operational, Section, count_range
from asclepius_ray.serving.access.cross_origin import ANY_ORIGIN, is_origin


class ServingConfig(Section):
    """How the model is served. Nothing here makes an artefact."""

    engine: Annotated[Literal["transformers", "vllm"], Operational()] = "transformers"
    model: Annotated[str, Operational()] = ""
    """A Hugging Face folder, id or URI; empty = the model that this run trained."""
    models: Annotated[dict[str, str], Operational()] = Field(default_factory=dict)
    """Further models under the same address, name → folder, id or URI; `model` of a request chooses, and who
    names none gets the first. For the job serve."""
    adapters: Annotated[dict[str, str], Operational()] = Field(default_factory=dict)
    """LoRA adapters of `model`, name → folder or URI as peft writes it; each is one more name that a request
    can choose. For the job serve."""
    host: Annotated[str, Operational()] = "127.0.0.1"
    """The address to listen on; "0.0.0.0" opens it to the network."""
    port: Annotated[int, Operational(), Field(ge=0, le=65535)] = 8000
    """0 = any free port."""
    api_key_env: Annotated[str, Operational()] = "ASCLEPIUS_API_KEY"
    """The environment variable with the operator's key: it may do everything, without limits. It may be
    empty where there is a file of keys."""
    keys: Annotated[str, Operational()] = ""
    """The file of the keys that `asclepius keys` makes, or the folder with its `keys.json`; a path that every
    node sees, or a URI. Empty = that of the run's root."""
    cors_origins: Annotated[tuple[str, ...], Operational()] = ()
    """Origins whose pages may ask from a browser, as "https://ehr.example"; "*" = all, none by default."""
    audit: Annotated[str, Operational()] = ""
    """A folder for the audit lines, a file a day and replica; without it they are in the replicas' logs."""
    proxy: Annotated[Literal["haproxy", "serve"], Operational()] = "haproxy"
    """What stands in front of the replicas: HAProxy, or Ray Serve's own proxy. That one needs nothing on
    disk, and is slower; a stream whose replica is killed ends in it without an error event, and what it
    answers itself, as that no replica is there, is plain text and not OpenAI's JSON."""
    tls_certificate: Annotated[str, Operational()] = ""
    """A PEM file: the certificate and those between it and its root. With it HTTPS is served, alone. On
    a cluster of several nodes TLS ends at the head node: requests go on to the replicas as plain HTTP, on
    ports 30000 and up, which nobody but the nodes should reach."""
    tls_key: Annotated[str, Operational()] = ""
    """A PEM file: the private key of the certificate, without a password."""
    replicas: Annotated[CountRange, Operational(), count_range("replicas", least=0)] = CountRange(1, 1)
    """A number, or [fewest, most]: more come when requests wait, and go when they are not needed. 0 as the
    fewest: the last one goes too, and the next request waits until one has started."""
    target_wait_seconds: Annotated[float, Operational(), Field(gt=0, allow_inf_nan=False)] = 1.0
    """Between the fewest and the most: replicas are added while requests, those that were refused for lack of
    room included, would wait longer for a place than this, at the measured rate. Who watches a text appear
    hardly notices a second before it, and more replicas than that takes are idle for most of the time."""
    scale_up_seconds: Annotated[float, Operational(), Field(ge=0, allow_inf_nan=False)] = 10.0
    """So long they must have waited that long: a burst is over before another replica has loaded."""
    idle_seconds: Annotated[float, Operational(), Field(ge=0, allow_inf_nan=False)] = 300.0
    """So long a replica must have been more than was needed before it goes, one at a time; as the last one,
    with nothing asked at all. About what starting one again costs on a GPU with a large model."""
    drain_seconds: Annotated[float, Operational(), Field(ge=10, allow_inf_nan=False)] = 120.0
    """How long a replica that is replaced or taken away may take to finish its answers. The job serve waits
    so long for them when it is told to stop; a second Ctrl-C or SIGTERM cuts them."""
    surge_percent: Annotated[int, Operational(), Field(ge=0, le=100)] = 100
    """So many more replicas, in percent, while new ones take the place of old ones; with 0, where there is no
    room for both, an old one goes before its successor is there."""
    use_gpu: Annotated[bool, Operational()] = False
    held_requests: Annotated[int, Operational(), Field(ge=0)] = 64
    """So many requests for one model wait at the front while the model has no replica; beyond it a request is
    answered with 503 and Retry-After."""
    max_concurrent_requests: Annotated[int, Operational(), Field(ge=1)] = 256
    """Open requests of one replica, whatever their size: a bound for their bodies in memory. As a rule tokens
    decide before it. Beyond it a request is answered with 429 and Retry-After."""
    admission_tokens: Annotated[int, Operational(), Field(ge=0)] = 0
    """Prompts and longest answers that a replica takes in at a time, queued ones included; 0 = what its
    engine can run, and a queue of max_queue_seconds."""
    max_queue_seconds: Annotated[float, Operational(), Field(ge=0, allow_inf_nan=False)] = 5.0
    """A request that would wait longer for its place, at the measured rate, is refused at once."""
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
    def _check_access(self) -> "ServingConfig":
        for origin in self.cors_origins:
            if not is_origin(origin):
                raise ValueError(
                    f"cors_origins: {origin!r} is no origin; write it as a browser does, scheme and host "
                    'without a path, as "https://ehr.example" or "http://localhost:3000", or '
                    f'"{ANY_ORIGIN}" for all'
                )
        if "://" in self.audit:
            raise ValueError("audit: lines cannot be added to a file in a bucket; name a local folder")
        return self

    @model_validator(mode="after")
    def _divides_the_model_where_it_can(self) -> "ServingConfig":
        if self.tensor_parallel > 1 and not (self.engine == "vllm" and self.use_gpu):
            raise ValueError(
                f'tensor_parallel = {self.tensor_parallel} needs engine = "vllm" and use_gpu = true'
            )
        return self

    @model_validator(mode="after")
    def _names_each_model_once(self) -> "ServingConfig":
        for name in (*self.models, *self.adapters):
            if not name.strip():
                raise ValueError("models and adapters: one of them has an empty name")
        if both := sorted(self.models.keys() & self.adapters.keys()):
            raise ValueError(f"adapters: {both[0]!r} is the name of a model already; choose another")
        return self

    @model_validator(mode="after")
    def _wakes_who_sleeps(self) -> "ServingConfig":
        if self.replicas.fewest == 0 and self.held_requests == 0:
            raise ValueError(
                f"held_requests = 0 with replicas = [0, {self.replicas.most}]: only a request that waits "
                "brings a replica back; set held_requests to 1 or more, or the fewest replicas to 1"
            )
        return self

    def private(self, host: str) -> "ServingConfig":
        """The same for the time of a stage alone: at any port, behind a key that nobody else has, and with a
        replica from the start."""
        replicas = CountRange(max(1, self.replicas.fewest), self.replicas.most)
        ours = {"host": host, "port": 0, "proxy": "serve", "tls_certificate": "", "tls_key": ""}
        return self.model_copy(
            update={**ours, "replicas": replicas, "keys": "", "audit": "", "cors_origins": ()}
            | {"models": {}, "adapters": {}}
        )
