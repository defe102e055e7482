"""What must agree between the documents of all files together. Pure."""

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version

from asclepius_ray.artifacts import Folder
from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.serve_config import IMPORT_PATH
from asclepius_ray.launch.cluster.validation.doors import backends_of
from asclepius_ray.launch.cluster.validation.findings import Trouble
from asclepius_ray.launch.cluster.validation.manifests import (
    Document,
    Group,
    RayResource,
    applications_of,
    resources_in,
    yaml_table,
)
from asclepius_ray.launch.cluster.validation.pod_rules import PUBLIC_SERVICES
from asclepius_ray.launch.cluster.validation.reading import (
    list_at,
    number_at,
    table_at,
    text_at,
)
from asclepius_ray.launch.cluster.validation.run_rules import is_seen_by_all
from asclepius_ray.launch.cluster.validation.started import find_run_text, mounted_config, parse_entrypoint
from asclepius_ray.launch.locations import STAGES_OF_JOB
from asclepius_ray.serving.application_settings import ApplicationSettings
from asclepius_ray.serving.config import ServingConfig

RAY_PORTS = {8265: "the dashboard, where jobs are started", 6379: "Ray's head", 10001: "Ray's head"}
PORT_NAMES = {"dashboard": 8265, "gcs-server": 6379, "gcs": 6379, "redis": 6379, "client": 10001}
"""As KubeRay calls them, now or in earlier versions."""
SetRule = Callable[[Document, Sequence[Document]], Iterator[Trouble]]


def _job_exists(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    if document.kind != "RayJob":
        return
    entrypoint = parse_entrypoint(text_at(document.value, "spec", "entrypoint"))
    path, jobs = "spec.entrypoint", ", ".join(STAGES_OF_JOB)
    if entrypoint is None:
        said = "it is not of the form python PAGE RUN_FILE [--set a.b=c]..."
        yield Trouble(path, said, "start one of the pages of jobs/ in the image")
    elif entrypoint.job not in STAGES_OF_JOB or "/jobs/" not in entrypoint.page:
        yield Trouble(path, f"there is no job {entrypoint.page!r}", f"the jobs in jobs/ are {jobs}")


def _local_folder(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    for resource in resources_in(document):
        entrypoint = parse_entrypoint(text_at(resource.spec, "entrypoint"))
        if entrypoint and not entrypoint.page.startswith("/"):
            said = f"{entrypoint.page!r} is looked for in a working directory, which no job of a manifest has"
            yield Trouble("spec.entrypoint", said, "name the page by its place in the image, from / on")
        for key, value in _runtime_environment(resource).items():
            if key in ("working_dir", "py_modules"):
                said = f"{key} {value!r} would be fetched anew by every worker"
                yield Trouble("spec.runtimeEnvYAML", said, "put the code into the image")
        for group in resource.groups:
            for place, volume in enumerate(list_at(group.pod, "volumes")):
                if table_at(volume, "hostPath"):
                    path = f"{group.pod_path}.volumes[{place}].hostPath"
                    yield Trouble(path, "each node has another folder there", "use a claim, or a bucket")


def _run_file(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    for resource in resources_in(document):
        entrypoint = parse_entrypoint(text_at(resource.spec, "entrypoint"))
        if resource.kind != "RayJob" or entrypoint is None or not resource.cluster:
            continue
        if not Folder(entrypoint.run_file).is_local:
            yield from _stored_run_file(entrypoint.run_file)
            continue
        name, key = mounted_config(resource, entrypoint.run_file)
        if not name:
            said = f"the head mounts no ConfigMap in which {entrypoint.run_file} would be"
            yield Trouble("spec.entrypoint", said, "mount the run file's ConfigMap there")
        elif find_run_text(resource, others) is None:
            said = f"no file given here holds the ConfigMap {name} with {key}"
            yield Trouble("spec.entrypoint", said, "render the job with --run, or name the file that has it")


def _stored_run_file(address: str) -> Iterator[Trouble]:
    if not address.startswith(("s3://", "gs://")):
        said = f"the job reads its run file at {Folder(address).shown}, which is in no bucket"
        yield Trouble("spec.entrypoint", said, "name one at s3:// or gs://, or mount a ConfigMap with it")


def _claim_is_shared(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    if document.kind != "PersistentVolumeClaim" or not _claimed_by_many(document.name, others):
        return
    modes = list_at(document.value, "spec", "accessModes")
    if "ReadWriteMany" not in modes:
        said = f"pods of several nodes mount it, and {modes} lets one node write"
        yield Trouble("spec.accessModes", said, "set [ReadWriteMany], with a storage class that has it")


def _budget(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    for resource in resources_in(document):
        if not resource.cluster:
            continue
        budgets = [found for found in others if found.kind == "PodDisruptionBudget"]
        path = f"{resource.head.path}.template.metadata.labels"
        selecting = [found for found in budgets if _selects(found, resource.head) and _holds(found)]
        if not selecting:
            said = "no PodDisruptionBudget keeps the head: a node that is drained takes the job along"
            yield Trouble(path, said, "add one with minAvailable: 1 for the head's labels")
        for budget in selecting:
            if any(_selects(budget, group) for group in resource.workers):
                said = (
                    f"the budget {budget.name} selects workers too, and holds back every node that is drained"
                )
                yield Trouble(path, said, "select the head alone, by a label that workers do not have")


def _serve_config(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    if document.kind != "RayService":
        return
    from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

    path = "spec.serveConfigV2"
    configuration = yaml_table(text_at(document.value, "spec", "serveConfigV2"))
    applications = applications_of(RayResource(document))
    if not applications:
        yield Trouble(path, "it is no Serve configuration with applications", "render it from a run file")
    for key in sorted(set(configuration) - set(ServeDeploySchema.model_fields), key=str):
        # Serve leaves out what it does not know, without a word.
        yield Trouble(f"{path}.{key}", "Serve knows no such setting", "check its spelling")
    for place, application in enumerate(applications):
        where = f"{path}.applications[{place}]"
        for key in sorted(set(application) - set(ServeApplicationSchema.model_fields), key=str):
            yield Trouble(f"{where}.{key}", "Serve knows no such setting", "check its spelling")
        if text_at(application, "import_path") != IMPORT_PATH:
            yield Trouble(f"{where}.import_path", "it is no application of ours", f"use {IMPORT_PATH}")
        yield from _serve_arguments(table_at(application, "args"), f"{where}.args")


def _serve_arguments(arguments: dict[str, object], where: str) -> Iterator[Trouble]:
    known = set(ApplicationSettings.model_fields)
    for key in sorted(set(arguments) - known, key=str):
        yield Trouble(f"{where}.{key}", "our application has no such argument", "check its spelling")
    for key in ("name", "model"):
        if not arguments.get(key):
            yield Trouble(f"{where}.{key}", "our application needs it", "add it")
    try:
        parse_section(ServingConfig, arguments.get("serving", {}), "serving")
    except ConfigError as error:
        yield Trouble(f"{where}.serving", " ".join(str(error).split()), "correct it as in a run file")


def _service_model_is_seen(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    for resource in resources_in(document):
        for place, application in enumerate(applications_of(resource)):
            model = text_at(application, "args", "model")
            blind = [group.name for group in resource.workers if not is_seen_by_all(group, model)]
            if model.startswith("/") and blind:
                path = f"spec.serveConfigV2.applications[{place}].args.model"
                said = f"{model!r} is on no volume that {blind[0]} mounts"
                yield Trouble(path, said, "mount the volume that holds it, or name a bucket")


def _ray_version(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    ours = version("ray")
    for resource in resources_in(document):
        theirs = text_at(resource.cluster, "rayVersion")
        if resource.cluster and theirs != ours:
            said = f"it is {theirs or 'missing'!r}, and this project is pinned to {ours}"
            yield Trouble(f"{resource.cluster_path}.rayVersion", said, f'set "{ours}", and use such an image')


def _public_service(document: Document, others: Sequence[Document]) -> Iterator[Trouble]:
    advice = "leave it out, and reach the dashboard through kubectl port-forward"
    if document.kind == "Service" and text_at(document.value, "spec", "type") in PUBLIC_SERVICES:
        is_rays = _selects_a_head(table_at(document.value, "spec", "selector"), others)
        for place, port in enumerate(list_at(document.value, "spec", "ports")):
            numbers = {number_at(port, "port"), number_at(port, "targetPort")}
            numbers |= {PORT_NAMES.get(text_at(port, "targetPort"), 0)} if is_rays else set()
            for number in sorted(numbers & set(RAY_PORTS)):
                yield Trouble(f"spec.ports[{place}]", f"it opens {RAY_PORTS[int(number)]}", advice)
        if is_rays:
            yield Trouble("spec.selector", "it opens the head's pod to the outside", advice)
    for path, backend in backends_of(document):
        port = table_at(backend, "service", "port")
        is_rays = text_at(backend, "service", "name").endswith("-head-svc")
        number = PORT_NAMES.get(text_at(port, "name"), 0) if is_rays else 0
        number = int(number_at(port, "number", default=number))
        if number in RAY_PORTS:
            yield Trouble(path, f"it opens {RAY_PORTS[number]}", advice)


def _selects_a_head(selector: dict[str, object], documents: Sequence[Document]) -> bool:
    """Whether a Service leads to a head, by the label that KubeRay adds or by those that stand here."""
    heads = [resource.head for found in documents for resource in resources_in(found)]
    by_label = bool(selector) and any(selector.items() <= head.labels.items() for head in heads)
    return selector.get("ray.io/node-type") == "head" or by_label


def _runtime_environment(resource: RayResource) -> dict[str, object]:
    return yaml_table(text_at(resource.spec, "runtimeEnvYAML"))


def _selects(budget: Document, group: Group) -> bool:
    wanted = table_at(budget.value, "spec", "selector", "matchLabels")
    return bool(wanted) and wanted.items() <= group.labels.items()


def _holds(budget: Document) -> bool:
    """Whether the one pod that it selects is never given up."""
    spec = table_at(budget.value, "spec")
    return number_at(spec, "minAvailable") >= 1 or spec.get("maxUnavailable") == 0


def _claimed_by_many(claim: str, documents: Sequence[Document]) -> bool:
    nodes = 0
    for document in documents:
        for group in (group for resource in resources_in(document) for group in resource.groups):
            volumes = list_at(group.pod, "volumes")
            if claim in [text_at(found, "persistentVolumeClaim", "claimName") for found in volumes]:
                nodes += group.most
    return nodes > 1


SET_RULES: dict[str, SetRule] = {
    "job-exists": _job_exists,
    "no-local-folder": _local_folder,
    "run-file-seen": _run_file,
    "claim-shared": _claim_is_shared,
    "head-budget": _budget,
    "serve-config": _serve_config,
    "model-mounted": _service_model_is_seen,
    "ray-version": _ray_version,
    "no-public-service": _public_service,
}
