"""The metric lines of a training → its part of the page, as pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from markupsafe import Markup

from asclepius_ray.report.plots import SMALL, Curve, draw_curves

Line = Mapping[str, Any]
STEP_AXIS = "optimizer step"


@dataclass(frozen=True)
class Phase:
    """One phase of the training; what was not measured is None."""

    name: str
    steps: int
    tokens: int
    seconds: float
    first_loss: float
    last_loss: float
    validation: tuple[tuple[int, float], ...]
    perplexity: float | None
    """Of the last validation."""
    padding_share: float
    data_wait_share: float
    checkpoint_blocked_share: float
    model_flops_utilisation: float | None
    memory_gib: float
    """The most that rank 0 has taken: of its GPU's memory, or else of the machine's."""
    plot: Markup

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


@dataclass(frozen=True)
class Progression:
    """One figure over all steps."""

    title: str
    caption: str
    plot: Markup


def describe_phases(metrics: Sequence[Line]) -> list[Phase]:
    """The phases in the order in which they were trained; one without a step yet is left out."""
    stretches = [list(lines) for _, lines in groupby(metrics, lambda line: line["phase_number"])]
    return [
        _phase(number, lines)
        for number, lines in enumerate(stretches)
        if any("loss" in line for line in lines)
    ]


def describe_progressions(metrics: Sequence[Line]) -> list[Progression]:
    """Learning rate, gradient norm and speed, each over the steps of all phases."""
    wanted = (
        ("learning_rate", "Learning rate", "Rises at the start of each phase, then falls along a cosine."),
        ("gradient_norm", "Gradient norm", "Before it is clipped."),
        ("tokens_per_second", "Tokens per second", "Real tokens over all workers; padding is not counted."),
    )
    found = (_progression(metrics, *names) for names in wanted)
    return [progression for progression in found if progression is not None]


def _progression(metrics: Sequence[Line], key: str, title: str, caption: str) -> Progression | None:
    points = [(float(line["step"]), float(line[key])) for line in metrics if line.get(key) is not None]
    if not points:
        return None
    steps, values = zip(*points, strict=True)
    description = (
        f"{title} over {len(points)} optimizer steps: from {values[0]:.3g} to {values[-1]:.3g}, "
        f"between {min(values):.3g} and {max(values):.3g}."
    )
    name = key.replace("_", "-")
    plot = draw_curves(name, [Curve(title, steps, values)], (STEP_AXIS, title.lower()), description, SMALL)
    return Progression(title, caption, plot)


def _phase(number: int, lines: Sequence[Line]) -> Phase:
    steps = [line for line in lines if "loss" in line]
    tokens, seconds = sum(line["tokens"] for line in steps), sum(line["seconds"] for line in steps)
    positions = sum(line["tokens"] / (1 - line["padding_share"]) for line in steps)
    blocked = sum(_blocked_seconds(line) for line in steps)
    used = [line["model_flops_utilisation"] * line["seconds"] for line in steps if _has_utilisation(line)]
    perplexities = [line["perplexity"] for line in lines if line.get("perplexity") is not None]
    return Phase(
        name=lines[0]["phase"],
        steps=len(steps),
        tokens=tokens,
        seconds=seconds,
        first_loss=float(steps[0]["loss"]),
        last_loss=float(steps[-1]["loss"]),
        validation=_validation(lines),
        perplexity=perplexities[-1] if perplexities else None,
        padding_share=1 - tokens / positions,
        data_wait_share=sum(line["data_wait_share"] * line["seconds"] for line in steps) / seconds,
        checkpoint_blocked_share=blocked / (seconds + blocked),
        model_flops_utilisation=sum(used) / seconds if used else None,
        memory_gib=max(line.get("device_memory_gib", line["host_memory_gib"]) for line in steps),
        plot=_draw_loss(number, lines),
    )


def _has_utilisation(line: Line) -> bool:
    return line.get("model_flops_utilisation") is not None


def _blocked_seconds(line: Line) -> float:
    share: float = line["checkpoint_blocked_share"]
    return share / (1 - share) * float(line["seconds"])


def _validation(lines: Sequence[Line]) -> tuple[tuple[int, float], ...]:
    return tuple(
        (int(line["step"]), float(line["validation_loss"]))
        for line in lines
        if line.get("validation_loss") is not None
    )


def _draw_loss(number: int, lines: Sequence[Line]) -> Markup:
    steps = [line for line in lines if "loss" in line]
    losses = tuple(float(line["loss"]) for line in steps)
    curves = [Curve("training", tuple(float(line["step"]) for line in steps), losses)]
    description = (
        f"Loss over {len(steps)} optimizer steps of the phase {lines[0]['phase']}: "
        f"from {losses[0]:.3f} to {losses[-1]:.3f}"
    )
    if validation := _validation(lines):
        places, values = zip(*validation, strict=True)
        curves.append(Curve("validation", places, values, marked=True))
        description += f"; validation from {values[0]:.3f} to {values[-1]:.3f}"
    axes = (STEP_AXIS, "loss (nats per token)")
    return draw_curves(f"loss-{number}", curves, axes, description + ".")
