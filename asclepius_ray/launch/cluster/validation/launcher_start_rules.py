"""What the nodes of `ray up` run, and without which they start and do not work. Pure."""

import re
from collections.abc import Iterator

from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.launcher_parts import (
    STARTS,
    LauncherRule,
    cloud_of,
    is_spot,
    texts_at,
    types_of,
    workers_of,
)
from asclepius_ray.launch.cluster.validation.manifests import walk_texts
from asclepius_ray.launch.cluster.validation.pod_rules import is_pinned
from asclepius_ray.launch.cluster.validation.reading import table_at, text_at
from asclepius_ray.launch.cluster.yaml_text import Json
from asclepius_ray.launch.drain_watch.command import AUTO

_WATCH = "asclepius drain-watch"
_PROVIDER = re.compile(r"drain-watch\b[^;|&]*?--provider[= ]([\w-]+)")
_SOURCED = re.compile(r"(?:^|[\s;&|(])(?:\.|source)\s+(/[\w./-]+\.env)\b")
_OF_WORKERS = "worker_setup_commands"


def _drain_watch(launcher: Json) -> Iterator[Trouble]:
    cloud = cloud_of(launcher)
    blind: dict[str, list[str]] = {}
    for path, kind in workers_of(launcher).items():
        place = f"{path}.{_OF_WORKERS}" if _OF_WORKERS in kind else _OF_WORKERS
        if is_spot(table_at(kind, "node_config")) and not any(
            _WATCH in command for command in _commands_of(launcher, kind)
        ):
            blind.setdefault(place, []).append(path.rpartition(".")[2])
    for place, names in blind.items():
        said = f"nothing on {', '.join(names)} sees that a spot machine is to go: its work is cut off"
        yield Trouble(place, said, f"run {_WATCH} --provider {cloud} in the background")
    for path, text in walk_texts(launcher):
        for provider in _PROVIDER.findall(text):
            if provider not in (cloud, AUTO):
                said = f"drain-watch asks for the notices of {provider!r}, and the machines are of {cloud!r}"
                yield Trouble(path, said, f"set --provider {cloud}")


def _commands_of(launcher: Json, kind: Json) -> list[str]:
    """What runs on a worker beside Ray: a type's own commands stand in place of all others' set-up."""
    starts = texts_at(launcher, "worker_start_ray_commands")
    if _OF_WORKERS in kind:
        return [*texts_at(kind, _OF_WORKERS), *starts]
    return [*texts_at(launcher, "setup_commands"), *texts_at(launcher, _OF_WORKERS), *starts]


def _autoscaler(launcher: Json) -> Iterator[Trouble]:
    for command in texts_at(launcher, "head_start_ray_commands"):
        if "ray start" in command and "--autoscaling-config" not in command and workers_of(launcher):
            said = "the head starts no autoscaler, and no worker ever comes"
            advice = "add --autoscaling-config=~/ray_bootstrap_config.yaml to ray start"
            yield Trouble("head_start_ray_commands", said, advice)


def _keys_file(launcher: Json) -> Iterator[Trouble]:
    """Whatever names the file beside the starts may bring it: a mount, a command, an option of Docker's."""
    others = walk_texts({key: value for key, value in launcher.items() if key not in STARTS})
    brought = [f"{path} {text}" for path, text in others]
    for key in STARTS:
        sourced = [file for command in texts_at(launcher, key) for file in _SOURCED.findall(command)]
        for file in dict.fromkeys(sourced):
            if not any(file in text for text in brought):
                said = f"the start reads {file}, and nothing brings it to the nodes: Ray does not start"
                yield Trouble("file_mounts", said, f"mount the keys' file of yours as {file}")
                return


def _image(launcher: Json) -> Iterator[Trouble]:
    for path, image in _images_of(launcher).items():
        if not is_pinned(image):
            said = f"{image!r} may be another image tomorrow"
            yield Trouble(path, said, "name a version or a digest, not latest")


def _images_of(launcher: Json) -> dict[str, str]:
    """Every image by its path; the one for all is needed unless head and workers each have one."""
    docker = table_at(launcher, "docker")
    own = {f"docker.{key}": text_at(docker, key) for key in ("head_image", "worker_image") if docker.get(key)}
    of_all = {"docker.image": text_at(docker, "image")} if len(own) < 2 or "image" in docker else {}
    of_types = {
        f"{path}.docker.worker_image": text_at(kind, "docker", "worker_image")
        for path, kind in types_of(launcher).items()
        if "worker_image" in table_at(kind, "docker")
    }
    return of_all | own | of_types


START_RULES: dict[str, LauncherRule] = {
    "launcher-drain-watch": _drain_watch,
    "launcher-autoscaler": _autoscaler,
    "launcher-keys-file": _keys_file,
    "launcher-image": _image,
}
