"""The right to change the cluster at Kubernetes' API: for the autoscaler's container alone. Pure.

The operator lets the service account of the head's pod change the resource, to add and remove workers.
Kubernetes would put the account's token into every container of the pod, and with it a job could give itself
a pod that mounts any secret. So no pod gets it by itself, and the autoscaler's container sees it on a volume.
"""

from asclepius_ray.launch.cluster.yaml_text import Json

FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where Ray's autoscaler looks for token, certificate and namespace."""
_VOLUME = "api-access"
_TOKEN_SECONDS = 3600
"""Kubernetes writes a new token before the old one ends, and the autoscaler reads it every minute."""


def api_volume() -> Json:
    """The volume of the head's pod, as Kubernetes would have made it."""
    return {
        "name": _VOLUME,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": _TOKEN_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {
                    "downwardAPI": {
                        "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                    }
                },
            ]
        },
    }


def api_mount() -> Json:
    """Its place in the autoscaler's container."""
    return {"name": _VOLUME, "mountPath": FOLDER, "readOnly": True}
