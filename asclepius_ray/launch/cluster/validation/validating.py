"""Files, and what is known of the cluster and the run → every finding, and what could not be looked at."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from asclepius_ray.doctor.model_shapes import find_shape
from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.cluster.profile import Profile
from asclepius_ray.launch.cluster.validation.account_rules import ACCOUNT_RULES
from asclepius_ray.launch.cluster.validation.findings import Finding, Trouble, as_findings
from asclepius_ray.launch.cluster.validation.job_rules import OUR_JOB_RULES
from asclepius_ray.launch.cluster.validation.kubernetes_rules import (
    claims_elsewhere,
    known_document,
    kubernetes_schema,
    without_rules,
)
from asclepius_ray.launch.cluster.validation.launcher_rules import LAUNCHER_RULES
from asclepius_ray.launch.cluster.validation.manifests import CLUSTER_KEYS, LAUNCHER, Document, RayResource
from asclepius_ray.launch.cluster.validation.memory_rules import GPU_MEMORY, gpu_memory
from asclepius_ray.launch.cluster.validation.namespace_rules import NAMESPACE_RULES
from asclepius_ray.launch.cluster.validation.network_rules import EGRESS, NETWORK_RULES, what_the_run_asks
from asclepius_ray.launch.cluster.validation.operator_cluster_rules import CLUSTER_RULES
from asclepius_ray.launch.cluster.validation.operator_job_rules import JOB_RULES, SERVICE_RULES
from asclepius_ray.launch.cluster.validation.pod_rules import POD_RULES
from asclepius_ray.launch.cluster.validation.queue_rules import QUEUE_RULES
from asclepius_ray.launch.cluster.validation.reading import text_at
from asclepius_ray.launch.cluster.validation.run_rules import (
    NUMBER_RULES,
    RUN_RULES,
    service_model,
    unseen_keys,
)
from asclepius_ray.launch.cluster.validation.schemas import load_schema, schema_troubles
from asclepius_ray.launch.cluster.validation.secret_rules import secrets_by_name
from asclepius_ray.launch.cluster.validation.service_rules import SERVING_RULES, SERVING_SET_RULES
from asclepius_ray.launch.cluster.validation.set_rules import SET_RULES
from asclepius_ray.launch.cluster.validation.started import (
    RunText,
    Started,
    find_run_text,
    parse_entrypoint,
    pools_of,
    with_served_settings,
)
from asclepius_ray.launch.cluster.validation.tls_rules import TLS_RULES
from asclepius_ray.launch.locations import STAGES_OF_JOB
from asclepius_ray.run import parse_run
from asclepius_ray.training.config import TINY

KNOWN_DOCUMENT, KUBERNETES = "known-document", "kubernetes-schema"
SCHEMA, SECRETS = "kuberay-schema", "secrets-by-name"
RUN_READS, RUN_CURRENT, SERVICE_MODEL = "run-file-reads", "run-file-current", "service-serves-run"
RULES_OF_ALL = SET_RULES | NETWORK_RULES | NAMESPACE_RULES | SERVING_SET_RULES
RULES = (
    *(KNOWN_DOCUMENT, KUBERNETES, SCHEMA, SECRETS, RUN_READS, RUN_CURRENT, SERVICE_MODEL, GPU_MEMORY),
    *LAUNCHER_RULES,
    *CLUSTER_RULES,
    *JOB_RULES,
    *OUR_JOB_RULES,
    *SERVICE_RULES,
    *SERVING_RULES,
    *POD_RULES,
    *ACCOUNT_RULES,
    *QUEUE_RULES,
    *TLS_RULES,
    *RULES_OF_ALL,
    *RUN_RULES,
    *NUMBER_RULES,
)
"""The names of all rules."""


@dataclass(frozen=True)
class Knowledge:
    """What is given beside the files."""

    profile: Profile | None = None
    run: RunText | None = None
    crds: str = ""
    """The folder with KubeRay's definitions."""


@dataclass
class Report:
    """All that was found, and what could not be looked at and why; it grows while the rules go on."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)


def validate(documents: Sequence[Document], knowledge: Knowledge) -> Report:
    """Holds every document against every rule that is for it."""
    report = Report()
    started = [_start(document, documents, knowledge, report) for document in documents]
    jobs = [one for one in started if one is not None and one.document.kind == "RayJob"]
    for document, run in zip(documents, started, strict=True):
        report.findings.extend(_rules_of_document(document, documents, knowledge))
        if run is not None:
            report.findings.extend(_rules_of_run(run, jobs))
            report.unchecked.extend(unseen_keys(run))
            shut = what_the_run_asks(run, documents)
            report.findings.extend(as_findings(EGRESS, document.file, shut))
            report.findings.extend(_numbers(run, report))
            report.findings.extend(_memory(run, knowledge, report))
    if not knowledge.crds and any(document.kind in CLUSTER_KEYS for document in documents):
        report.unchecked.append("KubeRay's own schemas: give the folder of its definitions with --crds")
    report.unchecked.extend((*without_rules(documents), *claims_elsewhere(documents)))
    return report


def _rules_of_document(
    document: Document, documents: Sequence[Document], knowledge: Knowledge
) -> Iterator[Finding]:
    file, kind = document.file, document.kind
    if kind == LAUNCHER:
        for name, launcher_rule in LAUNCHER_RULES.items():
            yield from as_findings(name, file, launcher_rule(document.value))
    yield from as_findings(KNOWN_DOCUMENT, file, known_document(document))
    yield from as_findings(KUBERNETES, file, kubernetes_schema(document))
    if kind in CLUSTER_KEYS:
        yield from _rules_of_resource(RayResource(document), knowledge.crds)
    yield from as_findings(SECRETS, file, secrets_by_name(document))
    for name, set_rule in RULES_OF_ALL.items():
        yield from as_findings(name, file, set_rule(document, documents))


def _rules_of_resource(resource: RayResource, crds: str) -> Iterator[Finding]:
    file = resource.document.file
    if crds:
        schema = load_schema(crds, resource.kind)
        yield from as_findings(SCHEMA, file, schema_troubles(resource.document.value, schema))
    rules = CLUSTER_RULES | POD_RULES | ACCOUNT_RULES | QUEUE_RULES | TLS_RULES
    rules |= {"RayJob": JOB_RULES | OUR_JOB_RULES, "RayService": SERVICE_RULES | SERVING_RULES}.get(
        resource.kind, {}
    )
    for name, rule in rules.items():
        yield from as_findings(name, file, rule(resource))


def _rules_of_run(started: Started, jobs: Sequence[Started]) -> Iterator[Finding]:
    file = started.document.file
    for name, rule in RUN_RULES.items():
        yield from as_findings(name, file, rule(started))
    if started.document.kind == "RayService":
        yield from as_findings(SERVICE_MODEL, file, service_model(started, jobs))


def _numbers(started: Started, report: Report) -> Iterator[Finding]:
    """The rules that count workers, where it is known what the nodes have."""
    file = started.document.file
    if unknown := [pool.name for pool in pools_of(started.document) if not pool.is_known]:
        report.unchecked.append(f"numbers of workers in {file}: write the resources of {', '.join(unknown)}")
        return
    for name, rule in NUMBER_RULES.items():
        yield from as_findings(name, file, rule(started))


def _memory(started: Started, knowledge: Knowledge, report: Report) -> Iterator[Finding]:
    training, file = started.run.training, started.document.file
    if "training" not in STAGES_OF_JOB[started.job] or training.base_model == TINY:
        return
    if knowledge.profile is None:
        report.unchecked.append(f"GPU memory in {file}: give the profile with --profile")
    elif (shape := find_shape(training)) is None:
        report.unchecked.append(
            f"GPU memory in {file}: the size of {training.shown_base_model} is not known here; give a folder "
            "with its config.json, or ask asclepius doctor on the cluster"
        )
    else:
        yield from as_findings(GPU_MEMORY, file, gpu_memory(started, knowledge.profile, shape))


def _start(
    document: Document, documents: Sequence[Document], knowledge: Knowledge, report: Report
) -> Started | None:
    """The run that is meant for a document; None, and why, where there is none."""
    if document.kind not in (*CLUSTER_KEYS, LAUNCHER):
        return None
    job, overrides = "pipeline", list[str]()
    text = knowledge.run
    if document.kind == "RayJob":
        entrypoint = parse_entrypoint(text_at(document.value, "spec", "entrypoint"))
        if entrypoint is None or entrypoint.job not in STAGES_OF_JOB:
            return None
        job, overrides = entrypoint.job, list(entrypoint.overrides)
        mounted = find_run_text(RayResource(document), documents)
        report.findings.extend(as_findings(RUN_CURRENT, document.file, _current(mounted, text)))
        text = mounted or text
    elif document.kind == "RayService":
        job, text = "serve", text or _run_of_a_job(documents)
    if text is None:
        report.unchecked.append(f"workers, keys and places of a run in {document.file}: give it with --run")
        return None
    try:
        run = parse_run(text.text, text.where, overrides)
        return Started(document, with_served_settings(run, document), job)
    except ConfigError as error:
        trouble = Trouble("spec.entrypoint", " ".join(str(error).split()), "correct the run file or --set")
        report.findings.extend(as_findings(RUN_READS, document.file, [trouble]))
        return None


def _current(mounted: RunText | None, given: RunText | None) -> Iterator[Trouble]:
    if mounted is not None and given is not None and mounted.text != given.text:
        said = f"{mounted.where} is not {given.where}"
        yield Trouble("spec.entrypoint", said, "render the job anew")


def _run_of_a_job(documents: Sequence[Document]) -> RunText | None:
    texts = (find_run_text(RayResource(found), documents) for found in documents if found.kind == "RayJob")
    return next((text for text in texts if text is not None), None)
