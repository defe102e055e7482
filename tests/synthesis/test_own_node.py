"""A worker that looks after its own node says when it can do so no more."""

import asyncio
import logging
import threading

import pytest

from asclepius_ray.synthesis.own_node import warn_if_it_fails

CANARY = "Zebracanary"


async def look_at_a_cluster_that_is_gone() -> None:
    raise OSError(CANARY)


def test_a_look_that_fails_is_told_by_its_type_alone(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with caplog.at_level(logging.WARNING):
        looking = asyncio.run_coroutine_threadsafe(look_at_a_cluster_that_is_gone(), loop)
        looking.add_done_callback(warn_if_it_fails)
        assert isinstance(looking.exception(timeout=10), OSError)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
    loop.close()
    [record] = [one for one in caplog.records if one.name.startswith("asclepius_ray")]
    assert "OSError" in record.getMessage()
    assert CANARY not in caplog.text
