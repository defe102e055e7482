"""What the workers agree on between two steps."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from ray.actor import ActorHandle

from asclepius_ray.training import control
from asclepius_ray.training.control import Control, Wish
from asclepius_ray.training.fitting import start_board


@pytest.fixture
def board(ray_cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ActorHandle]:
    """A real board; this process is a group of one worker, which cannot ask Ray Train for drained nodes."""
    monkeypatch.setattr(control, "LOOK_SECONDS", 3600.0)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    board = start_board()
    yield board
    ray.kill(board)
    torch.distributed.destroy_process_group()


def step(worker: Control) -> Wish:
    worker.take(worker.words())
    return worker.decide()


def test_nothing_is_done_unless_it_is_wished_for(board: ActorHandle) -> None:
    worker = Control(board, torch.device("cpu"), save_every_seconds=0)
    assert {step(worker) for _ in range(5)} == {Wish.GO_ON}
    assert step(Control(None, torch.device("cpu"), save_every_seconds=0)) is Wish.GO_ON


def test_the_drivers_wish_to_stop_is_heard_at_the_next_step(board: ActorHandle) -> None:
    worker = Control(board, torch.device("cpu"), save_every_seconds=0)
    assert step(worker) is Wish.GO_ON
    ray.get([board.regroup.remote(), board.stop.remote()])
    assert step(worker) is Wish.STOP


def test_a_wish_to_regroup_ends_with_the_group_that_it_was_meant_for(board: ActorHandle) -> None:
    ray.get(board.regroup.remote())
    assert step(Control(board, torch.device("cpu"), save_every_seconds=0)) is Wish.LEAVE
    ray.get(board.push.remote({"event": "start"}))
    assert step(Control(board, torch.device("cpu"), save_every_seconds=0)) is Wish.GO_ON


def test_a_checkpoint_is_wished_for_whenever_its_time_has_passed(board: ActorHandle) -> None:
    worker = Control(board, torch.device("cpu"), save_every_seconds=0.3)
    wishes: list[tuple[Wish, float]] = []
    saves: list[float] = []
    started = time.monotonic()
    # A board that answers late on a busy machine delays the wishes, and loses none.
    while len(saves) < 3 and time.monotonic() - started < 60:
        wishes.append((step(worker), time.monotonic()))
        saves = [moment for wish, moment in wishes if wish is Wish.SAVE]
        time.sleep(0.01)
    assert len(saves) == 3
    assert {wish for wish, _ in wishes} == {Wish.SAVE, Wish.GO_ON}
    assert all(later - earlier >= 0.3 for earlier, later in itertools.pairwise(saves))
