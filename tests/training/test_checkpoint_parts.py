"""The parts of a checkpoint that need no optimizer: files of pieces, the catalogue, scratch folders."""

import itertools
import os
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch

from asclepius_ray import transfers
from asclepius_ray.artifacts import Folder
from asclepius_ray.training.checkpoints.catalog import (
    COMMIT_NAME,
    Commit,
    DamagedCheckpointError,
    Fragment,
    StoredFile,
    committed_steps,
    delete_step,
    find_steps,
    outdated_steps,
    step_folder,
)
from asclepius_ray.training.checkpoints.scratch import PREFIX, remove_abandoned, scratch_folder
from asclepius_ray.training.checkpoints.shards import (
    FIELDS,
    Piece,
    check_coverage,
    copy_into,
    group_pieces,
    overlaps,
    wanted_by_name,
    write_files,
)
from asclepius_ray.training.loop_state import Best, LoopState
from asclepius_ray.transfers import ATTEMPTS, tried_again

SIZES = {"embedding": 97, "norm": 1, "projection": 40, "bias": 7}


def whole_state() -> dict[str, dict[str, torch.Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return {
        name: {field: torch.randn(size, generator=draw) for field in FIELDS} for name, size in SIZES.items()
    }


def cut(state: dict[str, dict[str, torch.Tensor]], ranks: int, seed: int) -> list[list[Piece]]:
    """Every parameter cut at random places, the parts given to ranks."""
    draw = random.Random(seed)
    shares: list[list[Piece]] = [[] for _ in range(ranks)]
    for name, fields in state.items():
        size = len(fields["master"])
        ends = sorted({0, size, *(draw.randrange(size + 1) for _ in range(ranks))})
        for start, end in itertools.pairwise(ends):
            tensors = (fields[field][start:end] for field in FIELDS)
            draw.choice(shares).append(Piece(Fragment(name, start, end - start), *tensors))
    return shares


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("limit", [5, 64, 1000])
def test_any_cut_of_the_state_is_read_back_from_any_other(tmp_path: Path, seed: int, limit: int) -> None:
    saved, read = (
        whole_state(),
        {name: {field: torch.zeros(size) for field in FIELDS} for name, size in SIZES.items()},
    )
    stored: dict[str, list[Fragment]] = {}
    for rank, pieces in enumerate(cut(saved, 3, seed)):
        groups = group_pieces(pieces, limit)
        names = [f"{rank}-{number}" for number in range(len(groups))]
        write_files(tmp_path, names, groups)
        for name, group in zip(names, groups, strict=True):
            stored[name] = [piece.fragment for piece in group]
            assert sum(fragment.size for fragment in stored[name]) <= limit
    for pieces in cut(read, 2, seed + 100):
        wanted = wanted_by_name(pieces)
        check_coverage((fragment for fragments in stored.values() for fragment in fragments), wanted)
        for name, fragments in stored.items():
            if any(overlaps(fragment, wanted) for fragment in fragments):
                copy_into((tmp_path / name).read_bytes(), fragments, wanted)
    for name, fields in saved.items():
        for field, tensor in fields.items():
            assert torch.equal(read[name][field], tensor), (name, field)


def test_a_checkpoint_that_lacks_an_element_is_damaged() -> None:
    wanted = wanted_by_name(cut(whole_state(), 1, 0)[0])
    stored = [Fragment(name, 0, size) for name, size in SIZES.items()]
    check_coverage(stored, wanted)
    with pytest.raises(DamagedCheckpointError, match="projection in part only"):
        check_coverage([*stored[:2], Fragment("projection", 0, 39), stored[3]], wanted)
    with pytest.raises(DamagedCheckpointError, match="bias in part only"):
        check_coverage(stored[:3], wanted)


@pytest.mark.parametrize(
    ("committed", "num_kept", "best", "outdated"),
    [
        ([10, 20, 30], 2, None, [10]),
        ([30, 10, 20, 40], 2, 10, [20]),
        ([10, 20, 30], 1, 30, [20, 10]),
        ([10, 20], 2, None, []),
        ([10, 20, 30], 2, 99, [10]),
        ([], 1, None, []),
    ],
)
def test_the_newest_and_the_best_are_kept(
    committed: list[int], num_kept: int, best: int | None, outdated: list[int]
) -> None:
    assert outdated_steps(committed, num_kept, best) == outdated


def test_a_checkpoint_is_there_once_its_commit_is(tmp_path: Path) -> None:
    training = Folder(str(tmp_path))
    assert committed_steps(training) == []
    for step in (5, 10, 200):
        step_folder(training, step).write_bytes("rank-0000-a.json", b"[]")
    for step in (5, 200):
        step_folder(training, step).write_bytes(COMMIT_NAME, b"{}")
    training.write_bytes("metrics.jsonl", b"")
    assert find_steps(training) == {200: True, 10: False, 5: True}
    assert committed_steps(training) == [200, 5]
    delete_step(training, 200)
    delete_step(training, 200)
    assert committed_steps(training) == [5]
    assert not (tmp_path / "step-0000200").exists()


def test_a_commit_comes_back_as_it_was() -> None:
    state = StoredFile("state.json", 3, "c" * 64)
    file = StoredFile("rank-0000.safetensors", 12, "a" * 64, (Fragment("x.y", 3, 4), Fragment("z", 0, 1)))
    commit = Commit(7, 2, 3, 6, {"x.y": 9, "z": 1}, state, (file,))
    assert Commit.from_bytes(commit.to_bytes()) == commit


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"format_version": 1}', b"\xff"])
def test_a_broken_commit_is_damage_and_no_other_error(content: bytes) -> None:
    with pytest.raises(DamagedCheckpointError):
        Commit.from_bytes(content)


def test_the_best_step_of_a_phase_is_the_one_with_the_lowest_loss() -> None:
    state = LoopState()
    seen = []
    for phase, step, loss in (
        (0, 10, 3.0),
        (0, 20, 3.5),
        (0, 30, None),
        (0, 40, 2.5),
        (1, 50, 9.0),
        (1, 60, 9.5),
    ):
        state.phase, state.total_steps = phase, step
        state.note_validation(loss)
        assert state.best is not None
        seen.append(state.best.total_steps)
    assert seen == [10, 10, 10, 40, 50, 50]
    assert LoopState.from_json(state.to_json()) == state


def test_what_a_state_was_does_not_change_with_later_steps() -> None:
    state = LoopState(best=Best(phase=0, total_steps=3, validation_loss=2.0))
    before = state.to_json()
    state.total_steps = 5
    state.note_validation(1.0)
    assert before["total_steps"] == 0
    assert before["best"] == {"phase": 0, "total_steps": 3, "validation_loss": 2.0}


def test_a_best_step_is_forgotten_only_with_its_checkpoint() -> None:
    state = LoopState(total_steps=6, best=Best(phase=0, total_steps=4, validation_loss=2.0))
    assert state.without_lost_best([8, 6, 4]) is state
    assert state.without_lost_best([8, 6]).best is None
    assert state.without_lost_best([8, 6]).total_steps == 6


def test_the_best_step_of_a_phase_is_none_of_another_phase() -> None:
    state = LoopState(phase=1, total_steps=9, best=Best(phase=0, total_steps=4, validation_loss=2.0))
    assert state.best_step_of_phase is None
    state.note_validation(5.0)
    assert state.best_step_of_phase == 9


class FailingFirst:
    """Fails so many times before it does what it is asked for."""

    def __init__(self, error: OSError, times: int) -> None:
        self.error, self.times, self.calls = error, times, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return self.calls


def test_a_bucket_that_fails_is_asked_again_and_a_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfers, "WAIT_SECONDS", 0.001)
    bucket = Folder("s3://runs/training")
    assert tried_again(FailingFirst(OSError("slow down"), ATTEMPTS - 1), bucket) == ATTEMPTS
    with pytest.raises(OSError, match="slow down"):
        tried_again(FailingFirst(OSError("slow down"), ATTEMPTS), bucket)
    for place, error in (
        (bucket, FileNotFoundError("gone")),
        (bucket, OSError("AWS Error ACCESS_DENIED during PutObject")),
        (Folder(str(tmp_path)), OSError("full")),
    ):
        action = FailingFirst(error, 1)
        with pytest.raises(OSError, match=str(error)):
            tried_again(action, place)
        assert action.calls == 1


HOLD = """
import sys, time
from asclepius_ray.training.checkpoints.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "part").write_bytes(b"x")
    print(folder, flush=True)
    time.sleep(60)
"""


def test_the_scratch_folder_of_a_killed_process_is_removed_and_that_of_a_live_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", HOLD],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"TMPDIR": str(tmp_path)},
        )
        for _ in range(2)
    ]
    try:
        folders = [Path(process.stdout.readline().strip()) for process in processes if process.stdout]
        assert all(folder.stat().st_mode & 0o777 == 0o700 for folder in folders)
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        assert folders[0].exists()
        remove_abandoned()
        assert not folders[0].exists()
        assert (folders[1] / "part").exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()
    with scratch_folder() as own:
        assert own.exists()
        assert not folders[1].exists()
    assert not list(tmp_path.glob(PREFIX + "*"))
