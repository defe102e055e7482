"""The whole stage on a real cluster, from scratch and from a model folder; what interrupts it is drilled."""

import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from artefacts import CHATML, note_of, save_foreign_model, write_inputs
from transformers import AutoModelForCausalLM, AutoTokenizer

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, Manifest, read_manifest, write_manifest
from asclepius_ray.config import parse_section
from asclepius_ray.errors import StageChangedError, TrainingError
from asclepius_ray.progress import Progress
from asclepius_ray.prompts.rendering import prompt_text
from asclepius_ray.serving.parity import check_token_ids, unchecked_parts
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.tokens.reference_logits import read_reference
from asclepius_ray.tokens.rendering import prompt_ids, render_example
from asclepius_ray.tokens.store import open_documents
from asclepius_ray.tokens.tokenizer import load_tokenizer
from asclepius_ray.training.base_model_origin import ORIGINS
from asclepius_ray.training.batches import collate, summed_loss
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.phases import load_phases
from asclepius_ray.training.schedule import learning_rate
from asclepius_ray.training.stage import require_documents, train

pytestmark = pytest.mark.whole

SEED, LENGTH = 11, 256
TOKENS = TokensConfig(sequence_length=LENGTH)
MADE_FROM = {"settings": "of a test"}


def settings(**changed: object) -> TrainingConfig:
    values = {
        "tiny": {"vocabulary_size": 360, "hidden_size": 48, "layers": 2, "heads": 4},
        "phases": [
            {"kind": "notes", "epochs": 2, "learning_rate": 3e-3},
            {"kind": "instructions", "epochs": 2, "learning_rate": 3e-3},
        ],
        "global_batch": 5,
        "checkpoint_steps": 2,
    }
    return parse_section(TrainingConfig, {**values, **changed}, "the test")


def run(root: Folder, training: TrainingConfig, progress: Progress) -> Manifest:
    return train(root, TOKENS, training, SEED, progress, MADE_FROM)


def read_metrics(root: Folder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in root.child("training").read_bytes("metrics.jsonl").splitlines()]


def plain_training(root: Folder, training: TrainingConfig) -> list[float]:
    """The losses of the same training by a plain loop in this process: what the run must amount to."""
    model = AutoModelForCausalLM.from_pretrained(root.child("base_model").local_path)
    losses = []
    for phase in load_phases(root.child("tokens").local_path, LENGTH, training, SEED):
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.0)
        for step in range(phase.total_steps):
            packed, rows = phase.batch(step)
            rate = learning_rate(step, phase.total_steps, phase.config.learning_rate, 0.03)
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = summed_loss(model, collate(packed, rows)) / packed.loss_tokens(rows)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), training.max_gradient_norm)
            optimizer.step()
            losses.append(loss.item())
    return losses


def logits_of(folder: Path) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([prompt_ids(tokenizer, note_of(1), "Which drug does the patient take home?")])
    with torch.no_grad():
        return model(ids).logits.float()


@pytest.fixture(scope="module")
def trained_root(ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A finished training; for copies alone."""
    root = Folder(str(tmp_path_factory.mktemp("trained")))
    write_inputs(root)
    run(root, settings(), Progress())
    return root


def interrupted_copy(root: Folder, target: Path) -> Folder:
    """The root as a training leaves it that ended before its export."""
    shutil.copytree(root.local_path, target)
    copy = Folder(str(target))
    copy.child("training").delete(MANIFEST_NAME)
    copy.child("model").clear()
    return copy


def test_a_training_amounts_to_a_plain_loop(trained_root: Folder) -> None:
    lines = [line for line in read_metrics(trained_root) if "loss" in line]
    expected = plain_training(trained_root, settings())
    assert len(expected) > 10
    assert [line["step"] for line in lines] == list(range(1, len(expected) + 1))
    assert [line["loss"] for line in lines] == pytest.approx(expected, abs=2e-4)


def test_an_interrupted_training_does_not_go_on_with_other_rows(trained_root: Folder, tmp_path: Path) -> None:
    """Neither where the store is there, nor where it is lost, nor where only the checkpoint knows of it."""
    root = interrupted_copy(trained_root, tmp_path / "root")
    before = read_manifest(root.child("tokens")).identity
    write_inputs(root, train_rows=26)
    with pytest.raises(
        StageChangedError, match=r"(?s)(base_model|tokens) was made with .*notes: '\w{64}' -> '\w{64}'"
    ):
        run(root, settings(), Progress())
    assert read_manifest(root.child("tokens")).identity == before
    for name in ("base_model", "tokens"):
        root.child(name).clear()
    with pytest.raises(StageChangedError, match=r"tokens: '\w{64}' -> '\w{64}'"):
        run(root, settings(), Progress())
    names = ("base_model", "tokens")
    identities = {name: read_manifest(root.child(name)).identity for name in names}
    values = {"made_from": {**MADE_FROM, **identities}}
    root.child("training").write_bytes("settings.json", json.dumps(values).encode())
    with pytest.raises(StageChangedError, match=f"another token store .*{identities['tokens'][:12]}"):
        run(root, settings(), Progress())


def test_the_losses_fall_in_both_phases(trained_root: Folder) -> None:
    manifest = read_manifest(trained_root.child("training"))
    notes, instructions = manifest.details["phases"]
    assert (notes["phase"], instructions["phase"]) == ("notes", "instructions")
    for phase in (notes, instructions):
        assert phase["validation_loss_after"] < phase["validation_loss_before"] - 0.2
        assert phase["last_loss"] < phase["first_loss"] - 0.2
    assert manifest.counts["steps"] == notes["steps"] + instructions["steps"]


def test_no_more_checkpoints_are_kept_than_asked_for(trained_root: Folder) -> None:
    names = {name.split("/")[0] for name in trained_root.child("training").names() if "step-" in name}
    assert len(names) == settings().keep_checkpoints


def test_the_model_folder_opens_and_is_the_trained_one(trained_root: Folder) -> None:
    model, base = trained_root.child("model"), trained_root.child("base_model")
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= set(
        model.names()
    )
    assert model.read_bytes("instruction_prompt.txt").decode() == prompt_text("instruction")
    assert model.read_bytes("tokenizer.json") == base.read_bytes("tokenizer.json")
    assert model.read_bytes("chat_template.jinja") == base.read_bytes("chat_template.jinja")
    assert unchecked_parts(model) == []
    check_token_ids(model, load_tokenizer(model))
    assert not torch.allclose(logits_of(model.local_path), logits_of(base.local_path), atol=0.1)
    packed = load_phases(trained_root.child("tokens").local_path, LENGTH, settings(), SEED)[-1].validation
    rows = range(len(packed))
    with torch.no_grad():
        opened = AutoModelForCausalLM.from_pretrained(model.local_path)
        loss = summed_loss(opened, collate(packed, rows)).item() / packed.loss_tokens(rows)
    assert loss == pytest.approx(read_metrics(trained_root)[-1]["validation_loss"], abs=1e-4)


def test_the_model_folder_tells_what_it_is(trained_root: Folder) -> None:
    model = trained_root.child("model")
    card = model.read_bytes("README.md").decode()
    last = [line["loss"] for line in read_metrics(trained_root) if "loss" in line][-1]
    assert f"{last:.4f}" in card
    assert read_manifest(trained_root.child("dataset")).identity in card
    manifest = read_manifest(model)
    assert {"README.md", "reference_logits.tensors", "SHA256SUMS"} <= set(manifest.files)
    for name in ("model.safetensors", "config.json"):
        assert manifest.files[name] == model.sha256(name)
    stored = read_reference(model)
    assert stored is not None
    with torch.no_grad():
        opened = AutoModelForCausalLM.from_pretrained(model.local_path).eval()
        found = opened(stored[0], use_cache=False).logits[:, -1]
    assert torch.allclose(found, stored[1], atol=1e-3)


def test_generation_stops_at_the_end_token_of_an_answer(trained_root: Folder) -> None:
    folder = trained_root.child("model").local_path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    example = render_example(tokenizer, note_of(1), "Which drug?", "Iron.", LENGTH)
    assert example is not None
    stops = AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id
    assert example.input_ids[-1] in stops


def test_the_token_store_holds_every_row(trained_root: Folder) -> None:
    counts = read_manifest(trained_root.child("tokens")).counts
    assert counts["instructions/train"]["rows"] == 24
    for found in counts.values():
        assert found["documents"] + sum(found["dropped"].values()) >= found["rows"] > 0
        assert 0 < found["loss_tokens"] < found["tokens"]


def test_a_finished_training_is_not_run_again(trained_root: Folder) -> None:
    before = (trained_root.child("model").local_path / "model.safetensors").stat()
    manifest = run(trained_root, settings(), Progress())
    assert manifest == read_manifest(trained_root.child("model"))
    assert (trained_root.child("model").local_path / "model.safetensors").stat() == before


def test_a_finished_training_with_other_settings_says_which(trained_root: Folder) -> None:
    with pytest.raises(StageChangedError, match="settings: 'of a test' -> 'others'"):
        train(trained_root, TOKENS, settings(), SEED, Progress(), {"settings": "others"})


def test_a_store_without_a_train_document_is_refused(tmp_path: Path) -> None:
    empty = {"rows": 3, "documents": 0, "tokens": 0, "loss_tokens": 0, "dropped": {"answer_too_long": 3}}
    full = {**empty, "documents": 3, "loss_tokens": 9}
    store = Manifest(
        artifact="tokens",
        counts={"notes/train": full, "instructions/train": empty},
        files={},
        made_from={},
        packages={},
    )
    require_documents(store, settings(phases=[{"kind": "notes", "epochs": 1}]))
    with pytest.raises(TrainingError, match=r"no train document of kind 'instructions'.*answer_too_long"):
        require_documents(store, settings())


@pytest.mark.long
def test_a_model_folder_gets_adapters_under_zero_3_in_16_bits(ray_cluster: str, tmp_path: Path) -> None:
    root = Folder(str(tmp_path / "root"))
    write_inputs(root, train_rows=16)
    save_foreign_model(tmp_path / "foreign")
    learnt = {"source": {"name": "ward.csv", "kind": "notes"}}
    write_manifest(Folder(str(tmp_path / "foreign")), "model", {}, {}, {ORIGINS: [learnt]})
    training = settings(
        base_model=str(tmp_path / "foreign"),
        zero_stage=3,
        precision="bf16",
        lora={"rank": 8},
        phases=[{"kind": "instructions", "epochs": 4, "learning_rate": 2e-2}],
    )
    run(root, training, Progress())
    (phase,) = read_manifest(root.child("training")).details["phases"]
    assert phase["validation_loss_after"] < phase["validation_loss_before"] - 0.15
    folder = root.child("model")
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors", "model.safetensors"} <= set(
        read_manifest(folder).files
    )
    assert "adapters trained, merged into the weights" in folder.read_bytes("README.md").decode()
    # Its own rows, of which nothing is known, and what the base model had learnt.
    assert read_manifest(folder).details[ORIGINS] == [{}, learnt]
    adapter = json.loads(folder.read_bytes("adapter/adapter_config.json"))
    assert adapter["base_model_name_or_path"] == "foreign"
    for name in folder.names():
        assert str(tmp_path).encode() not in folder.read_bytes(name), name
    assert not torch.allclose(
        logits_of(folder.local_path), logits_of(root.child("base_model").local_path), atol=0.1
    )
    model = AutoModelForCausalLM.from_pretrained(folder.local_path)
    tokenizer = AutoTokenizer.from_pretrained(folder.local_path)
    assert model.dtype == torch.bfloat16
    assert tokenizer.chat_template == CHATML
    assert tokenizer.convert_tokens_to_ids("<|stop|>") in model.generation_config.eos_token_id
    assert not torch.equal(model.lm_head.weight, model.model.embed_tokens.weight)
    documents = open_documents(root.child("tokens").local_path, "instructions", "train")
    ids, mask = documents.tokens(0)
    assert tokenizer.decode(ids[mask]).endswith("<|stop|>")


def test_no_thread_is_left_behind_by_a_training(trained_root: Folder) -> None:
    assert not [
        thread for thread in threading.enumerate() if thread.name == "ray-train" and thread.is_alive()
    ]
