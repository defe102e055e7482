"""A notice to a machine that works in a real cluster: what runs there ends, and nothing new begins."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

HERE = Path(__file__).resolve().parent
TOKEN = "a-token-made-for-this-test"


@pytest.mark.parametrize("authentication", ["token", "disabled"])
def test_a_node_with_a_notice_ends_its_task_and_gets_no_new_one(authentication: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(
            [str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]
        ),
        "RAY_AUTH_MODE": authentication,
        "RAY_AUTH_TOKEN": TOKEN,
    }
    ended = subprocess.run(
        [sys.executable, HERE / "node_with_notice.py", tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, (ended.stdout + ended.stderr)[-6000:]
    seen: dict[str, Any] = json.loads((tmp_path / "seen.json").read_text())
    assert seen["is_guarded"] == (authentication == "token")
    doomed = seen["doomed"]
    assert doomed in seen["before"], "the node worked before"
    assert seen["drained_before"] == {}
    assert seen["drained_after"] == {doomed: round(seen["notice_end_unix"] * 1000)}
    assert doomed not in seen["after"]
    assert seen["still_held"], "the task was not let be"
    assert seen["still_watched"]
    assert seen["held_result"] == doomed
    assert seen["exit_code"] == 0
    assert seen["watch_end_unix"] < seen["notice_end_unix"]
    assert seen["num_alive"] == 1
    assert [line.split(" ", 1)[1].split()[0] for line in seen["said"]] == [
        "watching",
        "notice",
        "Ray",
        "drained:",
    ]
