"""Every row of the input is one record: a report, or a rejection with its reason."""

import json
from pathlib import Path
from typing import Any

import pytest

from asclepius_ray.errors import InputError
from asclepius_ray.records import CaseReport, Rejection
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.synthesis.config import ColumnsConfig, InputConfig


def read(rows: list[dict[str, Any]], tmp_path: Path, **settings: object) -> list[CaseReport | Rejection]:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(read_case_reports(InputConfig.model_validate({"path": str(path), **settings})))


@pytest.mark.parametrize(("name", "num_rows"), [("v1_first_500.csv", 500), ("v2_sample_250.csv", 250)])
def test_every_real_row_becomes_a_clean_report(shared_data: Path, name: str, num_rows: int) -> None:
    records = list(read_case_reports(InputConfig(path=str(shared_data / "pmc_patients" / name))))
    reports = [record for record in records if isinstance(record, CaseReport)]
    assert len(records) == len(reports) == num_rows
    assert [report.row_index for report in reports] == list(range(num_rows))
    assert len({report.row_id for report in reports}) == num_rows
    assert all(report.age_years is not None and report.gender in {"M", "F"} for report in reports)
    for report in reports:
        assert "\\n" not in report.text
        assert not any(empty in report.text for empty in ("()", "( )", "[]"))
        assert report.article == report.patient_uid.split("-")[0]


def test_the_first_rows_of_v1_keep_their_published_ids(shared_data: Path) -> None:
    config = InputConfig(path=str(shared_data / "pmc_patients" / "v1_first_500.csv"), limit=3)
    first = list(read_case_reports(config))
    assert [(each.row_id, each.patient_id) for each in first if isinstance(each, CaseReport)] == [
        ("7665777-1", 0),
        ("7665777-2", 1),
        ("7665777-3", 2),
    ]


def test_unfit_rows_are_rejected_with_their_reason(tmp_path: Path) -> None:
    rows = [
        {"patient_uid": "5-1", "patient": "A man was seen."},
        {"patient_uid": "5-2", "patient": " () \\n "},
        {"patient_uid": "5-3", "patient": None},
        {"patient_uid": "5-1", "patient": "The same patient again."},
        {"patient_uid": " ", "patient": "A woman was seen."},
        {"patient": "A child was seen."},
        {"patient_uid": "5-4", "patient": ["not", "text"]},
        {"patient_uid": "5-2", "patient": "Now with a text."},
    ]
    records = read(rows, tmp_path)
    assert [record.row_index for record in records] == list(range(8))
    assert [(each.row_id, each.reason) for each in records if isinstance(each, Rejection)] == [
        ("5-2", "empty_text"),
        ("5-3", "empty_text"),
        ("5-1", "duplicate"),
        ("row 5", "missing_patient_uid"),
        ("row 6", "missing_patient_uid"),
        ("row 7", "unreadable_row"),
    ]
    assert [record.text for record in records if isinstance(record, CaseReport)] == [
        "A man was seen.",
        "Now with a text.",
    ]


def test_limit_counts_rows_of_the_input(tmp_path: Path) -> None:
    rows = [{"patient_uid": f"{number}-1", "patient": "" if number == 1 else "Seen."} for number in range(5)]
    assert len(read(rows, tmp_path, limit=2)) == 2
    assert len(read(rows, tmp_path, limit=0)) == 5
    assert len(read(rows, tmp_path, limit=9)) == 5


def test_an_unreadable_age_or_number_does_not_cost_the_row(tmp_path: Path) -> None:
    rows = [
        {"patient_uid": "5-1", "patient": "Seen.", "age": "old", "patient_id": "x", "gender": None},
        {"patient_uid": "5-2", "patient": "Seen.", "age": [[2, "week"]], "patient_id": 12.0},
        {"patient_uid": "5-3", "patient": "Seen.", "patient_id": "31.0"},
        {"patient_uid": "5-4", "patient": "Seen.", "patient_id": 2**63},
    ]
    reports = [record for record in read(rows, tmp_path) if isinstance(record, CaseReport)]
    assert [report.patient_id for report in reports] == [0, 12, 31, 3]
    assert [report.age_years for report in reports] == [None, pytest.approx(14 / 365.25), None, None]


def test_case_reports_without_a_key_are_refused_unless_one_is_mapped(tmp_path: Path) -> None:
    rows = [{"number": 17, "patient": "Seen."}]
    with pytest.raises(InputError, match="patient_uid"):
        read(rows, tmp_path)
    (report,) = read(rows, tmp_path, columns=ColumnsConfig(patient_uid="number"))
    assert report.row_id == "17"


def test_notes_without_ids_are_known_by_their_place(shared_data: Path) -> None:
    path = str(shared_data / "mtsamples" / "sample_250.csv")
    reports = list(read_case_reports(InputConfig(path=path, kind="notes")))
    assert [report.row_id for report in reports] == [f"row{number}" for number in range(1, 251)]
    assert len({report.article for report in reports if isinstance(report, CaseReport)}) == 250


def test_notes_of_one_patient_stay_together_and_are_no_duplicates(tmp_path: Path) -> None:
    patients = (7, "MRN-8", 7, "", "abc", "MRN-8", "abc", "x-y")
    rows = [{"patient_id": patient, "note": "[ ] smoker\nna 140"} for patient in patients]
    reports = [record for record in read(rows, tmp_path, kind="notes") if isinstance(record, CaseReport)]
    uids = ["7-1", "MRN_8-1", "7-2", "row4", "abc_0-1", "MRN_8-2", "abc_0-2", "x_y_0-1"]
    assert [report.patient_uid for report in reports] == uids
    articles = ["7", "MRN_8", "7", "row4", "abc_0", "MRN_8", "abc_0", "x_y_0"]
    assert [report.article for report in reports] == articles
    assert reports[0].text == "[ ] smoker\nna 140"
