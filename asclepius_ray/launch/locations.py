"""Which places named in a run file hold on the cluster too. Pure.

A job starts in an unpacked copy of its package that Ray deletes afterwards, so a relative path means
nothing there. On a cluster of one node it is made absolute; where the work
runs on several nodes a local place is refused, because each node would see its own, unless it lies in a
folder that all of them mount.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.errors import SubmitError
from asclepius_ray.run import Run, endpoints_of
from asclepius_ray.training.config import TINY

STAGES_OF_JOB = {
    "synthesize": ("synthesis",),
    "train": ("training",),
    "evaluate": ("evaluation",),
    "serve": ("serving",),
    "pipeline": ("synthesis", "training", "evaluation", "serving"),
}


@dataclass(frozen=True)
class Place:
    """One path of the run file, as the job shall see it."""

    setting: str
    path: str
    is_of_each_node: bool = False
    """Each node has its own, such as a folder for log lines: an absolute path holds there, a bucket never."""


def place_on_cluster(
    job: str, run: Run, spread: str, packaged: frozenset[Path], project: Path, shared: Sequence[str] = ()
) -> list[Place]:
    """The settings to override so that they mean the same in the job; a SubmitError refuses a local one.

    `spread` says why local paths do not hold, "" where all work runs on one node. A file that travels
    in the package (`packaged`) is named by its place in it. `shared`: folders that every node mounts, under
    the paths that they have there.
    """
    local = [place for place in places_of(job, run) if Folder(place.path).is_local]
    moved: list[Place] = []
    for place in local:
        path = Folder(place.path).local_path.absolute()
        is_packaged = path.resolve() in packaged
        # The driver alone reads the input, in the unpacked package.
        travels = is_packaged and place.setting == "input.path"
        holds = place.is_of_each_node and Path(place.path).is_absolute()
        if spread and not (travels or holds or _is_below(path, shared)):
            raise SubmitError(
                f"{place.setting} = {place.path!r} is a local path, and {spread}; each node would see "
                "another folder there: use a bucket that all of them reach (s3://, gs://), or name the "
                "folder that all of them mount with --shared FOLDER"
            )
        if is_packaged:
            moved.append(Place(place.setting, path.resolve().relative_to(project).as_posix()))
        elif not Path(place.path).is_absolute():
            moved.append(Place(place.setting, str(path if spread else path.resolve())))
    return moved


def check_shared(folders: Sequence[str]) -> None:
    """A SubmitError for one that cannot be the same on all nodes."""
    for folder in folders:
        if not Path(folder).is_absolute():
            raise SubmitError(
                f"--shared {folder!r} is no absolute path; name the folder as the cluster's nodes mount it, "
                "such as /mnt/runs"
            )


def _is_below(path: Path, folders: Sequence[str]) -> bool:
    return any(Path(os.path.normpath(path)).is_relative_to(folder) for folder in folders)


def expected_variables(job: str, run: Run) -> dict[str, str]:
    """The environment variables that the cluster's nodes must hold for this job, and what for."""
    stages = STAGES_OF_JOB[job]
    wanted: dict[str, str] = {}
    if "synthesis" in stages and _asks_with_key(run.teacher):
        wanted[run.teacher.api_key_env] = "the teacher's key"
    for role, endpoint in endpoints_of(run).items():
        if role != "teacher" and "evaluation" in stages and _asks_with_key(endpoint):
            wanted.setdefault(endpoint.api_key_env, f"the key of {role}")
    if "serving" in stages and run.serving.api_key_env:
        wanted[run.serving.api_key_env] = "the key that clients of the served model must send"
    if ("training" in stages and run.training.base_model != TINY) or (
        "evaluation" in stages and _may_ask_the_hub(run)
    ):
        wanted["HF_TOKEN"] = "a model that asks for a licence, else not needed"
    return wanted


def _may_ask_the_hub(run: Run) -> bool:
    served = any(config.model_path for config in endpoints_of(run).values())
    return served or run.evaluation.realism is not None


def sources_of(job: str, run: Run) -> list[Path]:
    """Every local file and folder that the job reads: tables and models, neither keys nor certificates."""
    kept_here = {"root", *(place.setting for place in _places_of_access(run))}
    named = [Folder(place.path) for place in places_of(job, run) if place.setting not in kept_here]
    return [folder.local_path.absolute() for folder in named if folder.is_local]


def places_of(job: str, run: Run) -> list[Place]:
    """Every folder and file that the job reads or writes, as the run file names it."""
    places = [Place("root", run.root)]
    if "synthesis" in STAGES_OF_JOB[job] and run.input.path:
        places.append(Place("input.path", run.input.path))
    if "synthesis" in STAGES_OF_JOB[job] and run.teacher.model_path and Path(run.teacher.model_path).is_dir():
        places.append(Place("teacher.model_path", run.teacher.model_path))
    if "training" in STAGES_OF_JOB[job] and run.training.dataset:
        places.append(Place("training.dataset", run.training.dataset))
    if "evaluation" in STAGES_OF_JOB[job]:
        places += _places_of_evaluation(run)
    # A name that is no folder here is one of the Hugging Face hub, or a folder of the cluster's image.
    if "training" in STAGES_OF_JOB[job] and run.training.base_model_folder:
        places.append(Place("training.base_model", run.training.base_model))
    if "serving" in STAGES_OF_JOB[job] and run.serving.model and Path(run.serving.model).is_dir():
        places.append(Place("serving.model", run.serving.model))
    if "serving" in STAGES_OF_JOB[job]:
        further = {"models": run.serving.models, "adapters": run.serving.adapters}
        places += [
            Place(f"serving.{setting}.{name}", place)
            for setting, named in further.items()
            for name, place in named.items()
            if Path(place).is_dir()
        ]
    # A stage that serves for itself has keys of its own, and neither TLS nor audit lines.
    return places + _places_of_access(run) if job == "serve" else places


def _places_of_access(run: Run) -> list[Place]:
    serving = run.serving
    places = [
        Place("serving.keys", serving.keys),
        Place("serving.audit", serving.audit, is_of_each_node=True),
        Place("serving.tls_certificate", serving.tls_certificate, is_of_each_node=True),
        Place("serving.tls_key", serving.tls_key, is_of_each_node=True),
    ]
    return [place for place in places if place.path]


def _places_of_evaluation(run: Run) -> list[Place]:
    section = run.evaluation
    places = [Place("evaluation.test_set", section.test_set)] if section.has_own_table else []
    served = {
        f"{role}.model_path": config.model_path
        for role, config in endpoints_of(run).items()
        if role != "teacher"
    }
    if section.realism is not None:
        served["evaluation.realism.model"] = section.realism.model
        places += [
            Place(f"evaluation.realism.texts.{name}.path", texts.path)
            for name, texts in section.realism.texts.items()
            if not texts.is_own
        ]
    # What is no folder here is one of the hub, or of the cluster's image.
    return places + [Place(name, path) for name, path in served.items() if path and Path(path).is_dir()]


def _asks_with_key(endpoint: EndpointConfig) -> bool:
    return bool(endpoint.base_url) and not endpoint.starts_offline_teacher and bool(endpoint.api_key_env)
