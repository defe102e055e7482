"""The function that Ray Train calls on each worker: sets the process up, then enters the loop."""

import logging
import os
from typing import Any

from transformers.utils.logging import disable_progress_bar

from asclepius_ray.artifacts import Folder
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.failures import memory_errors_named
from asclepius_ray.training.machine import require_this_machine
from asclepius_ray.training.threads import use_own_cores


def train_on_worker(settings: dict[str, Any]) -> None:
    """`settings` as `stage.py` builds them; plain values, so that they travel as they are."""
    training = TrainingConfig.model_validate(settings["training"])
    if not training.use_gpu:
        os.environ["DS_ACCELERATOR"] = "cpu"
        use_own_cores(training.cpu_threads)
    require_this_machine(training)
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    disable_progress_bar()

    # Here and not above: DeepSpeed reads DS_ACCELERATOR when it is imported.
    from asclepius_ray.training import loop

    job = loop.Job(
        root=Folder(settings["root"]),
        sequence_length=settings["sequence_length"],
        training=training,
        seed=settings["seed"],
        board=settings["board"],
    )
    with memory_errors_named():
        loop.run(job)
