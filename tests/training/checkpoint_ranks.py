"""Groups of plain processes that train a tiny model with DeepSpeed, save and restore: no Ray.

Started as a program it is one rank: it does the tasks of a file and writes down what it saw.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

GLOBAL_BATCH, MICRO_BATCH, LENGTH, VOCABULARY = 4, 2, 12, 97
TIMEOUT_SECONDS = 280


@dataclass(frozen=True)
class Variant:
    """What is trained."""

    stage: int
    precision: str = "fp32"
    tied: bool = True
    no_decay: bool = True
    """Two groups of parameters: norms without weight decay, the others with it."""
    frozen: bool = False
    """The first layer is not trained, as under LoRA most are not."""
    zero: dict[str, Any] = field(default_factory=dict)
    """More settings of ZeRO."""

    @property
    def name(self) -> str:
        marks = [mark for mark in ("tied", "no_decay", "frozen") if getattr(self, mark)]
        return "-".join([str(self.stage), self.precision, *marks, *self.zero])


@dataclass(frozen=True)
class Task:
    """One engine: load, train, save, train on while the save is under way."""

    name: str
    variant: Variant
    load: str = ""
    """The folder of the checkpoints to restore the newest of; "" trains from the start."""
    steps: int = 0
    """Steps before saving."""
    save: str = ""
    more_steps: int = 0
    """Steps after saving."""


@dataclass(frozen=True)
class Seen:
    """What a task has come to; a state is parameter → {master, exp_avg, exp_avg_sq} → sha256."""

    loaded: dict[str, dict[str, str]] = field(default_factory=dict)
    saved: dict[str, dict[str, str]] = field(default_factory=dict)
    end: dict[str, dict[str, str]] = field(default_factory=dict)
    adam_step: int = 0
    """Where it saved."""
    loop_state: dict[str, Any] = field(default_factory=dict)
    """As it was loaded."""
    losses: list[float] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    bytes_read: int = 0
    optimizer: str = ""
    error: str = ""


def run_ranks(world_size: int, tasks: list[Task], folder: Path) -> dict[str, Seen]:
    """Runs the tasks one after the other on a group of processes; what rank 0 saw, by task."""
    meeting = folder / f"meeting-{time.monotonic_ns()}"
    plan = meeting.with_suffix(".tasks")
    plan.write_text(json.dumps([asdict(task) for task in tasks]))
    found = meeting.with_suffix(".seen")
    environment = os.environ | {"DS_ACCELERATOR": "cpu", "TMPDIR": str(folder), "LOCAL_RANK": "0"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(world_size), str(meeting), str(plan), str(found)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [process.communicate(timeout=TIMEOUT_SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(outputs)[-6000:]
    return {name: Seen(**seen) for name, seen in json.loads(found.read_text()).items()}


def _main(rank: int, world_size: int, meeting: str, plan: Path, found: Path) -> None:
    import deepspeed
    import torch

    from asclepius_ray import transfers

    transfers.WAIT_SECONDS = 0.01
    torch.set_num_threads(1)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size
    )
    deepspeed.init_distributed("gloo", verbose=False)
    seen = {}
    for values in json.loads(plan.read_text()):
        task = Task(**{**values, "variant": Variant(**values["variant"])})
        seen[task.name] = asdict(_do(task, rank, world_size))
    if rank == 0:
        found.write_text(json.dumps(seen))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _do(task: Task, rank: int, world_size: int) -> Seen:
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.errors import TrainingError
    from asclepius_ray.training.checkpoints.adam import read_adam_step
    from asclepius_ray.training.checkpoints.reading import restore_newest
    from asclepius_ray.training.checkpoints.writing import CheckpointWriter
    from asclepius_ray.training.loop_state import LoopState

    engine = _start_engine(task.variant, world_size)
    state, warnings, reads = LoopState(), [], _CountedReads()
    try:
        if task.load:
            state = restore_newest(engine, Folder(task.load), warnings.append) or state
        loop_state, num_bytes, loaded = state.to_json(), reads.num_bytes, _digests(engine)

        def train(steps: int) -> list[float]:
            first = state.total_steps
            state.total_steps += steps
            return [_train_step(engine, step, rank, world_size) for step in range(first, first + steps)]

        losses = train(task.steps)
        saved, adam_step = _digests(engine), read_adam_step(engine)
        if task.save:
            state.metric_bytes = state.total_steps + 1
            with CheckpointWriter(engine, Folder(task.save), num_kept=2) as checkpoints:
                checkpoints.save(state)
                # The thread may still be at work: what it writes must be of the moment of saving.
                losses += train(task.more_steps)
        else:
            losses += train(task.more_steps)
    except TrainingError as error:
        return Seen(warnings=warnings, error=str(error))
    optimizer = type(engine.optimizer).__name__
    end = _digests(engine)
    engine.destroy()
    return Seen(loaded, saved, end, adam_step, loop_state, losses, warnings, num_bytes, optimizer)


class _CountedReads:
    """How much `Folder` reads from now on."""

    def __init__(self) -> None:
        from asclepius_ray.artifacts import Folder

        self.num_bytes = 0
        read = Folder.read_bytes

        def counting(folder: Folder, name: str) -> bytes:
            content = read(folder, name)
            self.num_bytes += len(content)
            return content

        Folder.read_bytes = counting


def _start_engine(variant: Variant, world_size: int) -> Any:
    import deepspeed
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from asclepius_ray.training.engine_tuning import tune_engine

    accumulation = max(1, GLOBAL_BATCH // MICRO_BATCH // world_size)
    config: dict[str, Any] = {
        "train_batch_size": MICRO_BATCH * accumulation * world_size,
        "train_micro_batch_size_per_gpu": MICRO_BATCH,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": variant.stage, **variant.zero},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-2, "torch_adam": True}},
        "steps_per_print": 1_000_000,
    }
    if variant.precision == "bf16":
        config["bf16"] = {"enabled": True}
        if variant.stage:
            config["data_types"] = {"grad_accum_dtype": "fp32"}
    torch.manual_seed(3)
    # Odd sizes: no tensor and no group divides by the number of ranks.
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=57,
            intermediate_size=71,
            num_hidden_layers=2,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=18,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=variant.tied,
        )
    )
    model.to({"fp32": torch.float32, "bf16": torch.bfloat16}[variant.precision])
    if variant.frozen:
        model.model.layers[0].requires_grad_(False)
    trainable = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    groups = [{"params": [value for _, value in trainable], "weight_decay": 0.1}]
    if variant.no_decay:
        groups = [
            {"params": [value for name, value in trainable if "norm" not in name], "weight_decay": 0.1},
            {"params": [value for name, value in trainable if "norm" in name], "weight_decay": 0.0},
        ]
    engine, *_ = deepspeed.initialize(model=model, model_parameters=groups, config=config)
    # DeepSpeed's own norm differs in its last bit between one worker and two (seen on one of two CPUs).
    tune_engine(engine)
    return engine


def _train_step(engine: Any, step: int, rank: int, world_size: int) -> float:
    import torch

    ids = torch.randint(0, VOCABULARY, (GLOBAL_BATCH, LENGTH), generator=torch.Generator().manual_seed(step))
    for group in engine.optimizer.param_groups:
        group["lr"] = 1e-2 / (1 + step)
    summed = torch.zeros(1, dtype=torch.float64)
    for number in range(engine.gradient_accumulation_steps()):
        first = (number * world_size + rank) * MICRO_BATCH
        rows = ids[first : first + MICRO_BATCH]
        loss = engine(input_ids=rows, labels=rows, use_cache=False).loss
        summed += loss.detach().double()
        engine.backward(loss)
        engine.step()
    torch.distributed.all_reduce(summed)
    return float(summed) * MICRO_BATCH / GLOBAL_BATCH


def _digests(engine: Any) -> dict[str, dict[str, str]]:
    """sha256 of every parameter's state, put together from all ranks, and of the model's own weights."""
    import torch

    from asclepius_ray.training.checkpoints.pieces import parameter_sizes, pieces_to_save
    from asclepius_ray.training.checkpoints.shards import FIELDS

    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    own = [
        (piece.fragment, {name: getattr(piece, name).clone() for name in FIELDS})
        for piece in pieces_to_save(engine, rank, world_size)
    ]
    shares: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(shares, own)
    weights = _gather_weights(engine.module)
    found: dict[str, dict[str, str]] = {}
    for name, size in parameter_sizes(engine).items():
        whole = {field: torch.full((size,), torch.nan) for field in FIELDS}
        for share in shares:
            for fragment, tensors in share:
                if fragment.name == name:
                    for field in FIELDS:
                        whole[field][fragment.start : fragment.start + fragment.size] = tensors[field]
        found[name] = {field: _sha(tensor) for field, tensor in whole.items()}
        if rank == 0:
            # Read out in another way: they must be the masters, rounded to the model's precision.
            assert torch.equal(weights[name].flatten(), whole["master"].to(weights[name].dtype)), name
    return found


def _gather_weights(model: Any) -> dict[str, Any]:
    """All weights under their names, whatever the ZeRO stage; a collective."""
    import deepspeed

    weights = {}
    for name, parameter in model.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=hasattr(parameter, "ds_id")):
            weights[name] = parameter.detach().clone()
    return weights


def _sha(tensor: Any) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


if __name__ == "__main__":
    _main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
