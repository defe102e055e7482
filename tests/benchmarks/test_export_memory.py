"""Peak memory of the export, and of preparing a base model, against what they replace; a model of 284 MB.

On a CPU the engine's own weights lie in the same memory: what is told is the growth over what was there.
"""

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Note
from training.ranks import run_on_ranks
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from asclepius_ray.artifacts import Folder
from asclepius_ray.tokens.tokenizer import train_tokenizer

RANKS, SHARD_MB = 2, 50
LARGEST_TENSOR_MB = 32_000 * 512 * 4 / 1e6
WAYS = ("streaming", "save_16bit_model")


def growth_mb(work: Callable[[], object]) -> tuple[float, float]:
    """How far the work lifted this process's peak of memory over what it held before, and its seconds."""
    import gc

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_kb("VmRSS")
    started = time.monotonic()
    work()
    return (_status_kb("VmHWM") - before) / 1e3, time.monotonic() - started


def _status_kb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name}:")).split()[1]) * 1.024


def export_once(rank: int, way: str, stage: int, folder: str) -> None:
    """On each rank: opens the model under DeepSpeed and saves it in one of the two ways."""
    from asclepius_ray.training.config import TrainingConfig
    from asclepius_ray.training.engine import start_engine
    from asclepius_ray.training.export import GIGABYTE, write_shards
    from asclepius_ray.training.export_plan import model_sources, plan_shards

    table = {"zero_optimization": {"stage3_gather_16bit_weights_on_model_save": True}} if stage == 3 else {}
    training = TrainingConfig(
        zero_stage=stage, global_batch=2, micro_batch=1, export_shard_gb=SHARD_MB / 1e3, deepspeed=table
    )
    engine = start_engine(Path(folder) / "base", training)
    target = Path(folder) / f"{way}-{stage}"
    if way == "streaming":
        # The weights alone, as in the other way: the forward pass for the reference logits holds no more
        # than any step of the training.
        shards = plan_shards(model_sources(engine.module), training.export_shard_gb * GIGABYTE, "model")
        grown, seconds = growth_mb(lambda: write_shards(shards, Folder(str(target))))
    else:
        grown, seconds = growth_mb(lambda: engine.save_16bit_model(str(target)))
    Path(folder, f"{way}-{stage}-{rank}.json").write_text(json.dumps([grown, seconds]))


def prepare(folder: str, result: str) -> None:
    from asclepius_ray.config import parse_section
    from asclepius_ray.training.base_model import prepare_base_model
    from asclepius_ray.training.config import TrainingConfig

    training = parse_section(TrainingConfig, {"base_model": f"{folder}/base"}, "the benchmark")
    root = Folder(f"{folder}/prepared")
    Path(result).write_text(json.dumps(growth_mb(lambda: prepare_base_model(root, training, 512, 0, ""))))


def load_and_save(folder: str, result: str) -> None:
    def work() -> None:
        model = AutoModelForCausalLM.from_pretrained(f"{folder}/base", dtype="auto")
        model.save_pretrained(f"{folder}/saved", max_shard_size="50MB")

    Path(result).write_text(json.dumps(growth_mb(work)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory")
    train_tokenizer(["Discharge medication: aspirin."], 300).save_pretrained(path / "base")
    config = LlamaConfig(
        vocab_size=32_000,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=12,
        num_attention_heads=8,
        max_position_embeddings=512,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).save_pretrained(path / "base", max_shard_size="50MB")
    return path


@pytest.mark.parametrize("stage", [2, 3])
def test_a_writing_rank_holds_one_file_and_not_the_model(folder: Path, stage: int, note: Note) -> None:
    found: dict[str, list[list[float]]] = {}
    for way in WAYS:
        run_on_ranks(export_once, RANKS, way, stage, str(folder))
        found[way] = [
            json.loads((folder / f"{way}-{stage}-{rank}.json").read_text()) for rank in range(RANKS)
        ]
    size = sum(file.stat().st_size for file in (folder / f"streaming-{stage}").glob("*.safetensors")) / 1e6
    for way, ranks in found.items():
        told = ", ".join(f"rank {rank} +{grown:.0f} MB" for rank, (grown, _) in enumerate(ranks))
        note(
            f"export, ZeRO {stage}", way, RANKS, max(seconds for _, seconds in ranks), f"{told} of {size:.0f}"
        )
    # The file's tensors, the one that is being put together, and what the allocators keep.
    limit = SHARD_MB + 2 * LARGEST_TENSOR_MB + 20
    assert all(grown < limit for grown, _ in found["streaming"]), found
    assert limit < size


def test_a_base_model_goes_from_file_to_file(folder: Path, note: Note) -> None:
    results: dict[str, Any] = {}
    for name, work in (("copied", prepare), ("loaded and saved", load_and_save)):
        result = folder / f"{work.__name__}.json"
        process = multiprocessing.get_context("spawn").Process(target=work, args=(str(folder), str(result)))
        process.start()
        process.join()
        assert process.exitcode == 0
        grown, seconds = results[name] = json.loads(result.read_text())
        note("base model of 284 MB", name, 1, seconds, f"+{grown:.0f} MB")
    assert results["copied"][0] < 150, results
    one = AutoModelForCausalLM.from_pretrained(folder / "prepared" / "base_model")
    other = AutoModelForCausalLM.from_pretrained(folder / "base")
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
