"""What the GPUs of a run cost, as the lines that `asclepius estimate` prints. Pure."""

from collections.abc import Iterator

from asclepius_ray.costs.gpus import GpuPlan
from asclepius_ray.costs.serving import ServingCost, serving_cost
from asclepius_ray.costs.sizes import KeptRows
from asclepius_ray.costs.training import TrainingCost, training_cost
from asclepius_ray.doctor.model_shapes import find_shape
from asclepius_ray.run import Run


def tell_gpus(run: Run, rows: KeptRows | None, gpu: GpuPlan) -> Iterator[str]:
    """One line for the training and one for serving; each says what it was reckoned with.

    `rows` is None for a run without an input, of which nobody knows how much it trains on.
    """
    shape = find_shape(run.training)
    if rows is None:
        yield "training  not reckoned: the run has no input, so nothing to train on is known"
    elif run.training.dataset:
        yield (
            "training  not reckoned: training.dataset is a table of its own, of which neither the input nor "
            "sizes tell how long it is"
        )
    elif not run.training.use_gpu:
        yield "training  on CPUs (training.use_gpu = false): no GPU hours"
    elif shape is None:
        yield (
            f"training  the size of {run.training.shown_base_model} is not known here: give a folder with "
            "its config.json; asclepius doctor measures a step on the cluster"
        )
    else:
        yield tell_training(training_cost(run, shape, rows, gpu), gpu)
    if not run.serving.use_gpu:
        yield "serving   on CPUs (serving.use_gpu = false): no GPU hours"
    else:
        yield tell_serving(serving_cost(run.serving, gpu))


def tell_training(cost: TrainingCost, gpu: GpuPlan) -> str:
    return (
        f"training  {cost.tokens / 1e6:,.1f} million tokens x {cost.operations_per_token / 1e9:,.1f} billion "
        f"operations, at {gpu.utilisation:.0%} of the peak of {cost.gpus} {gpu.name}: "
        f"{cost.hours:,.1f} hours, {cost.gpu_hours:,.1f} GPU hours, {cost.usd:,.2f} USD"
    )


def tell_serving(cost: ServingCost) -> str:
    gpus, usd = f"{cost.fewest_gpus}", f"{cost.fewest_usd:,.2f}"
    if cost.most_gpus > cost.fewest_gpus:
        gpus, usd = f"{gpus} to {cost.most_gpus}", f"{usd} to {cost.most_usd:,.2f}"
    said = f"serving   {gpus} GPU(s) for {cost.hours:,.0f} hours: {usd} USD"
    if cost.usd_per_million_tokens is None:
        return said
    per_million = f"{cost.usd_per_million_tokens:,.2f} USD a million tokens"
    return f"{said}; a replica that is never idle answers at {per_million}"
