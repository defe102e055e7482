"""`[training]` → DeepSpeed's configuration. Pure."""

from typing import Any

from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.order import accumulation_steps

NEVER = 1_000_000_000


def deepspeed_config(training: TrainingConfig, workers: int) -> dict[str, Any]:
    """The dictionary for `deepspeed.initialize`; the loop sets the learning rate of every step itself."""
    accumulation = accumulation_steps(training.global_batch, workers, training.micro_batch)
    config: dict[str, Any] = {
        # DeepSpeed's own arithmetic: with padding rows this may be more than global_batch.
        "train_batch_size": training.micro_batch * accumulation * workers,
        "train_micro_batch_size_per_gpu": training.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": training.max_gradient_norm,
        "zero_optimization": {"stage": training.zero_stage},
        "optimizer": {
            "type": "AdamW",
            # torch's own AdamW needs no compiled op; DeepSpeed's would be built at first use.
            "params": {
                "lr": training.phases[0].learning_rate,
                "weight_decay": training.weight_decay,
                "torch_adam": True,
            },
        },
        "steps_per_print": NEVER,
    }
    if training.precision == "bf16":
        config["bf16"] = {"enabled": True}
        if training.zero_stage:
            # 16-bit sums over many micro-batches lose the small gradients.
            config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config
