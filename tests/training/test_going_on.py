"""What a training that is repeated may throw away: nothing that checkpoints were made with."""

import json
from pathlib import Path
from typing import Any

import pytest

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.errors import ConfigError, StageChangedError, TrainingError
from asclepius_ray.progress import Progress
from asclepius_ray.training.checkpoints.catalog import committed_steps
from asclepius_ray.training.prepared import ensure_artifact, require_seen
from asclepius_ray.training.recorder import Recorder
from asclepius_ray.training.stage import open_training

SETTINGS = {"made_from": {"seed": 1}}


class Saying(Progress):
    """Remembers what was said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, line: str) -> None:
        self.said.append(line)


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    """A root with tokens, and a training that has read them as far as its checkpoint of step 5."""
    root = Folder(str(tmp_path))
    tokens, training = root.child("tokens"), root.child("training")
    tokens.write_bytes("shard", b"old")
    write_manifest(tokens, "tokens", {}, {"rows": "old"})
    open_training(training, SETTINGS, Progress())
    training.write_bytes("metrics.jsonl", b'{"step": 1}\n')
    training.write_bytes("step-0000005/COMMIT", b"{}")
    assert committed_steps(training) == [5]
    return root


def rebuild(root: Folder) -> Any:
    def build() -> tuple[dict[str, Any], dict[str, Any]]:
        root.child("tokens").write_bytes("shard", b"new")
        return {}, {}

    return ensure_artifact(root, "tokens", {"rows": "new"}, build, Progress())


def test_what_checkpoints_were_made_with_is_not_replaced(root: Folder) -> None:
    with pytest.raises(StageChangedError, match="rows: 'old' -> 'new'"):
        rebuild(root)
    assert root.child("tokens").read_bytes("shard") == b"old"


def test_what_no_checkpoint_was_made_with_is_made_anew(root: Folder) -> None:
    root.child("training").clear()
    assert rebuild(root).made_from == {"rows": "new"}
    assert root.child("tokens").read_bytes("shard") == b"new"


def test_a_finished_training_without_checkpoints_and_model_is_not_made_anew_in_silence(root: Folder) -> None:
    training = root.child("training")
    training.delete("step-0000005/COMMIT")
    write_manifest(training, "training", {"steps": 5}, SETTINGS["made_from"])
    with pytest.raises(TrainingError, match="its checkpoints are gone"):
        open_training(training, SETTINGS, Progress())
    assert training.exists("metrics.jsonl")


def test_steps_that_no_checkpoint_has_kept_are_begun_anew_with_a_word(root: Folder) -> None:
    training, progress = root.child("training"), Saying()
    open_training(training, SETTINGS, progress)
    assert progress.said == []
    assert json.loads(training.read_bytes("settings.json")) == SETTINGS
    training.delete("step-0000005/COMMIT")
    open_training(training, SETTINGS, progress)
    assert progress.said == [
        "training: no checkpoint of the steps before was finished; it begins anew with step 1"
    ]
    assert not training.exists("metrics.jsonl")


def test_what_another_node_keeps_on_a_disk_of_its_own_is_not_called_whole(root: Folder) -> None:
    require_seen(root.child("tokens"), ["shard"])
    with pytest.raises(ConfigError, match=r"lacks other, .* a root that all nodes share"):
        require_seen(root.child("tokens"), ["shard", "other"])


def test_a_stop_waits_for_a_step_a_validation_and_two_checkpoints() -> None:
    recorder = Recorder(Progress(), "mine")
    step = {"phase": "notes", "phase_number": 1, "step": 1, "loss": 1.0, "tokens_per_second": 1.0}
    recorder.take(
        [
            {"event": "start", "workers": 1, "step": 0, "total_steps": 9},
            {"event": "metrics", "line": {**step, "seconds": 60.0}},
            {"event": "metrics", "line": {"step": 1, "validation_loss": 1.0, "seconds": 100.0}},
            {"event": "checkpoint", "seconds": 50.0, "total_steps": 1},
        ]
    )
    assert recorder.seconds_to_stop >= 60 + 100 + 2 * 50
