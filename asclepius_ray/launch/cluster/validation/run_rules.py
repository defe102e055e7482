"""A manifest held against the run that is meant for it: places, keys and numbers of workers. Pure."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath

from asclepius_ray.artifacts import Folder
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.launcher_parts import STARTS
from asclepius_ray.launch.cluster.validation.manifests import LAUNCHER, Group, RayResource, applications_of
from asclepius_ray.launch.cluster.validation.reading import list_at, text_at, value_at
from asclepius_ray.launch.cluster.validation.started import Started, pools_for, pools_of, slots
from asclepius_ray.launch.cluster.yaml_text import Json
from asclepius_ray.launch.locations import STAGES_OF_JOB, expected_variables, places_of
from asclepius_ray.run import Run

OPTIONAL_KEY = "HF_TOKEN"
"""Only a base model that asks for a licence needs it."""
SERVERS_VOLUMES = ("nfs", "csi")
"""Kinds of volumes that a pod may name without a claim, and that are the same on every node."""
RunRule = Callable[[Started], Iterator[Trouble]]


def _training_fits(started: Started) -> Iterator[Trouble]:
    if "training" not in STAGES_OF_JOB[started.job]:
        return
    training = started.run.training
    pools = pools_for("training", pools_of(started.document), training.use_gpu)
    there, kind = slots(pools, training.use_gpu), "GPUs" if training.use_gpu else "CPUs"
    if training.workers.most > there:
        path = pools[0].path if pools else _groups_path(started)
        said = f"training.workers is up to {training.workers.most}, and the nodes have {there} {kind}"
        yield Trouble(path, said, f"raise it, or set training.workers to {max(1, there)} at the most")


def _cpus_suffice(started: Started) -> Iterator[Trouble]:
    stages, run = STAGES_OF_JOB[started.job], started.run
    each = run.synthesis.cpus_per_worker
    needed = run.synthesis.workers * each if "synthesis" in stages else 0
    pools = pools_of(started.document)
    there = slots(pools, on_gpu=False)
    if needed > there:
        path = pools_for("synthesis", pools, on_gpu=False)[0].path if pools else _groups_path(started)
        count = run.synthesis.workers
        said = f"synthesis.workers is {count}, {each:g} CPUs each, and the nodes have {there}"
        yield Trouble(path, said, f"raise it, or set synthesis.workers to {max(1, int(there / each))}")


def _serving_fits(started: Started) -> Iterator[Trouble]:
    serving = started.run.serving
    if started.job == "serve":
        needed = serving.replicas.most * (1 + len(serving.models)) * serving.tensor_parallel
        yield from _replicas_fit(started, "serving", needed)


def _teacher_fits(started: Started) -> Iterator[Trouble]:
    serving = started.run.serving
    if started.run.teacher.model_path and "synthesis" in STAGES_OF_JOB[started.job]:
        yield from _replicas_fit(started, "teacher", serving.replicas.most * serving.tensor_parallel)


def _replicas_fit(started: Started, role: str, needed: int) -> Iterator[Trouble]:
    use_gpu = started.run.serving.use_gpu
    pools = pools_for(role, pools_of(started.document), use_gpu)
    there, kind = slots(pools, use_gpu), "GPUs" if use_gpu else "CPUs"
    if needed > there:
        path = pools[0].path if pools else _groups_path(started)
        said = f"the replicas of {role} take up to {needed} {kind}, and the nodes have {there}"
        yield Trouble(path, said, "raise it, or lower serving.replicas")


def _keys_are_there(started: Started) -> Iterator[Trouble]:
    if started.document.kind == LAUNCHER:
        yield from _keys_are_asked(started)
        return
    for group in RayResource(started.document).groups:
        # A secret that is taken whole may hold any of them.
        for name, purpose in [] if _whole_secrets(group) else _missing_keys(started, group):
            path = f"{group.pod_path}.containers[0].env"
            said = f"{group.name} has no {name}: {purpose}"
            yield Trouble(path, said, "name it in the profile's [secrets]")


def unseen_keys(started: Started) -> Iterator[str]:
    """The keys that may be in a secret whose names cannot be seen here."""
    groups = RayResource(started.document).groups if started.document.kind != LAUNCHER else []
    for group in groups:
        secrets, missing = _whole_secrets(group), _missing_keys(started, group)
        if secrets and missing:
            names = ", ".join(name for name, _ in missing)
            where = f"{group.name} in {started.document.file}"
            yield f"keys of {where}: look whether the secret {', '.join(secrets)} holds {names}"


def _missing_keys(started: Started, group: Group) -> list[tuple[str, str]]:
    """Each variable that the run needs and no entry of the group's `env` gives, and what for."""
    wanted = expected_variables(started.job, started.run)
    return [(name, purpose) for name, purpose in wanted.items() if name not in group.variables]


def _whole_secrets(group: Group) -> list[str]:
    """The secrets of which Ray's container takes every key as a variable."""
    sources = list_at(group.ray_container, "envFrom")
    return list(filter(None, (text_at(source, "secretRef", "name") for source in sources)))


def _keys_are_asked(started: Started) -> Iterator[Trouble]:
    """Of a launcher's file: the nodes' keys are in a file of theirs, which the start can only ask for."""
    for key in STARTS:
        commands = " ".join(map(str, list_at(started.document.value, key)))
        for name, purpose in expected_variables(started.job, started.run).items():
            if name != OPTIONAL_KEY and f"{{{name}:?" not in commands:
                said = f"nothing looks whether the nodes have {name}: {purpose}"
                yield Trouble(key, said, f"name it in the profile's [secrets], or add `: ${{{name}:?}}`")


def _storage_is_shared(started: Started) -> Iterator[Trouble]:
    if started.document.kind != "RayJob":
        return
    resource = RayResource(started.document)
    for place in places_of(started.job, started.run):
        for group in resource.groups:
            if not (place.is_of_each_node or is_seen_by_all(group, place.path)):
                said = f"{place.setting} = {place.path!r} is a folder of its own on each node of {group.name}"
                advice = "put it on the shared volume, or into a bucket (s3://, gs://)"
                yield Trouble("spec.entrypoint", said, advice)
                break


def is_seen_by_all(group: Group, path: str) -> bool:
    """Whether a path is in a bucket, or on a volume of a server's that the group's pods mount."""
    folder = Folder(path)
    if not folder.is_local:
        return True
    shared = {text_at(volume, "name") for volume in list_at(group.pod, "volumes") if _is_shared(volume)}
    mounts = [mount for name, mount in group.mount_paths.items() if name in shared]
    return any(folder.uri == mount or folder.uri.startswith(f"{mount.rstrip('/')}/") for mount in mounts)


def _is_shared(volume: object) -> bool:
    is_claimed = bool(text_at(volume, "persistentVolumeClaim", "claimName"))
    return is_claimed or any(value_at(volume, kind) is not None for kind in SERVERS_VOLUMES)


def _groups_path(started: Started) -> str:
    if started.document.kind == LAUNCHER:
        return "available_node_types"
    return f"{RayResource(started.document).cluster_path}.workerGroupSpecs"


RUN_RULES: dict[str, RunRule] = {"keys-present": _keys_are_there, "shared-storage": _storage_is_shared}
NUMBER_RULES: dict[str, RunRule] = {
    "training-within-group": _training_fits,
    "synthesis-within-group": _cpus_suffice,
    "serving-within-group": _serving_fits,
    "teacher-within-group": _teacher_fits,
}
"""Those that count what the nodes have."""


def service_model(service: Started, jobs: Sequence[Started]) -> Iterator[Trouble]:
    """Whether a RayService serves what one of the jobs beside it trains, or without one what its run does."""
    resource = RayResource(service.document)
    trained = {job.run.serving.model or Folder(job.run.root).child("model").uri for job in jobs}
    for place, application in enumerate(applications_of(resource)):
        model = text_at(application, "args", "model")
        if trained and model not in trained:
            said = f"{model!r} is not what the job beside it trains, {sorted(trained)[0]!r}"
            path = f"spec.serveConfigV2.applications[{place}].args.model"
            yield Trouble(path, said, "render both from one profile and one run file")
        elif not trained and not _is_of_run(application, service.run):
            path = f"spec.serveConfigV2.applications[{place}].args.model"
            said = f"{model!r} is not what the run {service.run.name!r} trains or serves"
            yield Trouble(path, said, "give the run file that it was rendered from, or render it anew")


def _is_of_run(application: Json, run: Run) -> bool:
    """Whether a Serve application has the run's model. Where the run names it relatively, its place on the
    cluster is not known: the same name of the model, or of its folder, will do."""
    served = text_at(application, "args", "model")
    expected = run.serving.model or Folder(run.root).child("model").uri
    if not Folder(expected).is_local or PurePosixPath(expected).is_absolute():
        return served == expected
    parts = PurePosixPath(served.partition("?")[0]).parts
    names = (run.name, PurePosixPath(run.root).name)
    folders: list[tuple[str, ...]] = [(name, "model") for name in names]
    if run.serving.model:
        folders = [(PurePosixPath(expected).name,)]
    is_named = text_at(application, "args", "name") == run.name
    return is_named or any(parts[-len(folder) :] == folder for folder in folders)
