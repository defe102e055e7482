"""Rounds of batches with a desk on a real cluster: what a rerun takes up, what an unreadable line costs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import ray

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.batch.chunks import Pending
from asclepius_ray.chat.config import OFFLINE_MODEL, BatchConfig, PriceConfig
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.estimates import largest_usd
from asclepius_ray.chat.exchange import Failure, Request, request_key
from asclepius_ray.chat.gate import load_of
from asclepius_ray.chat.journal.journal import Journal
from asclepius_ray.chat.offline.batches import BatchKnobs
from asclepius_ray.chat.offline.faults import Faults
from asclepius_ray.chat.offline.server import OfflineTeacher
from asclepius_ray.prompts.rendering import render_note_prompt
from asclepius_ray.synthesis.batch_rounds import DeskAccount, buy_in_batches
from asclepius_ray.synthesis.desk_actor import open_desk

PRICE = PriceConfig(input_usd_per_million_tokens=10.0, output_usd_per_million_tokens=10.0)
SCHEMA = pa.schema([("state", pa.string()), ("pending_key", pa.binary()), ("pending_request", pa.binary())])


class InterruptedRunError(Exception):
    """Ends a run at a chosen moment."""


def pending_of(number: int) -> Pending:
    text = f"A {20 + number}-year-old man, case {number}, came with chest pain and got aspirin 100 mg daily."
    request = Request("note", tuple(render_note_prompt(text)), 1.0, 500)
    return Pending.of(request_key(OFFLINE_MODEL, {}, request), request)


PENDING = [pending_of(number) for number in range(12)]


def endpoint_of(teacher: OfflineTeacher) -> Endpoint:
    batch = BatchConfig(poll_seconds=0.05, max_requests=4)
    return Endpoint(teacher.base_url, OFFLINE_MODEL, price=PRICE, batch=batch, transport="batch")


def buy(
    root: Path,
    endpoint: Endpoint,
    pending: Sequence[Pending] = PENDING,
    show: Callable[[str], None] = lambda line: None,
) -> DeskSnapshot:
    """Buys through a new desk all of `pending` that the root's journal does not have yet."""
    folder = Folder(str(root))
    with open_desk(folder.child("journal"), endpoint) as desk:

        def walk_once() -> Iterator[pa.Table]:
            found = ray.get(desk.find.remote([one.key for one in pending]))
            rows = [
                {"state": "pending", "pending_key": one.key, "pending_request": one.packed}
                for one in pending
                if one.key not in found
            ]
            yield pa.Table.from_pylist(rows, schema=SCHEMA)

        buy_in_batches(walk_once, folder, DeskAccount(desk, endpoint), endpoint, show)
        snapshot: DeskSnapshot = ray.get(desk.snapshot.remote())
        return snapshot


@pytest.mark.usefixtures("ray_cluster")
def test_a_rerun_takes_up_its_own_batches_and_no_other_root_does_even_at_the_same_path(
    tmp_path: Path,
) -> None:
    root, moved = tmp_path / "root", tmp_path / "moved"
    root.mkdir()

    def interrupt(line: str) -> None:
        raise InterruptedRunError

    with OfflineTeacher() as teacher:
        endpoint = endpoint_of(teacher)
        teacher.batches.knobs = BatchKnobs(seconds=0.5)
        with pytest.raises(InterruptedRunError):
            buy(root, endpoint, show=interrupt)
        first = set(teacher.batches.batches)
        assert len(first) == 3
        root.rename(moved)
        root.mkdir()
        assert buy(root, endpoint).steps["note"].completions == len(PENDING)
        assert len(teacher.batches.batches) == 6
        assert len(teacher.batches.files) == 6, "input and output of the first root's batches are still there"
        assert buy(moved, endpoint).steps["note"].completions == len(PENDING)
        assert len(teacher.batches.batches) == 6
        assert set(teacher.batches.prompts_answered.values()) == {2}
        assert teacher.batches.files == {}


@pytest.mark.usefixtures("ray_cluster")
def test_a_line_of_a_batch_that_cannot_be_read_counts_at_its_bound_and_never_as_free(tmp_path: Path) -> None:
    with OfflineTeacher(faults=Faults(malformed=1.0)) as teacher:
        endpoint = replace(endpoint_of(teacher), budget_usd=5.0)
        told = buy(tmp_path, endpoint, PENDING[:3])
        assert teacher.requests_received == {"note": 6}
    loads = [load_of(one.request, one.request.max_tokens) for one in PENDING[:3]]
    bounds = [largest_usd(PRICE, load.num_bytes, load.num_messages, load.max_tokens) for load in loads]
    journal = Journal.open(Folder(str(tmp_path / "journal")))
    found = journal.read([one.key for one in PENDING[:3]]).values()
    assert all(isinstance(entry.answer, Failure) and entry.answer.attempts == 2 for entry in found)
    assert [entry.unsettled_usd for entry in found] == pytest.approx([2 * bound for bound in bounds])
    assert told.unsettled_usd == pytest.approx(2 * sum(bounds))
    assert told.cost_usd == 0.0
