"""What an init container prepares for Ray's container, in a folder of the pod's own. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from asclepius_ray.launch.cluster.yaml_text import Json

RESTRICTED: Json = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
"""What Kubernetes' restricted level asks of every container."""
_READABLE_BY_GROUP = 0o440


@dataclass(frozen=True)
class Preparation:
    """One step before Ray starts: its container, the folder it fills, and what Ray is told of it."""

    name: str
    """Of the container and of the folder's volume."""
    folder: str
    """Where both containers see the folder, which is in memory and ends with the pod."""
    command: tuple[str, ...]
    variables: Mapping[str, str]
    """What Ray's container gets."""
    own_variables: tuple[Json, ...] = ()
    """What the step itself gets."""
    secret: str = ""
    """A secret that the step alone sees, ..."""
    secret_folder: str = ""
    """... and where."""
    megabytes: int = field(default=16, kw_only=True)
    """The most that the folder holds."""

    def container(self, image: str) -> Json:
        """The init container."""
        amounts = {"cpu": "500m", "memory": "256Mi"}
        mounts = [self.mount()]
        if self.secret:
            mounts.append({"name": self._secret_volume, "mountPath": self.secret_folder, "readOnly": True})
        container: Json = {
            "name": self.name,
            "image": image,
            "command": list(self.command),
            "securityContext": RESTRICTED,
        }
        if self.own_variables:
            container["env"] = list(self.own_variables)
        return container | {
            "resources": {"requests": amounts, "limits": dict(amounts)},
            "volumeMounts": mounts,
        }

    def environment(self) -> list[Json]:
        """The variables of Ray's container."""
        return [{"name": name, "value": value} for name, value in self.variables.items()]

    def mount(self, read_only: bool = False) -> Json:
        """The folder's mount."""
        return {"name": self.name, "mountPath": self.folder} | ({"readOnly": True} if read_only else {})

    def volumes(self) -> list[Json]:
        """The folder, and the secret where there is one."""
        volumes: list[Json] = [
            {"name": self.name, "emptyDir": {"medium": "Memory", "sizeLimit": f"{self.megabytes}Mi"}}
        ]
        if self.secret:
            source = {"secretName": self.secret, "defaultMode": _READABLE_BY_GROUP}
            volumes.append({"name": self._secret_volume, "secret": source})
        return volumes

    @property
    def _secret_volume(self) -> str:
        return f"{self.name}-authority"
