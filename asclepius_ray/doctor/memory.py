"""How much memory one training worker takes under each ZeRO stage. Pure.

What is kept from step to step is the count of Rajbhandari et al. 2020 (arXiv 1910.02054, section 3: weights,
gradients, master copy, two moments), with the copies that DeepSpeed 0.19 makes besides; what a forward pass
keeps for the backward one is counted by tensor, as Korthikanti et al. 2022 do (arXiv 2205.05198, section 4),
for a Llama layer and an attention that keeps no square of the length. P parameters, T of them trained, N
workers, w bytes a weight (4 in fp32, 2 in bf16), h hidden size, i intermediate size, V vocabulary:

    weights      wP (stage 3: wP/N, and wM + wF for those that are put together at the moment,
                 M = min(P, 1e9) and F = min(P, 5e7): DeepSpeed's max_live_parameters and prefetch_bucket)
    master       4T/N (stage 0: 4T in bf16, none in fp32)
    moments      8T/N (stage 0: 8T)
    gradients    wT (stage 1: and 4T in bf16; stages 2 and 3: 4T/N instead)
    bucket       w min(T, B), on a GPU wB from stage 1 on, where B = 5e8 (reduce_bucket_size) is taken whole
    activations  for each of the micro-batch's tokens and each layer 44h + 16i in fp32, 26h + 8i in bf16;
                 with checkpointing wh a layer, and one layer whole
    logits       12V for each of those tokens: 32-bit logits, their log-softmax and its gradient
    step         8T/N (stage 0: 8 of the largest tensor, and 4T in bf16; stage 3: 12 min(T/N, 1e9)):
                 AdamW's intermediate values; the activations are gone by then

The peak is the larger of the backward pass's and the step's. With its optimizer offloaded a worker has
master, moments, gradients and step in the host's memory, with its parameters offloaded wP/N as well.
"""

from dataclasses import dataclass, replace
from typing import Literal

LIVE_PARAMETERS = 1_000_000_000
PREFETCHED_PARAMETERS = 50_000_000
SUB_GROUP_ELEMENTS = 1_000_000_000
BUCKET_ELEMENTS = 500_000_000


@dataclass(frozen=True)
class ModelShape:
    """What of a model decides its memory."""

    parameters: int
    trainable_parameters: int
    largest_tensor: int
    hidden_size: int
    intermediate_size: int
    layers: int
    vocabulary_size: int


@dataclass(frozen=True)
class Plan:
    """How it is trained."""

    zero_stage: int
    workers: int
    precision: Literal["fp32", "bf16"]
    micro_batch: int
    sequence_length: int
    gradient_checkpointing: bool
    on_gpu: bool
    optimizer_offload: bool = False
    parameter_offload: bool = False
    bucket_elements: int = BUCKET_ELEMENTS
    """DeepSpeed's reduce_bucket_size."""

    @property
    def weight_bytes(self) -> int:
        return 4 if self.precision == "fp32" else 2

    def at_stage(self, zero_stage: int) -> "Plan":
        return replace(self, zero_stage=zero_stage)


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes of one worker, where it computes and in the memory of its host."""

    kept: float
    """From step to step."""
    backward: float
    """At most, while it goes back through the model."""
    step: float
    """At most, while the optimizer takes its step."""
    offloaded: float
    """At most in the host's memory, where the optimizer or the weights are kept there."""

    @property
    def peak(self) -> float:
        return max(self.backward, self.step)


def worker_memory(model: ModelShape, plan: Plan) -> WorkerMemory:
    """The bytes of one worker by the formulas above."""
    share = plan.workers if plan.zero_stage else 1
    trained, weight = model.trainable_parameters, plan.weight_bytes
    needs_master = plan.precision == "bf16" or plan.zero_stage > 0
    optimizer = (8 + (4 if needs_master else 0)) * trained / share
    weights = weight * model.parameters / (plan.workers if plan.zero_stage == 3 else 1)
    gradients, step = _gradients(model, plan), _step(model, plan)
    offloaded = 0.0
    if plan.optimizer_offload:
        offloaded += optimizer + gradients + step
        optimizer = gradients = step = 0.0
    if plan.parameter_offload:
        offloaded += weights
        weights = 0.0
    kept = weights + optimizer
    passing = _gathered(model, plan) + _bucket(model, plan) + _activations(model, plan)
    return WorkerMemory(
        kept=kept,
        backward=kept + gradients + passing,
        step=kept + gradients + step,
        offloaded=offloaded,
    )


def checkpoint_bytes(model: ModelShape) -> int:
    """Of one checkpoint, all workers' files together: each trained parameter in 32 bits and two moments."""
    return 12 * model.trainable_parameters


def _gradients(model: ModelShape, plan: Plan) -> float:
    trained = model.trainable_parameters
    if plan.zero_stage >= 2:
        return 4 * trained / plan.workers
    summed = 4 if plan.zero_stage == 1 and plan.precision == "bf16" else 0
    return (plan.weight_bytes + summed) * trained


def _step(model: ModelShape, plan: Plan) -> float:
    if plan.zero_stage == 0:
        copied = 4 * model.trainable_parameters if plan.precision == "bf16" else 0
        return 8 * model.largest_tensor + copied
    share = model.trainable_parameters / plan.workers
    return 8 * share if plan.zero_stage < 3 else 12 * min(share, SUB_GROUP_ELEMENTS)


def _gathered(model: ModelShape, plan: Plan) -> float:
    if plan.zero_stage < 3 or (plan.workers == 1 and not plan.parameter_offload):
        return 0.0
    at_once = min(model.parameters, LIVE_PARAMETERS) + min(model.parameters, PREFETCHED_PARAMETERS)
    return plan.weight_bytes * at_once


def _bucket(model: ModelShape, plan: Plan) -> float:
    taken_whole = plan.on_gpu and plan.zero_stage > 0
    # On a CPU what is taken and never written costs nothing.
    elements = plan.bucket_elements if taken_whole else min(plan.bucket_elements, model.trainable_parameters)
    return plan.weight_bytes * elements


def _activations(model: ModelShape, plan: Plan) -> float:
    hidden, inner, weight = model.hidden_size, model.intermediate_size, plan.weight_bytes
    layer = 44 * hidden + 16 * inner if plan.precision == "fp32" else 26 * hidden + 8 * inner
    logits = 12 * model.vocabulary_size
    kept = model.layers * layer + logits
    if plan.gradient_checkpointing:
        # The logits are gone before the last layer is computed again.
        kept = model.layers * weight * hidden + max(layer, logits)
    return plan.micro_batch * plan.sequence_length * kept
