"""What is served is what was trained: a model's folder against the manifest of its export.

The weights are compared by what they say (`engines/logits_check.py`): their hashes would take minutes.
"""

import hashlib

from transformers import PreTrainedTokenizerBase

from asclepius_ray.artifacts import Folder, is_finished, read_manifest
from asclepius_ray.errors import ServingError
from asclepius_ray.prompts.rendering import prompt_hash
from asclepius_ray.tokens.parity import token_ids_sha256
from asclepius_ray.tokens.reference_logits import REFERENCE_NAME

PROMPT_NAME = "instruction_prompt.txt"
TOKEN_IDS = "prompt_ids_sha256"
PARTS = ("prompt", "tokenizer", "weights")
WEIGHT_SUFFIXES = (".safetensors", ".bin")


def check_files(folder: Folder) -> None:
    """A ServingError for a model of another instruction prompt, or one that changed since its export.

    Both hashes are said. Nothing is compared for a model that came without a prompt or a manifest.
    """
    if folder.exists(PROMPT_NAME):
        _compare(
            hashlib.sha256(folder.read_bytes(PROMPT_NAME)).hexdigest(),
            prompt_hash("instruction"),
            f"{folder.uri} was trained with another instruction prompt than this version serves",
        )
    if not is_finished(folder):
        return
    for name, digest in read_manifest(folder).files.items():
        if not name.endswith(WEIGHT_SUFFIXES):
            found = folder.sha256(name) if folder.exists(name) else "nothing"
            _compare(digest, found, f"{folder.uri}/{name} is not what the training exported")


def check_token_ids(folder: Folder, tokenizer: PreTrainedTokenizerBase) -> None:
    """A ServingError if the loaded tokenizer makes other ids of a prompt than it made for the training."""
    trained = read_manifest(folder).details.get(TOKEN_IDS) if is_finished(folder) else None
    if trained is not None:
        what = f"{folder.uri}: tokenizer and chat template make other tokens than they did for the training"
        _compare(str(trained), token_ids_sha256(tokenizer), what)


def unchecked_parts(folder: Folder) -> list[str]:
    """What of a model cannot be compared with its training; empty for a model that this system trained."""
    manifest = read_manifest(folder) if is_finished(folder) else None
    known = (
        folder.exists(PROMPT_NAME),
        manifest is not None and TOKEN_IDS in manifest.details,
        folder.exists(REFERENCE_NAME),
    )
    return [part for part, is_known in zip(PARTS, known, strict=True) if not is_known]


def _compare(trained: str, found: str, what: str) -> None:
    if trained != found:
        raise ServingError(
            f"{what} (trained {_short(trained)}, here {_short(found)}); restore what was exported, serve it "
            "with the version that trained it, or train again"
        )


def _short(digest: str) -> str:
    return digest[:16]
