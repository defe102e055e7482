"""python measured_ranks.py CASES.json: the bytes that real training steps allocate, by torch's profiler.

Two processes train a small Llama under DeepSpeed over gloo; rank 0 prints one JSON line a case.
"""

import gc
import json
import logging
import os
import socket
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import torch
import torch.multiprocessing

WORKERS = 2
STEPS = 2


@dataclass(frozen=True)
class Case:
    """One model and the way it is trained."""

    zero_stage: int
    precision: str
    hidden_size: int
    layers: int
    vocabulary_size: int
    micro_batch: int
    sequence_length: int
    gradient_checkpointing: bool

    @property
    def name(self) -> str:
        checkpointing = "-checkpointing" if self.gradient_checkpointing else ""
        shape = f"{self.hidden_size}x{self.layers}-{self.micro_batch}x{self.sequence_length}"
        return f"zero{self.zero_stage}-{self.precision}-{shape}{checkpointing}"


def measure(rank: int, port: int, cases: list[Case]) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(WORKERS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", verbose=False)
    for case in cases:
        with torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
        ) as profiler:
            shape = _train(case)
        if rank == 0:
            measured = {"name": case.name, **_bytes(profiler), **shape}
            sys.stdout.write(json.dumps(measured) + "\n")
            sys.stdout.flush()
        gc.collect()


def _train(case: Case) -> dict[str, int]:
    """Two steps; returns what the model's size is."""
    import contextlib

    import deepspeed
    from transformers import LlamaConfig, LlamaForCausalLM

    from asclepius_ray.training.batches import Batch, summed_loss

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=case.vocabulary_size,
        hidden_size=case.hidden_size,
        intermediate_size=case.hidden_size * 8 // 3,
        num_hidden_layers=case.layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=case.sequence_length,
        tie_word_embeddings=False,
    )
    sizes = [parameter.numel() for parameter in _on_no_device(config).parameters()]
    settings = _deepspeed_settings(case, sum(sizes))
    sharded = deepspeed.zero.Init(config_dict_or_path=settings) if case.zero_stage == 3 else None
    with sharded or contextlib.nullcontext():
        dtype = torch.float32 if case.precision == "fp32" else torch.bfloat16
        model = LlamaForCausalLM._from_config(config, dtype=dtype)
    if case.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    model.train()
    engine, *_ = deepspeed.initialize(model=model, model_parameters=model.parameters(), config=settings)
    ids = torch.randint(0, case.vocabulary_size, (case.micro_batch, case.sequence_length))
    # Two documents a row, as packed rows have them.
    half = case.sequence_length // 2
    positions = torch.arange(half).repeat(2).expand(case.micro_batch, -1)
    batch = Batch(ids, positions, torch.ones_like(ids, dtype=torch.bool))
    for step in range(STEPS):
        with torch.profiler.record_function(f"step {step}"):
            loss = summed_loss(engine, batch) / ids.numel()
            engine.backward(loss)
            # The loss holds on to the graph.
            del loss
            engine.step()
    engine.destroy()
    return {"parameters": sum(sizes), "largest_tensor": max(sizes)}


def _on_no_device(config: Any) -> torch.nn.Module:
    from transformers import LlamaForCausalLM

    with torch.device("meta"):
        return LlamaForCausalLM(config)


def _deepspeed_settings(case: Case, parameters: int) -> dict[str, Any]:
    from asclepius_ray.training.config import TrainingConfig
    from asclepius_ray.training.deepspeed_config import deepspeed_config

    training = TrainingConfig(
        workers=WORKERS,
        precision=case.precision,
        global_batch=WORKERS * case.micro_batch,
        micro_batch=case.micro_batch,
    )
    settings = deepspeed_config(training.model_copy(update={"zero_stage": case.zero_stage}), WORKERS)
    # By default 5e8 elements are taken and, on a CPU, never touched.
    settings["zero_optimization"]["reduce_bucket_size"] = parameters
    return settings


def _bytes(profiler: torch.profiler.profile) -> dict[str, int]:
    """What is allocated when the second step begins, and at most while it lasts."""
    events = profiler.profiler.kineto_results.events()
    step = next(event for event in events if event.name() == f"step {STEPS - 1}")
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in events
        if event.name() == "[memory]" and event.device_type() == torch.autograd.DeviceType.CPU
    )
    allocated = kept = peak = 0
    for time_ns, change in changes:
        allocated += change
        if time_ns < step.start_ns():
            kept = peak = allocated
        elif time_ns <= step.end_ns():
            peak = max(peak, allocated)
    return {"kept": kept, "peak": peak}


def main() -> None:
    cases = [Case(**values) for values in json.loads(Path(sys.argv[1]).read_text())]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    torch.multiprocessing.spawn(measure, (port, cases), nprocs=WORKERS)


def write_cases(cases: list[Case], target: Path) -> None:
    target.write_text(json.dumps([asdict(case) for case in cases]))


if __name__ == "__main__":
    main()
