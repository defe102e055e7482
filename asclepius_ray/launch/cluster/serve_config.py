"""`[serving]` of a run file → the Serve configuration of a RayService. Pure."""

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.yaml_text import Json
from asclepius_ray.run import Run

IMPORT_PATH = "asclepius_ray.serving.application:build_application"
SERVE_PORT = 8000
"""The one that KubeRay's service of a RayService leads to."""
_OF_A_START = {"model", "host", "port", "proxy", "tls_certificate", "tls_key"}
"""Settings for a Serve that the job starts itself."""


def serve_config(run: Run) -> Json:
    """The model of the run, or `serving.model`, with the settings that differ from their defaults.

    The run's places are those of the cluster.
    """
    serving, root = run.serving, Folder(run.root)
    if serving.tls_certificate:
        raise ConfigError(
            "serving.tls_certificate is set, and KubeRay asks a RayService's pods whether they are ready "
            "over plain HTTP; leave it out and end TLS at the ingress or gateway before the service"
        )
    settings = serving.model_dump(mode="json", exclude_defaults=True, exclude=_OF_A_START)
    settings["keys"] = serving.keys or root.child("keys.json").uri
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},
        "applications": [
            {
                "name": "asclepius",
                "route_prefix": "/",
                "import_path": IMPORT_PATH,
                "args": {
                    "name": run.name,
                    "model": serving.model or root.child("model").uri,
                    "serving": settings,
                },
            }
        ],
    }
