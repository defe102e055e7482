"""The inputs of the drills of the synthesis, each with what an undisturbed run makes of it."""

import os

import pytest
from benchmarks.teacher_process import teacher_process
from synthesis_runs import Order, make_order

# As in tests/training: trainings that go on elsewhere are compared to the bit.
os.environ["MKL_CBWR"] = "COMPATIBLE"


@pytest.fixture(scope="session")
def small_order(tmp_path_factory: pytest.TempPathFactory) -> Order:
    """300 rows, 900 calls."""
    with teacher_process(short=1) as teacher:
        return make_order(tmp_path_factory.mktemp("small"), 300, teacher.base_url)
