"""Every row of the input ends in exactly one counted state, or the synthesis does not count."""

from dataclasses import replace

import pyarrow as pa
import pytest

from asclepius_ray.chat.config import PriceConfig
from asclepius_ray.errors import SynthesisError
from asclepius_ray.records import Rejection, Task
from asclepius_ray.synthesis.ledger import Ledger
from asclepius_ray.synthesis.walk import RESULT_SCHEMA, RowResult, StepUsage

USAGE = {"note": StepUsage(1, 100, 50), "question": StepUsage(2, 60, 10), "answer": StepUsage(1, 70, 20)}
OK = RowResult(0, "1-1", 1, "1-1", "1", "ok", "", "", "N", "Q", "A", Task.SUMMARIZATION.value, USAGE)
REFUSED = replace(OK, state="rejected", stage="answer", reason="refusal", answer="")
FAILED = replace(
    OK, state="failed", stage="note", reason="timeout", note="", question="", answer="", usage={}
)
UNREADABLE = Rejection(3, "row 4", "rejected", "input", "unreadable_row")


def _ledger(num_input: int, *results: RowResult) -> Ledger:
    ledger = Ledger(num_input, [UNREADABLE])
    for result in results:
        ledger.add(result)
    return ledger


def test_the_counts_are_by_reason_and_add_up() -> None:
    ledger = _ledger(6, OK, OK, REFUSED, FAILED, FAILED)
    ledger.check(max_failed_share=0.5)
    assert ledger.counts() == {
        "input": 6,
        "ok": 2,
        "rejected": {"refusal": 1, "unreadable_row": 1},
        "failed": {"timeout": 2},
    }
    assert ledger.tasks == {"Summarization": 2}


@pytest.mark.parametrize("num_input", [2, 4], ids=["one_too_many", "one_lost"])
def test_rows_that_do_not_add_up_are_an_error(num_input: int) -> None:
    with pytest.raises(SynthesisError, match="do not add up"):
        _ledger(num_input, OK, OK).check(max_failed_share=1.0)


def test_too_many_failed_rows_are_an_error_that_counts_them() -> None:
    ledger = _ledger(4, OK, OK, FAILED)
    ledger.check(max_failed_share=0.25)
    with pytest.raises(SynthesisError, match=r"1 of 4 rows failed \(timeout: 1\)"):
        ledger.check(max_failed_share=0.24)


def test_no_ok_row_is_an_error_that_says_why() -> None:
    with pytest.raises(SynthesisError, match=r"rejected: refusal: 1, unreadable_row: 1; failed: none"):
        _ledger(2, REFUSED).check(max_failed_share=1.0)


def test_tokens_of_rejected_rows_are_paid_for_too() -> None:
    ledger = _ledger(3, OK, REFUSED)
    assert ledger.usage["question"] == {"calls": 4, "prompt_tokens": 120, "completion_tokens": 20}
    price = PriceConfig(input_usd_per_million_tokens=1.0, output_usd_per_million_tokens=10.0)
    assert ledger.cost_usd(price) == pytest.approx((460 * 1.0 + 160 * 10.0) / 1e6)
    assert ledger.cost_usd(None) is None


def test_a_result_is_the_same_after_its_way_through_a_table() -> None:
    rows = [OK, REFUSED, replace(FAILED, is_usage_estimated=True)]
    table = pa.Table.from_pylist([row.to_row() for row in rows], schema=RESULT_SCHEMA)
    assert [RowResult.from_row(row) for row in table.to_pylist()] == rows
