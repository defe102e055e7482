"""`[serving]` of a run file → the Serve configuration of a RayService. Pure."""

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.yaml_text import Json
from asclepius_ray.run import Run
from asclepius_ray.serving.config import ServingConfig

IMPORT_PATH = "asclepius_ray.serving.application:build_application"
SERVE_PORT = 8000
"""The one that KubeRay's service of a RayService leads to."""
SERVE_HOST = "0.0.0.0"
_RENDERED: dict[str, str | int] = {"host": SERVE_HOST, "port": SERVE_PORT, "proxy": "haproxy"}
"""What every RayService has, whatever a run file says."""
_OF_A_START = {"model", *_RENDERED, "tls_certificate", "tls_key"}
"""Settings for a Serve that the job starts itself."""


def serve_config(run: Run, revision: str = "") -> Json:
    """The model of the run, or `serving.model`, with the settings that differ from their defaults.

    The run's places are those of the cluster; another `revision` than before replaces the replicas.
    """
    serving, root = run.serving, Folder(run.root)
    if serving.tls_certificate:
        raise ConfigError(
            "serving.tls_certificate is set, and KubeRay asks a RayService's pods whether they are ready "
            "over plain HTTP; leave it out and end TLS at the ingress or gateway before the service"
        )
    _refuse_other_doors(serving)
    settings = serving.model_dump(mode="json", exclude_defaults=True, exclude=_OF_A_START)
    settings["keys"] = serving.keys or root.child("keys.json").uri
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": SERVE_HOST, "port": SERVE_PORT},
        "applications": [
            {
                "name": "asclepius",
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": {
                    "name": run.name,
                    "model": serving.model or root.child("model").uri,
                    "serving": settings,
                    **({"revision": revision} if revision else {}),
                },
            }
        ],
    }


def _refuse_other_doors(serving: ServingConfig) -> None:
    for name, rendered in _RENDERED.items():
        given = getattr(serving, name)
        if name in serving.model_fields_set and given != rendered:
            raise ConfigError(
                f"serving.{name} is {given!r}, and a RayService has {rendered!r}; leave it out of the run "
                f"file, and give it to the job serve by --set serving.{name}={given}"
            )
