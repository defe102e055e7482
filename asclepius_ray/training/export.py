"""Trained weights → `model/`: a Hugging Face folder with safetensors, from any ZeRO stage.

All workers walk through the tensors together, since under ZeRO 3 each is put together by all of them. Each
file has one worker that writes it, while the others go on to the next file: a worker holds one file's
tensors at most, and nobody ever holds the model.
"""

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import deepspeed
import torch
import torch.distributed
from transformers import PreTrainedModel

from asclepius_ray.artifacts import Folder, write_sums
from asclepius_ray.tokens.reference_logits import REFERENCE_NAME, pack_reference, reference_rows
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.export_plan import Shard, adapter_sources, index_json, model_sources, plan_shards
from asclepius_ray.training.lora import peft_config
from asclepius_ray.training.safetensors_stream import TensorFile

GIGABYTE = 10**9
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_FOLDER = "adapter"


def export_model(model: PreTrainedModel, folder: Folder, training: TrainingConfig) -> None:
    """Writes weights, configuration and the logits of a few fixed rows. Every rank must call it.

    With adapters the weights are those that they amount to, and `adapter/` holds the adapters alone.
    """
    rank = torch.distributed.get_rank()
    logits = reference_logits(model)
    shards = plan_shards(model_sources(model), training.export_shard_gb * GIGABYTE, "model")
    hashes = write_shards(shards, folder)
    if training.lora is not None:
        # peft reads one file alone, and adapters are small.
        adapter = plan_shards(adapter_sources(model), float("inf"), "adapter_model")
        found = write_shards(adapter, folder.child(ADAPTER_FOLDER))
        hashes |= {f"{ADAPTER_FOLDER}/{name}": digest for name, digest in found.items()}
    if rank == 0:
        if len(shards) > 1:
            folder.write_bytes(INDEX_NAME, index_json(shards))
        folder.write_bytes(REFERENCE_NAME, pack_reference(logits))
        _write_configs(model, folder, training)
        write_sums(folder, hashes)
    torch.distributed.barrier()


def write_shards(shards: Sequence[Shard], folder: Folder) -> dict[str, str]:
    """Gathers and writes the files, each by one rank in turn; their sha256 on every rank."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    own = OwnFiles(folder)
    try:
        for number, shard in enumerate(shards):
            if mine := number % world == rank:
                own.begin(shard)
            for source in shard.sources:
                sharded = [part for part in source.parts if hasattr(part, "ds_id")]
                with deepspeed.zero.GatheredParameters(sharded, enabled=bool(sharded)):
                    if mine:
                        own.put(source.value().values())
        own.finish()
    finally:
        own.abandon()
    everyone: list[dict[str, str]] = [{} for _ in range(world)]
    torch.distributed.all_gather_object(everyone, own.hashes)
    return {name: digest for found in everyone for name, digest in found.items()}


class OwnFiles:
    """The files that one rank writes, one after the other, each by a thread."""

    def __init__(self, folder: Folder) -> None:
        self.hashes: dict[str, str] = {}
        self._folder = folder
        self._name = ""
        self._file: TensorFile | None = None

    def begin(self, shard: Shard) -> None:
        """Opens the next file, once the last is written: this rank holds the tensors of one alone."""
        self.finish()
        self._name, self._file = shard.file, TensorFile(self._folder, shard.file, shard.saved)

    def put(self, tensors: Iterable[torch.Tensor]) -> None:
        assert self._file is not None
        for tensor in tensors:
            self._file.put(tensor.to("cpu", copy=True))

    def finish(self) -> None:
        """Waits for the open file, if any, and keeps its hash."""
        if self._file is not None:
            self.hashes[self._name] = self._file.close()
            self._file = None

    def abandon(self) -> None:
        """Lets the thread of a file end that will not get all of its tensors."""
        if self._file is not None:
            self._file.abandon()


def reference_logits(model: PreTrainedModel) -> torch.Tensor:
    """Logits behind each of the fixed rows, (rows, vocabulary). Every rank must call it."""
    rows = reference_rows(model.config.get_text_config().vocab_size).to(model.device)
    positions = torch.arange(rows.shape[1], device=model.device).expand_as(rows)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(
            input_ids=rows, position_ids=positions, attention_mask=None, use_cache=False
        ).logits[:, -1]
    model.train(was_training)
    return logits.cpu()


def _write_configs(model: PreTrainedModel, folder: Folder, training: TrainingConfig) -> None:
    """config.json and generation_config.json as transformers writes them, and the adapter's."""
    model.config.dtype = str(model.dtype).removeprefix("torch.")
    model.config.architectures = [type(model).__name__]
    with tempfile.TemporaryDirectory() as scratch:
        model.config.save_pretrained(scratch)
        if model.can_generate():
            model.generation_config.save_pretrained(scratch)
        if training.lora is not None:
            base_model = training.shown_base_model
            peft_config(training.lora, base_model).save_pretrained(f"{scratch}/{ADAPTER_FOLDER}")
        folder.upload(Path(scratch))
