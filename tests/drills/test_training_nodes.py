"""Nodes that are drained, lost and added: no step is lost that could be saved, and no bit is changed."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two nodes; the one of rank 0 drained, one added; that of rank 1 drained, one added; one lost."""
    folder = tmp_path_factory.mktemp("nodes")
    path = os.pathsep.join([str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(
        [sys.executable, HERE / "nodes_that_go.py", folder],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]
    found: dict[str, Any] = json.loads((folder / "seen.json").read_text())
    sys.stdout.write(f"{found['starts']}, longest pauses {found['longest_pause_seconds']} s\n")
    return found


def test_the_group_shrinks_and_grows_with_its_nodes(seen: dict[str, Any]) -> None:
    assert [start["workers"] for start in seen["starts"]] == [2, 1, 2, 1, 2, 1]


def test_a_drained_node_and_a_new_one_cost_no_step(seen: dict[str, Any]) -> None:
    last_start = seen["starts"][-1]["step"]
    before = seen["executed"][: seen["executed"].index(last_start) + 1]
    # Up to the checkpoint before the node was lost without a word, each step ran once.
    assert before == list(range(1, last_start + 1))
    assert len(before) > 30


def test_a_node_lost_without_notice_costs_the_steps_since_the_last_checkpoint_alone(
    seen: dict[str, Any],
) -> None:
    executed, last_start = seen["executed"], seen["starts"][-1]["step"]
    repeated = sorted({step for step in executed if executed.count(step) > 1})
    assert repeated == list(range(last_start + 1, last_start + 1 + len(repeated)))
    assert len(repeated) <= 20, "checkpoints are ten steps apart, and the next one waits for the last"
    assert last_start >= max(step for step in seen["reported"] if step <= last_start)


def test_the_result_is_that_of_an_unbroken_run_bit_for_bit(seen: dict[str, Any]) -> None:
    broken, unbroken = seen["broken"], seen["unbroken"]
    assert broken["consumed"] == unbroken["consumed"]
    assert broken["losses"] == unbroken["losses"]
    assert broken["model"] == unbroken["model"]
    assert broken["state"][:2] == unbroken["state"][:2]
