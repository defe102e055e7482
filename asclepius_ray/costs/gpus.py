"""What is assumed of the GPUs: which, what an hour of one costs, and how well it is used."""

from dataclasses import dataclass

from asclepius_ray.errors import ConfigError
from asclepius_ray.training.utilisation import known_gpus, peak_flops

UTILISATION = 0.3
"""The share of its peak that a GPU reaches, with what is computed twice: about what the paper's own trainings
did on eight A100 (1 h 33 min for the 7B model's epoch over the notes)."""
SERVING_HOURS = 730.0
"""A month."""


@dataclass(frozen=True)
class GpuPlan:
    """One kind of GPU as the user takes it to be."""

    name: str
    usd_per_hour: float
    peak_flops: float
    utilisation: float = UTILISATION
    serving_hours: float = SERVING_HOURS
    tokens_per_second: float = 0.0
    """That one replica answers; 0 = nobody knows yet."""


def read_gpu_plan(
    gpu: str, utilisation: float | None, serving_hours: float | None, tokens_per_second: float | None
) -> GpuPlan | None:
    """The plan of the command's options, "A100=2.50" and what is assumed of it; None without a GPU."""
    given = {
        "utilisation": utilisation,
        "serving_hours": serving_hours,
        "tokens_per_second": tokens_per_second,
    }
    assumed = {name: value for name, value in given.items() if value is not None}
    if not gpu:
        for name in assumed:
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is of a GPU; name one and its price: --gpu NAME=USD_PER_HOUR")
        return None
    name, _, price = gpu.partition("=")
    peak = peak_flops(name)
    if peak is None:
        known = ", ".join(known_gpus())
        raise ConfigError(f"--gpu {name!r}: what it can do is not known; there are {known}")
    return GpuPlan(name, _price(gpu, price), peak, **assumed)


def _price(gpu: str, text: str) -> float:
    try:
        price = float(text)
    except ValueError:
        price = -1.0
    if not 0 <= price < float("inf"):
        raise ConfigError(
            f"--gpu {gpu!r}: it takes the price of an hour of one GPU behind the name, as A100=2.50; the "
            "price of a machine of eight is eight times as much, and that of your own 0"
        )
    return price
