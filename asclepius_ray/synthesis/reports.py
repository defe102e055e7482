"""The input → blocks of case reports in Ray's object store, and what the whole stage must know of them.

Reads the input once, in the driver, and holds no more than one block of it; the cost is that the cleaned
input stands in the object store (which spills to disk) until the stage ends.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice

import pyarrow as pa

from asclepius_ray.records import CaseReport, Rejection
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.synthesis.config import InputConfig
from asclepius_ray.tables.blocks import Blocks

SMALLEST_BLOCK_ROWS = 4
LARGEST_BLOCK_ROWS = 64
SAMPLE_REPORTS = 100

_SCHEMA = pa.schema(
    [
        ("row_index", pa.int64()),
        ("row_id", pa.string()),
        ("patient_id", pa.int64()),
        ("patient_uid", pa.string()),
        ("text", pa.string()),
        ("age_years", pa.float64()),
        ("gender", pa.string()),
    ]
)


@dataclass
class Reports:
    """The readable rows, in blocks in input order."""

    blocks: Blocks = field(default_factory=Blocks)
    first_rows: list[int] = field(default_factory=list)
    """row_index of each block's first row."""
    num_rows: int = 0
    num_pilot_rows: int = 0
    articles: set[str] = field(default_factory=set)
    rejections: list[Rejection] = field(default_factory=list)
    """Rows that cannot be read."""
    sample_texts: dict[int, str] = field(default_factory=dict)
    """row_index → text of the first so many reports, for the report's examples."""

    def add_block(self, reports: list[CaseReport]) -> None:
        self.blocks.add(pa.Table.from_pylist([r.to_row() for r in reports], schema=_SCHEMA))
        self.first_rows.append(reports[0].row_index)
        self.num_rows += len(reports)
        self.articles.update(report.article for report in reports)
        for report in reports[: SAMPLE_REPORTS - len(self.sample_texts)]:
            self.sample_texts[report.row_index] = report.text


def load_reports(config: InputConfig, workers: int, pilot_rows: int) -> Reports:
    """Reads the whole input into blocks; every worker gets some, however small the input is.

    No block holds rows of the pilot round and others: the others wait for the whole pilot round.
    """
    found = Reports()
    readable = _keep_readable(read_case_reports(config), found.rejections)
    for is_pilot, rows in groupby(readable, key=lambda report: report.row_index < pilot_rows):
        while block := list(islice(rows, _block_rows(found.num_rows, workers))):
            found.add_block(block)
            found.num_pilot_rows += len(block) if is_pilot else 0
    return found


def _keep_readable(
    rows: Iterator[CaseReport | Rejection], rejections: list[Rejection]
) -> Iterator[CaseReport]:
    for row in rows:
        if isinstance(row, Rejection):
            rejections.append(row)
        else:
            yield row


def _block_rows(num_rows: int, workers: int) -> int:
    """The next block's rows: small at first, growing with what has been read up to 64."""
    return min(max(num_rows // (4 * workers), SMALLEST_BLOCK_ROWS), LARGEST_BLOCK_ROWS)
