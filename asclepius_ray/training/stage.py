"""Reads `notes/` and `dataset/` (or `training.dataset`), writes `base_model/`, `training/` and `model/`.

Each is skipped if it is finished and made from the same; an interrupted training goes on from its
newest checkpoint.
"""

import json
import os
from typing import Any

import ray

from asclepius_ray.artifacts import (
    MANIFEST_NAME,
    SUMS_NAME,
    Folder,
    Manifest,
    is_finished,
    read_manifest,
)
from asclepius_ray.errors import TrainingError
from asclepius_ray.metric_log import has_metrics, join_segments, read_metrics
from asclepius_ray.progress import Progress
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training.base_model import prepare_base_model
from asclepius_ray.training.base_model_source import base_model_identity
from asclepius_ray.training.changes import refuse_change
from asclepius_ray.training.checkpoints.catalog import committed_steps
from asclepius_ray.training.config import TINY, TrainingConfig
from asclepius_ray.training.finishing import SETTINGS_NAME, finish
from asclepius_ray.training.fitting import fit
from asclepius_ray.training.machine import check_a_node, require_gpus
from asclepius_ray.training.prepared import (
    ensure_artifact,
    ensure_imported_dataset,
    ensure_tokens,
    require_seen,
)
from asclepius_ray.training.recorder import Recorder
from asclepius_ray.training.sources import source_identities
from asclepius_ray.training.tokenization import require_few_dropped
from asclepius_ray.training.trackers import check_trackers, open_trackers

_HUB_VARIABLES = ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE")


def train(
    root: Folder,
    tokens: TokensConfig,
    training: TrainingConfig,
    seed: int,
    progress: Progress,
    made_from: dict[str, Any],
) -> Manifest:
    """Trains the model of a run and returns its manifest; `made_from` is the fingerprint of all of it."""
    root = root.absolute()
    run_folder, model_folder = root.child("training"), root.child("model")
    for folder in (run_folder, model_folder):
        if is_finished(folder):
            refuse_change(read_manifest(folder).made_from, made_from, folder)
    if is_finished(run_folder) and is_finished(model_folder):
        return read_manifest(model_folder)
    require_gpus(training)
    check_trackers(training.trackers)
    _say_what_is_awaited(training, progress)
    check_a_node(training)
    if training.dataset:
        ensure_imported_dataset(root, training, seed, progress)
    base_model = ensure_base_model(root, tokens, training, seed, progress)
    store = ensure_tokens(root, tokens, base_model, progress, training.dataset)
    require_few_dropped(store.counts, [phase.kind for phase in training.phases], tokens.max_dropped_share)
    require_documents(store, training)
    settings = {"made_from": {**made_from, "base_model": base_model.identity, "tokens": store.identity}}
    open_training(run_folder, settings, progress)
    model_folder.clear()
    progress.begin("training: starting the workers")
    with Recorder(progress, root.run_label, open_trackers(training.trackers, run_folder)) as recorder:
        fit(root, tokens.sequence_length, training, seed, recorder)
    join_segments(run_folder)
    return finish(root, tokens, training, read_metrics(run_folder), made_from)


def _say_what_is_awaited(training: TrainingConfig, progress: Progress) -> None:
    resource = "GPU" if training.use_gpu else "CPU"
    fewest = training.workers.fewest
    if (there := ray.cluster_resources().get(resource, 0)) < fewest:
        progress.say(f"training waits: {fewest} workers need a {resource} each, there are {there:.0f}")


def ensure_base_model(
    root: Folder, tokens: TokensConfig, training: TrainingConfig, seed: int, progress: Progress
) -> Manifest:
    """`base_model/`, prepared by a Ray task: the driver may run on a small head node."""
    made_from: dict[str, Any] = {
        "base_model": training.base_model,
        "sequence_length": tokens.sequence_length,
    }
    if training.base_model == TINY:
        made_from |= {
            "tiny": training.tiny.fingerprint(),
            "seed": seed,
            **source_identities(root, training.dataset),
        }
    if identity := base_model_identity(training.base_model):
        made_from["base_model_content"] = identity

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        variables = {name: os.environ[name] for name in _HUB_VARIABLES if name in os.environ}
        # The token is an argument and no variable of the environment: Ray logs those.
        token = os.environ.get("HF_TOKEN", "")
        task = ray.remote(
            num_cpus=1,
            # Not for its speed: the nodes with GPUs have the memory for a model that trains on them.
            num_gpus=1 if training.use_gpu else 0,
            max_retries=0,
            runtime_env={"env_vars": variables} if variables else None,
        )(prepare_base_model)
        details = ray.get(task.remote(root, training, tokens.sequence_length, seed, token))
        require_seen(root.child("base_model"), [SUMS_NAME])
        return {"parameters": details["parameters"]}, details

    return ensure_artifact(root, "base_model", made_from, build, progress)


def require_documents(store: Manifest, training: TrainingConfig) -> None:
    for kind in {phase.kind for phase in training.phases}:
        if not store.counts[f"{kind}/train"]["loss_tokens"]:
            raise TrainingError(
                f"there is nothing to train on: no train document of kind {kind!r} "
                f"({store.counts[f'{kind}/train']}); "
                "give more case reports, or raise tokens.sequence_length"
            )
        held_out = f"{kind}/validation"
        if training.early_stopping_patience and not store.counts[held_out]["loss_tokens"]:
            raise TrainingError(
                f"training.early_stopping_patience is {training.early_stopping_patience}, but no row of kind "
                f"{kind!r} is held out; raise synthesis.validation_share, or set it to 0"
            )


def open_training(folder: Folder, settings: dict[str, Any], progress: Progress) -> None:
    """Makes the folder, or finds an interrupted training in it and checks that it can go on."""
    has_checkpoints = bool(committed_steps(folder))
    if folder.exists(MANIFEST_NAME):
        if not has_checkpoints:
            raise TrainingError(
                f"{folder.uri} is finished, but its checkpoints are gone and model/ is not there to be read; "
                "put one of them back, or use --redo train to train anew"
            )
        # Finished, but its model is not there: the newest checkpoint is exported again.
        filesystem, path = folder.filesystem()
        filesystem.delete_file(f"{path}/{MANIFEST_NAME}")
    if not has_checkpoints:
        if has_metrics(folder):
            progress.say(
                "training: no checkpoint of the steps before was finished; it begins anew with step 1"
            )
        folder.clear()
        folder.make()
        folder.write_bytes(SETTINGS_NAME, json.dumps(settings, indent=2).encode())
        return
    found = json.loads(folder.read_bytes(SETTINGS_NAME))
    refuse_change(found["made_from"], settings["made_from"], folder)
