"""A cluster's profile: one TOML file from which every manifest is rendered."""

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from asclepius_ray.config import Section, load_section
from asclepius_ray.launch.cluster.network_sections import NetworkSection, TlsSection
from asclepius_ray.launch.cluster.storage_sections import StorageSection

Target = Literal["aws", "gcp", "raycluster", "rayjob", "rayservice", "storage"]
Role = Literal["synthesis", "teacher", "training", "serving"]
KUBERNETES_TARGETS: tuple[Target, ...] = ("raycluster", "rayjob", "rayservice", "storage")

SAVE_SECONDS = 60
"""So long a drained worker may take to bring its last checkpoint away."""
SPARE_SECONDS = 15
STAGE_IDLE_SECONDS, SERVING_IDLE_SECONDS = 60, 300
"""How long nodes without work stay: a finished stage needs its own no more, a service's load comes back."""
NOTICE_SECONDS = {"aws": 120, "gcp": 30}
"""How long before it takes a spot machine away a cloud says so."""

BUCKET_KEYS = {"s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")}
"""The variables that open a bucket without a role, by its scheme; Google Cloud's have none."""

DnsLabel = Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$")]


def needed_grace_seconds(drain_seconds: float, hook_seconds: float = 0) -> int:
    """How long a node needs to end: Ray's drain and its workers' saving, and some seconds to spare.

    Kubernetes counts from before a pod's preStop hook; Ray's own drain begins after it, and workers save
    meanwhile.
    """
    with_hook = hook_seconds + max(drain_seconds, SAVE_SECONDS)
    return math.ceil(max(drain_seconds + SAVE_SECONDS, with_hook) + SPARE_SECONDS)


class CloudSection(Section):
    """`[cloud]`: whose machines these are."""

    kind: Literal["aws", "gcp", "kubernetes"]
    region: str = ""
    zone: str = ""
    """Google Cloud's availability zone."""
    project: str = ""
    """Google Cloud's project."""
    role: str = ""
    """What lets the nodes reach the bucket: AWS's instance profile, Google's service account (its address),
    the Kubernetes service account of the pods."""
    machine_image: str = ""
    """The disk image of the machines; on AWS "" = the one that Ray knows for the region."""
    ssh_user: str = "ubuntu"
    """AWS and Google Cloud."""
    spot_labels: dict[str, str] = Field(default_factory=dict)
    """Kubernetes: the labels of spot nodes, which are also their taints, such as
    {"cloud.google.com/gke-spot" = "true"}."""

    @model_validator(mode="after")
    def _says_where(self) -> "CloudSection":
        needed = {
            "aws": ("region", "role"),
            "gcp": ("region", "zone", "project", "role", "machine_image"),
            "kubernetes": (),
        }
        if missing := [name for name in needed[self.kind] if not getattr(self, name)]:
            raise ValueError(f'{missing[0]} is needed where kind = "{self.kind}"')
        unread = {"aws": ("zone", "project", "spot_labels"), "gcp": ("spot_labels",)}.get(
            self.kind, ("region", "zone", "project", "machine_image")
        )
        if given := [name for name in unread if getattr(self, name)]:
            raise ValueError(f'{given[0]} does nothing where kind = "{self.kind}"; leave it out')
        return self


class ImageSection(Section):
    """`[image]`: holds the pinned stack, and this project with its package installed."""

    name: str = Field(min_length=1)
    pull_secrets: tuple[str, ...] = ()
    """Kubernetes secrets with which the image is fetched."""
    project_folder: str = "/opt/asclepius-ray"
    """Kubernetes: where the image holds `jobs/`."""


class Machine(Section):
    """What one node is."""

    machine_type: str = ""
    """The cloud's name for it, such as "c6i.4xlarge"; for AWS and Google Cloud."""
    cpus: PositiveInt
    memory_gib: PositiveInt
    disk_gib: PositiveInt = 200
    """For AWS and Google Cloud."""
    node_labels: dict[str, str] = Field(default_factory=dict)
    """Kubernetes: labels that a node must have."""


class WorkerGroup(Machine):
    """`[workers.ROLE]`: nodes that come with the work of one role and go after it."""

    gpus: NonNegativeInt = 0
    gpu_memory_gib: NonNegativeInt = 0
    """Of one GPU, as its maker says it."""
    spot: bool = True
    """Whether the cloud may take them back: cheaper, and every stage goes on after it."""
    fewest: NonNegativeInt = 0
    most: PositiveInt = 1
    idle_seconds: PositiveInt | None = None
    """A node that nothing runs on goes after so long; absent = 60, and 300 for serving. On AWS and Google
    Cloud it is one time for all groups, the longest of theirs."""

    @model_validator(mode="after")
    def _fits_together(self) -> "WorkerGroup":
        if self.fewest > self.most:
            raise ValueError(f"fewest is {self.fewest}, more than most ({self.most})")
        if bool(self.gpus) != bool(self.gpu_memory_gib):
            raise ValueError("gpus and gpu_memory_gib go together: give both, or neither")
        return self


class AuthenticationSection(Section):
    """`[authentication]`: Ray's token; without one no cluster is rendered."""

    secret: str = ""
    """Kubernetes: the secret with the token under the key auth_token; "" = KubeRay makes one."""
    token_file: str = "~/.ray/auth_token"
    """AWS and Google Cloud: the file here, made by `ray get-auth-token --generate`."""


class SecretsSection(Section):
    """`[secrets]`: keys that the nodes hold in their environment, by name alone."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    """Kubernetes: such that a pod starts without them too. Elsewhere nodes have all that the file holds."""
    secret: str = "asclepius-keys"
    """Kubernetes: the secret that holds them."""
    file: str = "~/.asclepius/keys.env"
    """AWS and Google Cloud: the file here with lines NAME=value."""


class QueueSection(Section):
    """`[queue]`: who admits the pods."""

    system: Literal["kueue", "volcano", "yunikorn"]
    name: str = Field(min_length=1)
    priority_class: str = ""
    """Volcano's, of all pods."""

    @model_validator(mode="after")
    def _priority_is_volcanos(self) -> "QueueSection":
        if self.priority_class and self.system != "volcano":
            raise ValueError(f'priority_class is for system = "volcano", not "{self.system}"')
        return self


class ShutdownSection(Section):
    """`[shutdown]`: how long a node that is taken away has."""

    drain_seconds: PositiveInt = 60
    """Training saves and synthesis hands its rows back."""
    grace_seconds: PositiveInt = 135
    """Then it is killed."""

    @model_validator(mode="after")
    def _saves_before_it_is_killed(self) -> "ShutdownSection":
        needed = needed_grace_seconds(self.drain_seconds)
        if self.grace_seconds < needed:
            raise ValueError(
                f"grace_seconds is {self.grace_seconds}; after drain_seconds ({self.drain_seconds}) a worker "
                f"saves for up to {SAVE_SECONDS} s, and {SPARE_SECONDS} s are to spare: set {needed} or more"
            )
        return self


class JobSection(Section):
    """`[job]`: of a RayJob."""

    name: Literal["synthesize", "train", "evaluate", "pipeline"] = "pipeline"
    retries: NonNegativeInt = 2
    """Each is a new cluster, and takes up what is finished."""
    start_seconds: PositiveInt = 3600
    """So long its nodes may take to come."""
    longest_seconds: PositiveInt = 604800
    keep_finished_seconds: NonNegativeInt = 300
    keep_failed_seconds: NonNegativeInt = 86400
    """A cluster whose job failed stays so long for a look at its logs; with Kueue keep_finished_seconds."""


class Profile(Section):
    """A whole profile."""

    name: DnsLabel = "asclepius"
    cloud: CloudSection
    image: ImageSection
    head: Machine
    workers: dict[Role, WorkerGroup] = Field(min_length=1)
    storage: StorageSection
    authentication: AuthenticationSection = AuthenticationSection()
    secrets: SecretsSection = SecretsSection()
    network: NetworkSection = NetworkSection()
    tls: TlsSection | None = None
    """Without it Ray's own connections are plain."""
    queue: QueueSection | None = None
    shutdown: ShutdownSection = ShutdownSection()
    job: JobSection = JobSection()
    overlay: dict[Target, str] = Field(default_factory=dict)
    """YAML that is merged over what a target is rendered to, for fields that a profile has not."""

    @model_validator(mode="after")
    def _fits_its_cloud(self) -> "Profile":
        kind = self.cloud.kind
        unread = self._unread_on_kubernetes() if kind == "kubernetes" else self._unread_on_machines()
        if given := next((name for name, is_given in unread.items() if is_given), ""):
            where = "AWS and Google Cloud" if kind == "kubernetes" else "Kubernetes"
            raise ValueError(f"{given} is for {where}; leave it out on {kind}")
        mine = KUBERNETES_TARGETS if kind == "kubernetes" else (kind,)
        if others := [target for target in self.overlay if target not in mine]:
            raise ValueError(
                f"overlay.{others[0]} is laid over nothing where cloud.kind is {kind}; leave it out"
            )
        if kind == "kubernetes":
            self._fits_pods()
        else:
            self._fits_virtual_machines()
        if self.queue and self.queue.system == "kueue":
            self._fits_kueue()
        return self

    def _machines(self) -> dict[str, Machine]:
        return {"head": self.head, **{f"workers.{role}": group for role, group in self.workers.items()}}

    def _unread_on_kubernetes(self) -> dict[str, bool]:
        """Settings that no manifest is rendered from, and whether they are given."""
        return {
            "cloud.ssh_user": not _is_default(self.cloud, "ssh_user"),
            "authentication.token_file": not _is_default(self.authentication, "token_file"),
            "secrets.file": not _is_default(self.secrets, "file"),
            "storage.bucket.kms_key": bool(self.storage.bucket and self.storage.bucket.kms_key),
            **{
                f"{where}.{name}": not _is_default(machine, name)
                for where, machine in self._machines().items()
                for name in ("machine_type", "disk_gib")
            },
        }

    def _unread_on_machines(self) -> dict[str, bool]:
        """Settings that the launcher's file is not rendered from, and whether they are given."""
        return {
            "image.pull_secrets": bool(self.image.pull_secrets),
            "image.project_folder": not _is_default(self.image, "project_folder"),
            "authentication.secret": bool(self.authentication.secret),
            "secrets.secret": not _is_default(self.secrets, "secret"),
            # Every line of the file is in the nodes' environment.
            "secrets.optional": bool(self.secrets.optional),
            "storage.volume": self.storage.volume is not None,
            "queue": self.queue is not None,
            "network": self.network != NetworkSection(),
            "tls": self.tls is not None,
            "job": self.job != JobSection(),
            **{f"{where}.node_labels": bool(found.node_labels) for where, found in self._machines().items()},
        }

    def _fits_pods(self) -> None:
        if (bucket := self.storage.bucket) and not self.cloud.role:
            self._has_keys_of(bucket.uri)
        drain, grace = self.shutdown.drain_seconds, self.shutdown.grace_seconds
        needed = needed_grace_seconds(drain, hook_seconds=drain)
        if grace < needed:
            raise ValueError(
                f"shutdown.grace_seconds is {grace}; a pod drains for drain_seconds ({drain}) before it is "
                f"told to end, and as long again, or {SAVE_SECONDS} s, after that: set {needed} or more"
            )

    def _has_keys_of(self, uri: str) -> None:
        """The cloud's servers of keys are shut for pods without a role: all that is left are keys by name."""
        named = {*self.secrets.required, *self.secrets.optional}
        keys = BUCKET_KEYS.get(uri.partition("://")[0], ())
        if not keys or not named.issuperset(keys):
            other = f", or name {' and '.join(keys)} in secrets.required" if keys else ""
            raise ValueError(
                f"nothing opens the bucket {uri} (storage.bucket.uri) for the pods: set cloud.role to the "
                f"Kubernetes service account that may{other}"
            )

    def _fits_kueue(self) -> None:
        finished, failed = self.job.keep_finished_seconds, self.job.keep_failed_seconds
        if not _is_default(self.job, "keep_failed_seconds") and failed != finished:
            raise ValueError(
                f"job.keep_failed_seconds is {failed}: a job of Kueue's has one time for both ends, "
                f"job.keep_finished_seconds ({finished}); leave it out, or set both to the same"
            )

    def _fits_virtual_machines(self) -> None:
        kind, drain = self.cloud.kind, self.shutdown.drain_seconds
        for where, machine in self._machines().items():
            if not machine.machine_type:
                raise ValueError(f"{where}.machine_type is needed on {kind}: the cloud's name of the machine")
        if drain > NOTICE_SECONDS[kind]:
            raise ValueError(
                f"shutdown.drain_seconds is {drain}, and {kind} takes a spot machine away after "
                f"{NOTICE_SECONDS[kind]} s: set less"
            )


def _is_default(section: Section, name: str) -> bool:
    return bool(getattr(section, name) == type(section).model_fields[name].default)


def idle_seconds(role: Role, group: WorkerGroup) -> int:
    """How long a node of the group stays that nothing runs on."""
    if group.idle_seconds is not None:
        return group.idle_seconds
    return SERVING_IDLE_SECONDS if role == "serving" else STAGE_IDLE_SECONDS


def load_profile(path: str) -> Profile:
    """Reads a profile; a ConfigError names what is wrong with it."""
    return load_section(Profile, path, "profile", "cluster/profiles/")
