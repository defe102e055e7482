"""TensorBoard and Weights & Biases get the numbers of the steps, once each, and nothing else."""

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.training.trackers import check_trackers, open_trackers, scalars

HAS_WANDB = importlib.util.find_spec("wandb") is not None
STEP_LINE = {
    "phase": "notes",
    "phase_number": 1,
    "step": 3,
    "loss": 2.5,
    "rows": "00ff",
    "gradient_norm": None,
    "tokens": 90,
    "data_wait_share": 0.25,
}


def events_in(folder: Path) -> Iterator[Event]:
    """All events of a folder in their order: a file is a row of (length, checksum, event, checksum)."""
    for file in sorted(folder.glob("events.*"), key=lambda path: path.stat().st_mtime_ns):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            yield Event.FromString(content[place + 12 : place + 12 + length])
            place += 16 + length


def shown(folder: Path) -> dict[str, dict[int, float]]:
    """Name → step → value, as TensorBoard shows it: a restart takes back the steps from its own on."""
    found: dict[str, dict[int, float]] = {}
    for event in events_in(folder):
        if event.HasField("session_log"):
            found = {
                name: {step: value for step, value in values.items() if step < event.step}
                for name, values in found.items()
            }
        for value in event.summary.value:
            found.setdefault(value.tag, {})[event.step] = value.simple_value
    return found


def test_a_line_becomes_its_numbers_alone() -> None:
    assert scalars(STEP_LINE) == {
        "training/loss": 2.5,
        "training/tokens": 90.0,
        "training/data_wait_share": 0.25,
    }
    line = {"phase": "notes", "phase_number": 1, "step": 3, "validation_loss": 2.0, "perplexity": 7.4}
    assert scalars(line) == {"validation/loss": 2.0, "validation/perplexity": 7.4}


def test_tensorboard_shows_every_step_once_even_after_a_restart(tmp_path: Path) -> None:
    (tracker,) = open_trackers(["tensorboard"], Folder(str(tmp_path)))
    assert not (tmp_path / "tensorboard").exists(), "nothing is written before the training starts"
    tracker.begin(0)
    for step in range(1, 6):
        tracker.log(step, {"training/loss": float(step)})
    # Back to the checkpoint of step 2: what was seen of steps 3 to 5 is of lost work.
    tracker.begin(2)
    for step in range(3, 5):
        tracker.log(step, {"training/loss": 10.0 + step})
    tracker.close()
    assert shown(tmp_path / "tensorboard") == {"training/loss": {1: 1.0, 2: 2.0, 3: 13.0, 4: 14.0}}


def test_files_for_a_bucket_get_there_when_the_training_ends(tmp_path: Path) -> None:
    """A folder of another file system than the local one, which is what a bucket is."""
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tracker,) = open_trackers(["tensorboard"], _ElsewhereFolder(str(target)))
    tracker.begin(0)
    tracker.log(1, {"training/loss": 4.0})
    assert not list(target.rglob("events.*"))
    tracker.close()
    assert shown(target / "tensorboard") == {"training/loss": {1: 4.0}}


class _ElsewhereFolder(Folder):
    @property
    def is_local(self) -> bool:
        return False

    def child(self, name: str) -> "Folder":
        return _ElsewhereFolder(f"{self.uri}/{name}")

    def upload(self, source: Path) -> None:
        Folder(self.uri).upload(source)


@pytest.mark.skipif(HAS_WANDB, reason="the package wandb is here")
def test_a_tracker_that_is_not_installed_is_refused_at_the_start() -> None:
    check_trackers(["tensorboard"])
    with pytest.raises(ConfigError, match=r'"wandb", but the package wandb is not installed.*pip install'):
        check_trackers(["tensorboard", "wandb"])


@pytest.mark.skipif(not HAS_WANDB, reason="the package wandb is not here")
def test_weights_and_biases_works_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(["wandb"])
    (tracker,) = open_trackers(["wandb"], Folder(str(tmp_path)))
    tracker.begin(0)
    tracker.log(1, {"training/loss": 4.125})
    tracker.begin(0)
    tracker.log(1, {"training/loss": 5.125})
    tracker.close()
    (log,) = (tmp_path / "wandb").rglob("run-*.wandb")
    content = log.read_bytes()
    assert b"training/loss" in content
    assert b"4.125" in content
    assert b"5.125" in content
    others = [file.name for file in (tmp_path / "wandb").rglob("*") if file.is_file() and file != log]
    assert not [name for name in others if name.endswith((".py", ".patch", "metadata.json"))], others
