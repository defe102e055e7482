"""What a replica of the Serve application needs to know."""

from pydantic import BaseModel, ConfigDict

from asclepius_ray.serving.config import ServingConfig


class ApplicationSettings(BaseModel):
    """What a replica needs; also the arguments of a Serve configuration file with `import_path:
    asclepius_ray.serving.application:build_application`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    name: str
    """The model's name in requests."""
    model: str
    """A folder that every node sees, a URI or a Hugging Face id."""
    serving: ServingConfig = ServingConfig()
    api_key_sha256: str = ""
    """Empty = the hash of the environment variable `serving.api_key_env`."""
    gpu_share: float = 1.0
    """The part of a GPU that one replica gets."""
    revision: str = ""
    """Another one than before replaces the replicas, though nothing else was changed."""
