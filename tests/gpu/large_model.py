"""A Llama of about a billion weights and rows for it, trained by our loop on all GPUs of this machine."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

ROW_TOKENS, ROWS_OF_A_WORKER, VOCABULARY = 4096, 4, 32_000
STEPS, WARM_UP_STEPS = 12, 4


def save_model(folder: Path) -> None:
    """The shape of a Llama of 1.1 billion weights, with random ones."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=2048,
        intermediate_size=8192,
        num_hidden_layers=16,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=ROW_TOKENS,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config).to(torch.bfloat16)
    model.cpu().save_pretrained(folder)
    del model
    torch.cuda.empty_cache()


def train_steps(folder: Path, training: dict[str, Any], workers: int) -> list[dict[str, Any]]:
    """The metric lines of the steps after the warm-up, on so many GPUs."""
    from ray import cloudpickle
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig

    from asclepius_ray.training.fitting import IsolatedTrainer

    write_rows(folder / "store", training["global_batch"] * STEPS)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    IsolatedTrainer(
        train_on_worker,
        train_loop_config={"folder": str(folder), "training": training},
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=True),
        torch_config=TorchConfig(backend="nccl"),
        run_config=RunConfig(name="steps", storage_path=str(folder / "ray")),
    ).fit()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][WARM_UP_STEPS:]


def train_on_worker(settings: dict[str, Any]) -> None:
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.training.checkpoints.writing import CheckpointWriter
    from asclepius_ray.training.config import TrainingConfig
    from asclepius_ray.training.engine import start_engine
    from asclepius_ray.training.loop import Job, Trainer
    from asclepius_ray.training.loop_state import LoopState
    from asclepius_ray.training.phases import load_phases
    from asclepius_ray.training.recording import Recording

    folder, training = Path(settings["folder"]), TrainingConfig.model_validate(settings["training"])
    engine = start_engine(folder / "model", training)
    (phase,) = load_phases(folder / "store", ROW_TOKENS, training, seed=7)
    job = Job(Folder(str(folder)), ROW_TOKENS, training, 7, None)
    with CheckpointWriter(engine, Folder(str(folder / "checkpoints")), 1) as writer:
        trainer = Trainer(job, engine, LoopState(), [phase], writer)
        with Recording(job.root, trainer.rank, 0, job.tell) as trainer.recording:
            for _ in range(STEPS):
                trainer._train_step(phase)


def write_rows(folder: Path, count: int) -> None:
    """Rows that one document fills, as in published figures."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.tokens.rendering import TokenizedExample
    from asclepius_ray.tokens.store import write_index, write_shard

    ids = np.random.default_rng(3).integers(0, VOCABULARY, (count, ROW_TOKENS)).tolist()
    rows = [TokenizedExample(row, [True] * ROW_TOKENS) for row in ids]
    store = Folder(str(folder))
    for split, documents in (("train", rows), ("validation", [])):
        write_index(store, "notes", split, [write_shard(store, "notes", split, 0, documents)])
