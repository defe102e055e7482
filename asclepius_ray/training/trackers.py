"""The figures of a training in TensorBoard or Weights & Biases, whose files lie below `training/`.

They get the steps' numbers and the names of those, nothing else: no setting, no text, no code.
"""

import importlib.util
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import SummaryWriter

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError

MIRROR_SECONDS = 60.0
_PLACE = ("step", "phase_number")
"""Where a line stands; the step is the axis of all figures."""


class Tracker(Protocol):
    """Where figures go."""

    def begin(self, step: int) -> None:
        """Figures of the steps behind this one, if there are any, are of lost work."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


def check_trackers(names: Iterable[str]) -> None:
    """A ConfigError if a tracker is asked for whose package is not installed."""
    if "wandb" in names and importlib.util.find_spec("wandb") is None:
        raise ConfigError(
            'training.trackers names "wandb", but the package wandb is not installed here; '
            "`pip install wandb`, or take it out of the list"
        )


def open_trackers(names: Iterable[str], training: Folder) -> list[Tracker]:
    """The trackers of a run's `training/`; nothing is written before `begin`."""
    kinds: dict[str, type[TensorBoard] | type[WeightsAndBiases]] = {
        "tensorboard": TensorBoard,
        "wandb": WeightsAndBiases,
    }
    return [kinds[name](LocalCopy(training.child(name))) for name in names]


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a metric line under the names that they have in a tracker."""
    group = "validation" if "validation_loss" in line else "training"
    numbers = {name: value for name, value in line.items() if isinstance(value, int | float)}
    return {
        f"{group}/{name.removeprefix('validation_')}": float(value)
        for name, value in numbers.items()
        if name not in _PLACE
    }


class LocalCopy:
    """A local folder for a tracker's files: the run's own, or one that is sent to a bucket now and then."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._sent_at = time.monotonic()
        if folder.is_local:
            self.path = folder.local_path
        else:
            self._scratch = tempfile.TemporaryDirectory(prefix="asclepius-")
            self.path = Path(self._scratch.name)

    def make(self) -> Path:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.path

    def send(self) -> None:
        """Sends the files if the last time is long ago."""
        if self._scratch is not None and time.monotonic() - self._sent_at >= MIRROR_SECONDS:
            self._folder.upload(self.path)
            self._sent_at = time.monotonic()

    def close(self) -> None:
        if self._scratch is not None:
            self._folder.upload(self.path)
            self._scratch.cleanup()


class TensorBoard:
    """Event files in `training/tensorboard/`."""

    def __init__(self, files: LocalCopy) -> None:
        self._files = files
        self._writer: SummaryWriter | None = None

    def begin(self, step: int) -> None:
        if self._writer is not None:
            self._writer.close()
        # TensorBoard leaves out what earlier files say of the steps from here on; each has a name of its own.
        self._writer = SummaryWriter(
            str(self._files.make()), purge_step=step + 1, filename_suffix=f".{time.time_ns()}"
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        assert self._writer is not None, "figures come after the start of the workers"
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._files.send()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._files.close()


class WeightsAndBiases:
    """A run in `training/wandb/`; where it is sent to is decided by wandb's own variables (WANDB_MODE)."""

    def __init__(self, files: LocalCopy) -> None:
        self._files = files
        self._run: Any = None

    def begin(self, step: int) -> None:
        import wandb

        if self._run is None:
            # Neither code, console nor machine: only what `log` is given.
            quiet = wandb.Settings(
                console="off", disable_git=True, disable_code=True, save_code=False, x_disable_meta=True,
                x_disable_stats=True, x_disable_machine_info=True, silent=True,
            )  # fmt: skip
            self._run = wandb.init(project="asclepius-ray", dir=str(self._files.make()), settings=quiet)
            # Its own count never goes back, as steps do that were lost.
            self._run.define_metric("step", hidden=True)
            self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({"step": step, **values})
        self._files.send()

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
        self._files.close()
