"""What answers are kept under: two revisions of a model, or two folders' contents, never share them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, pathlib, sys
from asclepius_ray.seats import model_identity
from asclepius_ray.serving.model_source import hub_revision

def put(revision):
    folder = cache / "snapshots" / revision
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (cache / "refs").mkdir(exist_ok=True)
    (cache / "refs" / "main").write_text(revision)
    hub_revision.cache_clear()
    return hub_revision("invented/model"), model_identity("invented/model")

cache = pathlib.Path(sys.argv[1]) / "hub" / "models--invented--model"
folder = pathlib.Path(sys.argv[1]) / "own"
folder.mkdir()
(folder / "config.json").write_text("{}")
before = model_identity(str(folder))
same = model_identity(str(folder))
(folder / "config.json").write_text('{"changed": 1}')
print(json.dumps([put("1" * 40), put("2" * 40), put("1" * 40), before, same, model_identity(str(folder))]))
"""


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """As a process finds them whose cache has one revision, then another, and the hub is away."""
    home = tmp_path_factory.mktemp("home")
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    project = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(home)],
        env=environment,
        cwd=project,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found: list[object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_two_revisions_of_a_hub_model_never_share_answers(identities: list[object]) -> None:
    (first, one), (second, other), again = identities[:3]  # type: ignore[misc]
    assert (first, second) == ("1" * 40, "2" * 40)
    assert one != other
    assert again == [first, one]


def test_a_folder_is_known_by_what_is_in_it(identities: list[object]) -> None:
    before, same, changed = identities[3:]
    assert before == same != changed
