"""A run file → how it says to train, as far as memory depends on it. Pure."""

from asclepius_ray.doctor.memory import BUCKET_ELEMENTS, Plan
from asclepius_ray.run import Run
from asclepius_ray.training.deepspeed_config import deepspeed_config


def plan_of(run: Run) -> Plan:
    """The plan of the run's training on its fewest workers."""
    training = run.training
    zero = deepspeed_config(training, training.workers.fewest)["zero_optimization"]
    bucket = zero.get("reduce_bucket_size")
    return Plan(
        zero_stage=training.zero_stage,
        workers=training.workers.fewest,
        precision=training.precision,
        micro_batch=training.micro_batch,
        sequence_length=run.tokens.sequence_length,
        gradient_checkpointing=training.gradient_checkpointing,
        on_gpu=training.use_gpu,
        optimizer_offload=training.optimizer_offload,
        parameter_offload=training.parameter_offload,
        # DeepSpeed itself refuses what is no number, in the dry run.
        bucket_elements=int(bucket) if isinstance(bucket, int | float) else BUCKET_ELEMENTS,
    )
