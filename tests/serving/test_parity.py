"""A model whose prompt, files or tokens are not those of its training is refused, with both hashes."""

from pathlib import Path

import pytest
from served_models import save_tiny_model

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.errors import ArtifactError, ServingError
from asclepius_ray.prompts.rendering import prompt_hash, prompt_text
from asclepius_ray.serving.parity import check_files, check_token_ids, unchecked_parts
from asclepius_ray.tokens.parity import token_ids_sha256
from asclepius_ray.tokens.reference_logits import REFERENCE_NAME
from asclepius_ray.tokens.tokenizer import load_tokenizer


def test_a_model_of_another_instruction_prompt_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("instruction_prompt.txt", prompt_text("instruction").encode())
    check_files(folder)
    folder.write_bytes("instruction_prompt.txt", prompt_text("instruction").encode() + b" ")
    with pytest.raises(ServingError, match="another instruction prompt") as refused:
        check_files(folder)
    assert prompt_hash("instruction")[:16] in str(refused.value)
    assert folder.sha256("instruction_prompt.txt")[:16] in str(refused.value)


def test_a_tokenizer_that_was_changed_after_the_export_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("tokenizer.json", b"{}")
    exported = folder.sha256("tokenizer.json")
    write_manifest(folder, "model", {}, {})
    check_files(folder)
    folder.write_bytes("tokenizer.json", b"{ }")
    with pytest.raises(ServingError, match=r"tokenizer\.json is not what the training exported") as refused:
        check_files(folder)
    assert exported[:16] in str(refused.value)
    assert folder.sha256("tokenizer.json")[:16] in str(refused.value)


def test_a_file_that_is_gone_since_the_export_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write_bytes("tokenizer.json", b"{}")
    write_manifest(folder, "model", {}, {})
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ServingError, match="here nothing"):
        check_files(folder)


def test_a_model_of_another_format_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format_version": 99}')
    with pytest.raises(ArtifactError, match="format version 99"):
        check_files(Folder(str(tmp_path)))


def test_a_tokenizer_that_makes_other_tokens_than_in_training_is_refused(tmp_path: Path) -> None:
    folder = Folder(str(save_tiny_model(tmp_path / "model", seed=3)))
    tokenizer = load_tokenizer(folder)
    trained = token_ids_sha256(tokenizer)
    write_manifest(folder, "model", {}, {}, {"prompt_ids_sha256": trained})
    check_token_ids(folder, tokenizer)
    tokenizer.chat_template = " " + str(tokenizer.chat_template)
    with pytest.raises(ServingError, match="make other tokens") as refused:
        check_token_ids(folder, tokenizer)
    assert trained[:16] in str(refused.value)
    assert token_ids_sha256(tokenizer)[:16] in str(refused.value)


def test_what_a_model_from_elsewhere_lacks_is_named(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    assert unchecked_parts(folder) == ["prompt", "tokenizer", "weights"]
    folder.write_bytes("instruction_prompt.txt", prompt_text("instruction").encode())
    folder.write_bytes(REFERENCE_NAME, b"")
    assert unchecked_parts(folder) == ["tokenizer"]
    write_manifest(folder, "model", {}, {}, {"prompt_ids_sha256": "0"})
    assert unchecked_parts(folder) == []
