"""What the training reads, made once and skipped if it is there: `imported_dataset/` and `tokens/`."""

from collections.abc import Callable, Iterable
from typing import Any

from ray.exceptions import RayTaskError

from asclepius_ray.artifacts import Folder, Manifest, is_finished, read_manifest, write_manifest
from asclepius_ray.errors import ConfigError
from asclepius_ray.progress import Progress
from asclepius_ray.prompts.rendering import prompt_hash
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training.changes import refuse_change
from asclepius_ray.training.checkpoints.catalog import committed_steps
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.dataset_import import import_dataset
from asclepius_ray.training.dataset_source import dataset_identity
from asclepius_ray.training.failures import original_error
from asclepius_ray.training.sources import IMPORTED, source_folders, source_identities
from asclepius_ray.training.tokenization import tokenize_sources, tokenizer_sha256


def ensure_artifact(
    root: Folder,
    name: str,
    made_from: dict[str, Any],
    build: Callable[[], tuple[dict[str, Any], dict[str, Any]]],
    progress: Progress,
) -> Manifest:
    """The artefact's manifest; built anew if it is not there or was made from something else.

    A StageChangedError if checkpoints were made with the one that is there: they could not go on with
    another, and what is removed may exist nowhere else.
    """
    folder = root.child(name)
    if is_finished(folder):
        found = read_manifest(folder)
        if found.made_from == made_from:
            return found
        if committed_steps(root.child("training")):
            refuse_change(found.made_from, made_from, folder)
    progress.begin(f"training: preparing {name}")
    folder.clear()
    folder.make()
    try:
        counts, details = build()
    except RayTaskError as error:
        raise original_error(error) from None
    return write_manifest(folder, name, counts, made_from, details)


def require_seen(folder: Folder, names: Iterable[str]) -> None:
    """A ConfigError unless the driver sees what a task has written, on a node that may have joined since."""
    missing = set(names) - set(folder.names())
    if missing:
        raise ConfigError(
            f"{folder.uri} lacks {min(missing)}, which a node of the cluster has written: that node has a "
            "disk of its own there; use a root that all nodes share, such as s3://BUCKET/run"
        )


def ensure_imported_dataset(
    root: Folder, training: TrainingConfig, seed: int, progress: Progress
) -> Manifest:
    """`imported_dataset/`, made by the driver, which reads `training.dataset` as it would read the input."""
    share = training.validation_share
    made_from = {"content": dataset_identity(training.dataset), "validation_share": share, "seed": seed}
    imported = ensure_artifact(
        root,
        IMPORTED,
        made_from,
        lambda: import_dataset(training.dataset, root.child(IMPORTED), share, seed),
        progress,
    )
    rejected = ", ".join(f"{reason} {count}" for reason, count in imported.counts["rejected"].items())
    rows, left_out = imported.details["rows"], imported.details["tables_left_out"]
    progress.say(
        f"training.dataset: {imported.counts['ok']} of {imported.counts['input']} rows "
        f"({rows['train']} to train on, {rows['validation']} held out {imported.details['split']})"
        + (f"; rejected: {rejected}" if rejected else "")
        + (f"; {left_out} table(s) of other splits are not read" if left_out else "")
    )
    return imported


def ensure_tokens(
    root: Folder, tokens: TokensConfig, base_model: Manifest, progress: Progress, dataset: str = ""
) -> Manifest:
    """`tokens/`, made by Ray Data on all workers; its counts are those of each kind and split.

    `dataset`: the setting `training.dataset`.
    """
    tokenizer = tokenizer_sha256(base_model)
    made_from = {
        **source_identities(root, dataset),
        "tokenizer": tokenizer,
        "chat_template": base_model.files["chat_template.jinja"],
        "instruction_prompt": prompt_hash("instruction"),
        "sequence_length": tokens.sequence_length,
        "overlong": tokens.overlong,
    }

    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        sources = source_folders(root, dataset)
        store = root.child("tokens")
        counts, shards = tokenize_sources(sources, root.child("base_model"), store, tokenizer, tokens)
        require_seen(store, shards)
        return counts, {}

    return ensure_artifact(root, "tokens", made_from, build, progress)
