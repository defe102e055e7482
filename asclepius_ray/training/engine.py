"""A model folder → the model under DeepSpeed on one worker."""

from pathlib import Path

import deepspeed
import torch
from deepspeed import DeepSpeedEngine
from pydantic import ValidationError

from asclepius_ray.errors import ConfigError
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.deepspeed_config import deepspeed_config
from asclepius_ray.training.engine_tuning import tune_engine
from asclepius_ray.training.lora import add_adapters
from asclepius_ray.training.model import load_model, load_sharded_model
from asclepius_ray.training.varlen import attend_by_documents


def start_engine(path: Path, training: TrainingConfig, seed: int = 0) -> DeepSpeedEngine:
    """The model of a folder under DeepSpeed, on the process group that Ray Train has opened.

    `seed` is for what is not in the folder: the first weights of adapters.
    """
    if not training.use_gpu:
        # DeepSpeed would compile its shared-memory collectives at first use; gloo does without.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    # Before zero.Init, which would otherwise count one worker only.
    deepspeed.init_distributed("nccl" if training.use_gpu else "gloo", verbose=False)
    config = deepspeed_config(training, torch.distributed.get_world_size())
    try:
        if training.zero_stage == 3:
            model = load_sharded_model(path, training, config)
        else:
            model = load_model(path, training)
        if training.attention != "sdpa":
            attend_by_documents(model)
        if training.lora is not None:
            add_adapters(model, training.lora, seed)
        if training.gradient_checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        engine, *_ = deepspeed.initialize(model=model, model_parameters=trained, config=config)
        tune_engine(engine)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        path_of_key = ".".join(str(part) for part in problem["loc"])
        raise ConfigError(
            f"training.deepspeed: {error.title}: {path_of_key}: {problem['msg']}; "
            "DeepSpeed's documentation lists its settings"
        ) from error
    return engine
