"""The exported folder against the engine it came from: every ZeRO stage, precision, offload and adapters."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from ranks import run_on_ranks
from safetensors import safe_open
from safetensors.torch import load_file
from test_training_step import LENGTH, VOCABULARY, make_model, pack
from transformers import AutoModelForCausalLM, MixtralConfig, MixtralForCausalLM

from asclepius_ray.artifacts import Folder, read_sums
from asclepius_ray.errors import ConfigError, TrainingError
from asclepius_ray.tokens.reference_logits import distribution_distance, read_reference, reference_rows
from asclepius_ray.training.batches import collate, summed_loss
from asclepius_ray.training.config import LoraConfig, PhaseConfig, TrainingConfig
from asclepius_ray.training.export_plan import index_json, model_sources, plan_shards

pytestmark = pytest.mark.whole

STEPS, RATE, BATCH, SEED, CLIP = 4, 5e-3, 4, 9, 1.0
SHARD_BYTES = 20_000
LORA = LoraConfig(rank=4, alpha=16)


@dataclass(frozen=True)
class Variant:
    """One way to train the same steps."""

    stage: int
    precision: str = "fp32"
    lora: bool = False
    optimizer_offload: bool = False
    parameter_offload: bool = False
    gradient_checkpointing: bool = False

    @property
    def name(self) -> str:
        values = [self.precision, *(name for name, value in vars(self).items() if value is True)]
        return f"zero{self.stage}-" + "-".join(values)

    @property
    def training(self) -> TrainingConfig:
        return TrainingConfig(
            zero_stage=self.stage,
            precision=self.precision,
            optimizer_offload=self.optimizer_offload,
            parameter_offload=self.parameter_offload,
            gradient_checkpointing=self.gradient_checkpointing,
            lora=LORA if self.lora else None,
            global_batch=BATCH,
            micro_batch=2,
            max_gradient_norm=CLIP,
            export_shard_gb=SHARD_BYTES / 1e9,
            phases=(PhaseConfig(kind="notes", epochs=1, learning_rate=RATE),),
        )


VARIANTS = [
    *(Variant(stage, precision) for stage in (0, 1, 2, 3) for precision in ("fp32", "bf16")),
    *(Variant(stage, lora=True) for stage in (0, 1, 2, 3)),
    Variant(3, "bf16", lora=True, gradient_checkpointing=True),
    Variant(1, optimizer_offload=True),
    Variant(2, "bf16", optimizer_offload=True),
    Variant(2, lora=True, optimizer_offload=True),
    Variant(3, optimizer_offload=True, parameter_offload=True),
    Variant(3, "bf16", parameter_offload=True, gradient_checkpointing=True),
]
EXACT = [variant for variant in VARIANTS if variant.precision == "fp32"]
ADAPTED = [variant for variant in VARIANTS if variant.lora]
by_name = pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)


def train_and_export(rank: int, folder: str) -> None:
    """On each rank: every variant one after the other, exported, with the engine's losses and logits."""
    from asclepius_ray.training.checkpoints.adam import reset_moments
    from asclepius_ray.training.checkpoints.writing import CheckpointWriter
    from asclepius_ray.training.engine import start_engine
    from asclepius_ray.training.engine_tuning import gradient_norm
    from asclepius_ray.training.export import export_model
    from asclepius_ray.training.loop import Job, Trainer
    from asclepius_ray.training.loop_state import LoopState

    refuse_an_unknown_key(Path(folder) / "base")
    packed = pack()
    for variant in VARIANTS:
        engine = start_engine(Path(folder) / "base", variant.training, SEED)
        reset_moments(engine)
        job = Job(Folder(folder), LENGTH, variant.training, seed=1, board=None)
        checkpoints = CheckpointWriter(engine, Folder(folder).child("training"), num_kept=1)
        trainer = Trainer(job, engine, LoopState(), [], checkpoints)
        losses, norms = [], []
        for step in range(STEPS):
            losses.append(trainer.optimizer_step(packed, rows_of(step), RATE))
            norms.append(gradient_norm(engine))
        target = Path(folder) / variant.name
        export_model(engine.module, Folder(str(target)), variant.training)
        engine.eval()
        logits = logits_of(engine)
        if rank == 0:
            torch.save(logits, target.with_suffix(".logits"))
            target.with_suffix(".losses").write_text(json.dumps({"losses": losses, "norms": norms}))
            if variant == VARIANTS[0]:
                engine.module.save_pretrained(target.with_suffix(".reference"))
        refusal = refused_gradient(trainer, is_broken=rank == 1)
        target.with_suffix(f".refusal-{rank}").write_text(refusal)
        engine.destroy()


def refused_gradient(trainer: Any, is_broken: bool) -> str:
    """What is said of a step whose loss is a number, and whose gradient on one of the workers is none."""

    def break_gradient(module: object, inputs: object, output: torch.Tensor) -> None:
        if is_broken:
            output.register_hook(lambda gradient: gradient * torch.inf)

    trainer.engine.train()
    trainer.engine.module.get_output_embeddings().register_forward_hook(break_gradient)
    try:
        trainer.optimizer_step(pack(), rows_of(0), RATE)
    except TrainingError as error:
        return str(error)
    return ""


def refuse_an_unknown_key(base: Path) -> None:
    from asclepius_ray.training.engine import start_engine

    table = {"zero_optimization": {"reduce_bucket_sise": 1}}
    training = TrainingConfig(zero_stage=2, global_batch=BATCH, micro_batch=2, deepspeed=table)
    with pytest.raises(ConfigError, match=r"training\.deepspeed: .*reduce_bucket_sise"):
        start_engine(base, training)


def rows_of(step: int) -> list[int]:
    return list(range(step % 2, step % 2 + BATCH))


def logits_of(model: Any) -> torch.Tensor:
    batch = collate(pack(), [0, 1])
    with torch.no_grad():
        output = model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            attention_mask=None,
            use_cache=False,
        )
    return output.logits.float()


def plain_steps(model: torch.nn.Module) -> tuple[list[float], list[float]]:
    """The same steps in one process, by torch alone: their losses and the norms of their gradients."""
    packed, losses, norms = pack(), [], []
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    for step in range(STEPS):
        rows = rows_of(step)
        optimizer.zero_grad()
        loss = summed_loss(model, collate(packed, rows)) / packed.loss_tokens(rows)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(trained, CLIP).item())
        optimizer.step()
        losses.append(loss.item())
    return losses, norms


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base/`, and for every variant its export and what its engine said."""
    folder = tmp_path_factory.mktemp("exported")
    make_model().save_pretrained(folder / "base")
    run_on_ranks(train_and_export, 2, str(folder))
    return folder


@by_name
def test_the_opened_folder_has_the_logits_of_the_engine(exported: Path, variant: Variant) -> None:
    expected = torch.load(exported / f"{variant.name}.logits")
    model = AutoModelForCausalLM.from_pretrained(exported / variant.name).eval()
    assert model.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[variant.precision]
    found = logits_of(model)
    base = logits_of(AutoModelForCausalLM.from_pretrained(exported / "base").eval())
    # 16 bits: what an adapter adds is rounded once when it is merged, in the engine with each product.
    limit = 1e-3 if variant.precision == "fp32" else 5e-2
    assert (found - expected).abs().max() < limit
    assert (base - expected).abs().max() > 4 * limit, "the steps must have moved the model"


@by_name
def test_several_files_none_above_the_limit_hold_every_tensor_once(exported: Path, variant: Variant) -> None:
    folder = exported / variant.name
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(folder.glob("model-*.safetensors"))
    assert len(files) > 3
    assert {file.name for file in files} == set(index["weight_map"].values())
    total = 0
    for file in files:
        with safe_open(file, framework="pt") as opened:
            assert all(index["weight_map"][name] == file.name for name in opened.keys())  # noqa: SIM118
            sizes = [opened.get_tensor(name).nbytes for name in opened.keys()]  # noqa: SIM118
        assert sum(sizes) <= SHARD_BYTES or len(sizes) == 1
        total += sum(sizes)
    assert total == index["metadata"]["total_size"]
    base = AutoModelForCausalLM.from_pretrained(exported / "base")
    assert index["weight_map"].keys() == {name for name, _ in base.named_parameters()}
    assert index["metadata"]["total_parameters"] == base.num_parameters()


@pytest.mark.parametrize("variant", EXACT, ids=lambda variant: variant.name)
def test_two_workers_lose_what_one_plain_loop_loses(exported: Path, variant: Variant) -> None:
    from asclepius_ray.training.lora import add_adapters

    model = AutoModelForCausalLM.from_pretrained(exported / "base")
    if variant.lora:
        add_adapters(model, LORA, SEED)
    losses, norms = plain_steps(model)
    assert losses[0] - losses[2] > 0.01, "the steps must have moved the model"
    found = json.loads((exported / f"{variant.name}.losses").read_text())
    assert found["losses"] == pytest.approx(losses, abs=2e-5)
    assert found["norms"] == pytest.approx(norms, rel=1e-3)


def test_the_norm_is_that_of_the_gradient_before_it_was_clipped(exported: Path) -> None:
    _, norms = plain_steps(AutoModelForCausalLM.from_pretrained(exported / "base"))
    assert max(norms) > 1.2 * CLIP


@by_name
def test_a_gradient_that_is_no_number_ends_the_training_on_every_worker(
    exported: Path, variant: Variant
) -> None:
    for rank in range(2):
        refusal = (exported / f"{variant.name}.refusal-{rank}").read_text()
        assert re.match(
            r"the norm of the gradient is (inf|nan) after 0 steps; lower .*learning_rate", refusal
        )


@pytest.mark.parametrize("variant", ADAPTED, ids=lambda variant: variant.name)
def test_the_adapter_on_its_base_is_the_merged_model(exported: Path, variant: Variant) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[variant.precision]
    base = AutoModelForCausalLM.from_pretrained(exported / "base", dtype=dtype)
    adapted = PeftModel.from_pretrained(base, exported / variant.name / "adapter").eval()
    merged = AutoModelForCausalLM.from_pretrained(exported / variant.name).eval()
    limit = 1e-3 if variant.precision == "fp32" else 5e-2
    assert (logits_of(adapted) - logits_of(merged)).abs().max() < limit
    weights = load_file(exported / variant.name / "adapter" / "adapter_model.safetensors")
    # Seven linear layers in each of two blocks; the head is none of them.
    assert len(weights) == 2 * 7 * 2
    assert all(weight.dtype == dtype and weight.abs().max() > 0 for weight in weights.values())
    assert adapted.peft_config["default"].r == LORA.rank


@pytest.mark.parametrize("variant", ADAPTED, ids=lambda variant: variant.name)
def test_what_is_frozen_stays_as_it_was(exported: Path, variant: Variant) -> None:
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[variant.precision]
    base = AutoModelForCausalLM.from_pretrained(exported / "base", dtype=dtype).state_dict()
    merged = AutoModelForCausalLM.from_pretrained(exported / variant.name).state_dict()
    assert torch.equal(base["model.embed_tokens.weight"], merged["model.embed_tokens.weight"])
    assert torch.equal(base["model.norm.weight"], merged["model.norm.weight"])
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(base[name], merged[name])


@by_name
def test_the_stored_logits_are_those_of_the_folder(exported: Path, variant: Variant) -> None:
    stored = read_reference(Folder(str(exported / variant.name)))
    assert stored is not None
    rows, logits = stored
    assert torch.equal(rows, reference_rows(VOCABULARY))
    model = AutoModelForCausalLM.from_pretrained(exported / variant.name).eval()
    base = AutoModelForCausalLM.from_pretrained(exported / "base").eval()
    with torch.no_grad():
        found, other = (opened(rows, use_cache=False).logits[:, -1] for opened in (model, base))
    assert distribution_distance(found, logits) < (1e-4 if variant.precision == "fp32" else 0.02)
    assert distribution_distance(other, logits) > 0.02


def test_the_folder_is_what_transformers_would_save(exported: Path) -> None:
    ours, theirs = exported / VARIANTS[0].name, exported / f"{VARIANTS[0].name}.reference"
    for name in ("config.json", "generation_config.json"):
        assert json.loads((ours / name).read_text()) == json.loads((theirs / name).read_text())
    saved = load_file(theirs / "model.safetensors")
    weight_map = json.loads((ours / "model.safetensors.index.json").read_text())["weight_map"]
    assert weight_map.keys() == saved.keys()
    for file in set(weight_map.values()):
        for name, tensor in load_file(ours / file).items():
            assert torch.equal(tensor, saved[name])


def test_the_hashes_taken_on_the_way_are_those_of_the_files(exported: Path) -> None:
    folder = Folder(str(exported / "zero3-fp32-lora"))
    hashes = read_sums(folder)
    weights = {name for name in folder.names() if name.endswith(".safetensors") and "reference" not in name}
    assert hashes.keys() == weights
    assert len(weights) > 4
    assert all(folder.sha256(name) == digest for name, digest in hashes.items())


def test_one_small_file_needs_no_index() -> None:
    (shard,) = plan_shards(model_sources(make_model()), 1e9, "model")
    assert shard.file == "model.safetensors"
    names = [tensor.name for tensor in shard.saved]
    assert "lm_head.weight" not in names, "tied weights are stored once"
    assert "lm_head.weight" in [
        tensor.name for source in model_sources(make_model(tied=False)) for tensor in source.saved
    ]


def test_fused_experts_are_saved_under_the_names_of_published_models(tmp_path: Path) -> None:
    from asclepius_ray.training.base_model_weights import write_weights

    config = MixtralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=3,
    )
    model = MixtralForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "theirs")
    shutil.copytree(tmp_path / "theirs", tmp_path / "ours", ignore=shutil.ignore_patterns("*.safetensors"))
    write_weights(model, Folder(str(tmp_path / "ours")))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    assert any(".experts.2." in name for name in ours)
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    opened = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    assert torch.allclose(logits_of(opened), logits_of(model), atol=1e-5)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("q_proj", "no_proj"), r"no layer 'no_proj'; its linear layers are down_proj, gate_proj, k_proj"),
        (("no_proj",), r"training\.lora\.target_modules \['no_proj'\]"),
        (("q_proj", "embed_tokens"), r"model\.embed_tokens is no linear layer"),
    ],
    ids=["one of two", "the only one", "an embedding"],
)
def test_a_layer_that_cannot_have_an_adapter_is_named(targets: tuple[str, ...], message: str) -> None:
    from asclepius_ray.training.lora import add_adapters

    with pytest.raises(ConfigError, match=message) as refused:
        add_adapters(make_model(), LoraConfig(target_modules=targets), SEED)
    assert "\n" not in str(refused.value)


def test_the_index_counts_tensors_of_all_files() -> None:
    shards = plan_shards(model_sources(make_model()), SHARD_BYTES, "model")
    index = json.loads(index_json(shards))
    assert len(index["weight_map"]) == len([tensor for shard in shards for tensor in shard.saved])
