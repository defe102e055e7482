"""Micro-batches from a thread: the same ones in the same order, few of them ahead of the step."""

import time

import pytest
import torch
from artefacts import pack_rows

from asclepius_ray.tokens.rendering import TokenizedExample
from asclepius_ray.training import batch_loader
from asclepius_ray.training.batch_loader import AHEAD, BatchLoader
from asclepius_ray.training.batches import Batch, PackedRows, collate

CPU = torch.device("cpu")


def make_rows(count: int = 40, length: int = 6) -> PackedRows:
    """Rows of one document each, no token in two of them."""
    starts = range(0, count * length, length)
    documents = [TokenizedExample([*range(start, start + length)], [True] * length) for start in starts]
    return pack_rows(documents, length)


def shares_of(*rows: int) -> list[list[int]]:
    return [[row] for row in rows]


def assert_same(batch: Batch, packed: PackedRows, share: list[int]) -> None:
    for found, expected in zip(vars(batch).values(), vars(collate(packed, share)).values(), strict=True):
        assert torch.equal(found, expected)


@pytest.fixture
def collated(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The rows that the thread has been at work on, in order."""
    seen: list[list[int]] = []

    def collate_and_note(packed: PackedRows, rows: list[int]) -> Batch:
        seen.append(rows)
        return collate(packed, rows)

    monkeypatch.setattr(batch_loader, "collate", collate_and_note)
    return seen


def test_the_batches_are_those_that_were_asked_for_in_their_order() -> None:
    packed, loader = make_rows(), BatchLoader(CPU)
    shares = [[3, 1], [0, -1], [7, 8], [2, 2], [5, 6], [9, 4], [11, 10]]
    found = list(loader.load(packed, shares, following=(packed, shares_of(20))))
    assert len(found) == len(shares)
    for batch, share in zip(found, shares, strict=True):
        assert_same(batch, packed, share)


def test_the_next_step_is_put_together_while_this_one_computes(collated: list[list[int]]) -> None:
    packed, loader = make_rows(), BatchLoader(CPU)
    first, second = shares_of(0, 1), shares_of(5, 6)
    assert len(list(loader.load(packed, first, following=(packed, second)))) == 2
    deadline = time.monotonic() + 5
    while len(collated) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert collated == [*first, *second]
    for batch, share in zip(loader.load(packed, second), second, strict=True):
        assert_same(batch, packed, share)
    assert len(collated) == 4, "what was ready is not put together twice"


def test_what_was_guessed_wrong_is_never_given_out() -> None:
    packed, other, loader = make_rows(), make_rows(length=9), BatchLoader(CPU)
    list(loader.load(packed, shares_of(0), following=(packed, shares_of(1, 2, 3))))
    for batch, share in zip(loader.load(packed, shares_of(1, 9)), shares_of(1, 9), strict=True):
        assert_same(batch, packed, share)
    list(loader.load(packed, shares_of(0), following=(packed, shares_of(1))))
    (batch,) = loader.load(other, shares_of(1))
    assert_same(batch, other, [1])


def test_no_more_batches_are_held_than_a_few(collated: list[list[int]]) -> None:
    packed, loader = make_rows(), BatchLoader(CPU)
    batches = loader.load(packed, shares_of(*range(30)))
    next(batches)
    time.sleep(0.2)
    assert len(collated) == 1 + AHEAD


def test_waiting_is_measured_and_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def collate_slowly(packed: PackedRows, rows: list[int]) -> Batch:
        time.sleep(0.05)
        return collate(packed, rows)

    monkeypatch.setattr(batch_loader, "collate", collate_slowly)
    packed, loader = make_rows(), BatchLoader(CPU)
    list(loader.load(packed, shares_of(0, 1, 2)))
    waited_for_all = loader.take_waited_seconds()
    assert waited_for_all > 0.14
    assert loader.take_waited_seconds() == 0.0
    # A step that computes for longer than its rows take waits for the first of them alone.
    for _ in loader.load(packed, shares_of(3, 4, 5)):
        time.sleep(0.3)
    assert loader.take_waited_seconds() < 0.6 * waited_for_all


def test_a_row_that_cannot_be_read_is_met_by_the_step_that_needs_it() -> None:
    packed, loader = make_rows(count=4), BatchLoader(CPU)
    batches = loader.load(packed, shares_of(0, 99, 1))
    assert_same(next(batches), packed, [0])
    with pytest.raises(IndexError):
        next(batches)
