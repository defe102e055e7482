"""The invented reports that ship with the project can stand for real ones."""

import csv
import statistics
from pathlib import Path

import pytest

from asclepius_ray.records import CaseReport
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.synthesis.config import InputConfig

REPORTS = Path(__file__).resolve().parents[2] / "jobs" / "runs" / "quickstart_reports.csv"


@pytest.fixture(scope="module")
def reports() -> list[CaseReport]:
    records = list(read_case_reports(InputConfig(path=str(REPORTS))))
    assert all(isinstance(record, CaseReport) for record in records), "a row is rejected"
    return [record for record in records if isinstance(record, CaseReport)]


def test_they_have_the_columns_of_pmc_patients_v1(shared_data: Path) -> None:
    headers = []
    for path in (REPORTS, shared_data / "pmc_patients" / "v1_first_500.csv"):
        with path.open(newline="", encoding="utf-8") as stream:
            headers.append(next(csv.reader(stream)))
    assert headers[0] == headers[1]


def test_they_are_many_distinct_and_of_several_articles(reports: list[CaseReport]) -> None:
    assert len(reports) >= 48
    assert len({report.patient_uid for report in reports}) == len(reports)
    assert [report.patient_id for report in reports] == list(range(len(reports)))
    articles = {report.article for report in reports}
    assert 40 <= len(articles) < len(reports), "some articles tell of more than one patient"


def test_they_vary_in_age_gender_and_length(reports: list[CaseReport]) -> None:
    ages = [report.age_years for report in reports if report.age_years is not None]
    assert len(ages) == len(reports)
    assert min(ages) < 0.1
    assert max(ages) > 90
    assert sum(age < 18 for age in ages) >= 10
    assert 0.35 < sum(report.gender == "F" for report in reports) / len(reports) < 0.65
    lengths = [len(report.text.split()) for report in reports]
    assert min(lengths) < 75
    assert max(lengths) > 380
    assert 150 < statistics.mean(lengths) < 200


def test_they_are_stories_and_not_a_template(reports: list[CaseReport]) -> None:
    """Two reports share few runs of four words; a template with swapped words shares many."""
    runs = []
    for report in reports:
        words = report.text.lower().split()
        runs.append({tuple(words[start : start + 4]) for start in range(len(words) - 3)})
    shares = [
        len(first & second) / min(len(first), len(second))
        for number, first in enumerate(runs)
        for second in runs[:number]
    ]
    assert max(shares) < 0.08


def test_they_hold_the_artefacts_that_cleaning_removes(reports: list[CaseReport]) -> None:
    raw = REPORTS.read_text(encoding="utf-8")
    assert raw.count("\\n") >= 20
    assert raw.count(" ()") >= 5
    assert not any("\\n" in report.text or "()" in report.text for report in reports)
    assert any("\n" in report.text for report in reports)


def test_none_is_copied_from_the_real_reports(reports: list[CaseReport], shared_data: Path) -> None:
    def runs_of_eight(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return {tuple(words[start : start + 8]) for start in range(len(words) - 7)}

    real: set[tuple[str, ...]] = set()
    for name in ("v1_first_500.csv", "v2_sample_250.csv"):
        for record in read_case_reports(InputConfig(path=str(shared_data / "pmc_patients" / name))):
            real |= runs_of_eight(record.text) if isinstance(record, CaseReport) else set()
    assert len(real) > 100_000
    assert not any(runs_of_eight(report.text) & real for report in reports)
