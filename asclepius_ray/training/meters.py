"""One optimizer step → the figures of its metric line, as one worker sees them."""

from collections.abc import Sequence
from dataclasses import dataclass

import psutil
import torch
from deepspeed import DeepSpeedEngine

from asclepius_ray.training.batches import PackedRows
from asclepius_ray.training.utilisation import ModelSize, causal_pairs, measure_model, peak_flops

GIB = float(1 << 30)
Line = dict[str, float]


@dataclass(frozen=True)
class StepTimes:
    """Where the time of one step went, in seconds."""

    step: float
    """From before its first row to after the optimizer."""
    data_wait: float
    """Of that, waiting for rows."""
    checkpoint_blocked: float
    """Before the step: standing still for a checkpoint."""


class StepMeter:
    """The figures that depend on the model and the machine; made once a worker."""

    def __init__(self, engine: DeepSpeedEngine, precision: str, workers: int) -> None:
        self._engine = engine
        self._workers = workers
        self._process = psutil.Process()
        self._size: ModelSize | None = None
        self._peak: float | None = None
        self._is_cuda = engine.device.type == "cuda"
        if self._is_cuda and precision == "bf16":
            self._peak = peak_flops(torch.cuda.get_device_name(engine.device))
            self._size = measure_model(engine.module)

    def measure(self, packed: PackedRows, rows: list[int], positions: int, times: StepTimes) -> Line:
        """The figures of a step over these rows of all workers, which took `positions` with their padding.

        Shares and memory are this worker's own. What cannot be known here is left out.
        """
        tokens = packed.tokens(rows)
        line: Line = {
            "tokens": tokens,
            "seconds": round(times.step, 4),
            "tokens_per_second": round(tokens / times.step, 1),
            "padding_share": round(1 - tokens / positions, 5),
            "data_wait_share": round(times.data_wait / times.step, 5),
            "checkpoint_blocked_share": round(
                times.checkpoint_blocked / (times.step + times.checkpoint_blocked), 5
            ),
            "host_memory_gib": round(self._process.memory_info().rss / GIB, 3),
        }
        if self._is_cuda:
            line["device_memory_gib"] = round(torch.cuda.max_memory_allocated(self._engine.device) / GIB, 3)
        if self._peak is not None and self._size is not None:
            flops = self._size.step_flops(tokens, causal_pairs(packed.document_lengths(rows)))
            line["model_flops_utilisation"] = round(flops / (times.step * self._peak * self._workers), 5)
        return line


def padded_positions(packed: PackedRows, batches: Sequence[Sequence[list[int]]]) -> int:
    """Positions of all workers' micro-batches (worker → micro-batch → rows), padding included."""
    return sum(packed.positions(rows) for shares in batches for rows in shares)
