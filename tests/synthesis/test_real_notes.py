"""Real notes in the layout of MIMIC-III's NOTEEVENTS, with the marks of its de-identification.

The rows are made by hand after the public description; their text is of transcribed notes.
"""

import csv
import gzip
import json
import re
import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from asclepius_ray.errors import InputError
from asclepius_ray.records import CaseReport, Rejection
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.synthesis.cleaning import clean_note
from asclepius_ray.synthesis.config import InputConfig
from asclepius_ray.synthesis.mimic import TAGS, replace_marks
from asclepius_ray.tables.split import choose_validation_articles

HEADER = [
    "ROW_ID", "SUBJECT_ID", "HADM_ID", "CHARTDATE", "CHARTTIME", "STORETIME", "CATEGORY", "DESCRIPTION",
    "CGID", "ISERROR", "TEXT",
]  # fmt: skip
TEXT = (
    'Admission Date:  [**2101-11-5**]\n\nHe said "no pain",\nDr. [**Last Name (NamePattern1) 25**] agreed.\n'
)


KINDS = {
    "[DATE]": "2101-11-5|11-5|2101|-1/2101|Month (only) 12|Month/Day (2) 17|Month/Year 1 |Date range (1) 8"
    "|Year (4 digits) 9|Year/Month/Day 3|Day Month Year|June 2190|December 3|May 5|Holiday 3470|Season ",
    "[HOSPITAL]": "Hospital1 18|Hospital |Hospital3 (PI) |Hospital 1807",
    "[WARD]": "Hospital Ward Name 332|Hospital Unit Name 10|Wardname 4",
    "[NAME]": "Last Name (NamePattern1) |First Name8 (NamePattern2) |First Name4 (NamePattern1) 1775"
    "|Last Name (un) 83|Known lastname 1234|Known firstname |Doctor Last Name 218|Doctor First Name "
    "|Name (NI) |Female First Name (un) |Male First Name (un) 9|Name13 (STitle) |Name6 (MD) "
    "|Name Prefix (Prefixes) |Initials (NamePattern4) |Name Initial (MD) |Attending Info |Dictator Info "
    "|Last Name\n (un) 83",
    "[CONTACT]": "CC Contact Info 7",
    "[AGE OVER 90]": "Age over 90 |Age over 90 12",
    "[AGE]": "Age 5",
    "[PHONE]": "Telephone/Fax (1) 1408|Telephone/Fax (3) |Pager number 8",
    "[EMAIL]": "E-mail address 13",
    "[URL]": "URL 2",
    "[ADDRESS]": "Street Address(2) 1|Apartment Address(1) |State/Zipcode 3|PO Box 1",
    "[LOCATION]": "Location (un) 86|Country 5|State 2748",
    "[ORGANIZATION]": "Location (Universities) 4|University/College 9|Company 5",
    "[ID]": "MD Number(1) 1776|Job Number 1808|Clip Number (Radiology) 44527|Numeric Identifier 82"
    "|Medical Record Number 3|Social Security Number 5|Serial Number",
    "[REDACTED]": " |Something new 4",
}
MARKS = [(f"[**{kind}**]", tag) for tag, kinds in KINDS.items() for kind in kinds.split("|")]


def note(
    row_id: object, subject_id: object, category: str = "Discharge summary", **cells: Any
) -> dict[str, Any]:
    return {
        "ROW_ID": row_id, "SUBJECT_ID": subject_id, "HADM_ID": 167118, "CHARTDATE": "2101-11-05",
        "CHARTTIME": None, "STORETIME": None, "CATEGORY": category, "DESCRIPTION": "Report", "CGID": None,
        "ISERROR": None, "TEXT": TEXT, **cells,
    }  # fmt: skip


def write(path: Path, rows: Iterable[dict[str, Any]], names: list[str] = HEADER) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(names)
        for row in rows:
            writer.writerow(["" if row[name] is None else row[name] for name in HEADER])
    return path


def read(path: Path, **settings: object) -> list[CaseReport | Rejection]:
    values = {"path": str(path), "kind": "notes", **settings}
    return list(read_case_reports(InputConfig.model_validate(values)))


def reasons(records: list[CaseReport | Rejection]) -> list[str]:
    return [record.reason if isinstance(record, Rejection) else record.row_id for record in records]


def test_a_table_of_noteevents_is_read_whatever_its_format_and_the_case_of_its_names(tmp_path: Path) -> None:
    rows = [note(174, 22532), note(175, 13702, ISERROR=1), note(176, 13702)]
    paths = [
        write(tmp_path / "NOTEEVENTS.csv", rows),
        write(tmp_path / "small.csv", rows, [name.lower() for name in HEADER]),
        tmp_path / "packed.csv.gz", tmp_path / "lines.jsonl", tmp_path / "table.parquet",
    ]  # fmt: skip
    paths[2].write_bytes(gzip.compress(paths[0].read_bytes()))
    paths[3].write_text("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[4])
    for path in paths:
        first, second, third = read(path)
        assert isinstance(first, CaseReport)
        assert first.text == 'Admission Date:  [DATE]\n\nHe said "no pain",\nDr. [NAME] agreed.'
        assert (first.row_id, first.patient_id, first.article) == ("22532-174", 22532, "22532")
        assert (first.age_years, first.gender) == (None, "")
        assert reasons([second, third]) == ["marked_as_error", "13702-176"], path.name


def test_every_row_that_is_left_out_is_counted_with_its_reason(tmp_path: Path) -> None:
    rows = [
        note(1, 7), note(2, 7, "Nursing/other"), note(3, 8, "Physician ", ISERROR="1"),
        note(4, 9, ISERROR="1"), note(5, 9, "  discharge summary "), note(5, 9), note("", 9), note(6, ""),
        note(7, 9, TEXT=" \n"),
        note(8, 9, ISERROR=0), note("nine", 9),
    ]  # fmt: skip
    assert reasons(read(write(tmp_path / "n.csv", rows))) == [
        "7-1", "other_category", "other_category", "marked_as_error", "9-5", "duplicate",
        "missing_patient_uid", "missing_patient_uid", "empty_text", "9-8", "missing_patient_uid",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("category", "kept"),
    [("Discharge summary", ["7-1"]), ("physician", ["7-3"]), ("", ["7-1", "7-2", "7-3"])],
    ids=["as in the paper", "another", "all"],
)
def test_the_category_is_a_setting(tmp_path: Path, category: str, kept: list[str]) -> None:
    rows = [note(1, 7), note(2, 7, "Radiology"), note(3, 7, "Physician ")]
    records = read(write(tmp_path / "n.csv", rows), note_category=category)
    assert [record.row_id for record in records if isinstance(record, CaseReport)] == kept


def test_a_category_of_a_table_that_has_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps({"note": "Seen.", "category": "Radiology"}) + "\n")
    with pytest.raises(InputError, match=r"note_category is 'Radiology'.*NOTEEVENTS"):
        read(path, note_category="Radiology")
    assert reasons(read(path)) == ["row1"]


def test_a_patient_with_many_notes_is_on_one_side_of_the_split(tmp_path: Path) -> None:
    rows = [note(number, 100 + number % 40) for number in range(1, 401)]
    reports = [record for record in read(write(tmp_path / "n.csv", rows)) if isinstance(record, CaseReport)]
    assert len({report.row_id for report in reports}) == 400
    sizes = Counter(report.article for report in reports)
    assert set(sizes.values()) == {10}
    held_out = choose_validation_articles(sizes, 0.1, seed=0)
    sides = {report.patient_id: set[bool]() for report in reports}
    for report in reports:
        sides[report.patient_id].add(report.article in held_out)
    assert {len(side) for side in sides.values()} == {1}
    assert 0 < len(held_out) < 40


def test_notes_that_were_never_marked_stay_as_they_are(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "mtsamples" / "sample_250.csv"
    with source.open(newline="", encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    assert [replace_marks(text) for text in texts] == texts
    rows = [note(number, number, TEXT=text) for number, text in enumerate(texts, 1)]
    reports = [record for record in read(write(tmp_path / "n.csv", rows)) if isinstance(record, CaseReport)]
    assert [report.text for report in reports] == [clean_note(text) for text in texts]
    assert [re.findall(r"\w", report.text) for report in reports] == [
        re.findall(r"\w", text) for text in texts
    ]


def test_marks_in_real_notes_cost_no_other_word(shared_data: Path) -> None:
    with (shared_data / "mtsamples" / "sample_250.csv").open(newline="", encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    marks = [mark for mark, _ in MARKS]
    for number, text in enumerate(texts):
        words = text.split(" ")
        marked = [f"{word} {marks[(number + at) % len(marks)]}" for at, word in enumerate(words)]
        replaced = replace_marks(" ".join(marked))
        assert "[**" not in replaced
        for tag in TAGS:
            replaced = replaced.replace(f" {tag}", "")
        assert replaced == text


def test_there_is_a_kind_for_every_tag() -> None:
    assert set(KINDS) == set(TAGS)


@pytest.mark.parametrize(("mark", "tag"), MARKS, ids=[mark for mark, _ in MARKS])
def test_a_mark_becomes_the_tag_of_what_stood_there(mark: str, tag: str) -> None:
    assert clean_note(f"Seen at {mark}, then left.") == f"Seen at {tag}, then left."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dr. [**Last Name (un) came.", "Dr. [**Last Name (un) came."),
        ("Dr. [**Last Name [**Hospital1 18**] came.", "Dr. [**Last Name [HOSPITAL] came."),
        ("BP 120/80 **] and [** end", "BP 120/80 **] and [** end"),
        ("[ ] smoker [x] *** [*] [**2-3**][**4-5**]", "[ ] smoker [x] *** [*] [DATE][DATE]"),
        ("[**" + "word " * 40 + "**]", "[**" + "word " * 40 + "**]"),
    ],
    ids=["unclosed", "unclosed before another", "halves", "boxes", "too long to be one"],
)
def test_what_is_no_whole_mark_stays(text: str, expected: str) -> None:
    assert clean_note(text) == expected


def test_a_long_table_of_long_notes_is_streamed(tmp_path: Path) -> None:
    body = "".join(
        f"Seen on [**2101-1-{day}**] by [**Last Name (un) {day}**], no pain.\n" for day in range(200)
    )

    def rows() -> Iterator[dict[str, Any]]:
        for number in range(1, 1501):
            yield note(number, number, "Nursing" if number % 3 else "Discharge summary", TEXT=body)

    path = write(tmp_path / "n.csv", rows())
    assert path.stat().st_size > 15e6
    records = read_case_reports(InputConfig(path=str(path), kind="notes"))
    tracemalloc.start()
    kept = sum(isinstance(record, CaseReport) for record in records)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept == 500
    assert peak_bytes < 6e6
