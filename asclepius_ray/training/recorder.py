"""Events of the workers → `training/metrics.jsonl` and the progress line."""

import json
import time
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.progress import Progress

METRICS_NAME = "metrics.jsonl"
WRITE_INTERVAL_SECONDS = 5.0


class Recorder:
    """Keeps the metric lines of the whole training, those before an interruption included.

    A line is {phase, step, loss, learning_rate, tokens, rows, seconds, checkpoint_blocked_seconds} for an
    optimizer step, or {phase, step, validation_loss} before and after a phase; `step` counts over all phases,
    `rows` is a hash of the documents that were read.
    """

    def __init__(self, folder: Folder, progress: Progress) -> None:
        self.lines: list[dict[str, Any]] = []
        self._folder = folder
        self._progress = progress
        self.checkpoint_seconds = 0.0
        """How long the last checkpoint took until it was whole."""
        self._total = 0
        self._written_at = 0.0

    def take(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self._take(event)
        if events:
            self._show()
        if events and time.monotonic() - self._written_at > WRITE_INTERVAL_SECONDS:
            self.write()

    def _take(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "start":
                # The checkpoint's history is what the model has seen; lines behind it are of lost steps.
                self.lines = list(event["history"])
                self._total = event["total_steps"]
                self._progress.begin("training", self._total)
                self._progress.say(f"training: {event['workers']} workers begin after step {event['step']}")
            case "metrics":
                self.lines.append(event["line"])
            case "checkpoint":
                self.checkpoint_seconds = event["seconds"]
            case "say":
                self._progress.say(f"training: {event['text']}")

    def write(self) -> None:
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        self._folder.write_bytes(METRICS_NAME, text.encode())
        self._written_at = time.monotonic()

    def _show(self) -> None:
        steps = [line for line in self.lines if "loss" in line]
        detail = f"{steps[-1]['phase']}, loss {steps[-1]['loss']:.3f}" if steps else "first validation"
        self._progress.update(len(steps), self._total, detail)


def summarize(lines: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The counts of the training's manifest, and one entry a phase: losses before, during and after."""
    steps = [line for line in lines if "loss" in line]
    counts = {"steps": len(steps), "tokens": sum(line["tokens"] for line in steps)}
    phases: list[dict[str, Any]] = []
    for line in lines:
        if "validation_loss" in line and (not phases or "validation_loss_after" in phases[-1]):
            phases.append({"phase": line["phase"], "validation_loss_before": line["validation_loss"]})
        elif "validation_loss" in line:
            phases[-1]["validation_loss_after"] = line["validation_loss"]
        else:
            phases[-1].setdefault("first_loss", line["loss"])
            phases[-1]["last_loss"] = line["loss"]
            phases[-1]["steps"] = phases[-1].get("steps", 0) + 1
    return counts, phases
