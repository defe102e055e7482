"""The input wherever it lies and however it is written: formats, folders, buckets, broken files."""

import csv
import gzip
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow
import pyarrow.parquet
import pytest
from moto.server import ThreadedMotoServer

from asclepius_ray.errors import InputError
from asclepius_ray.records import CaseReport, Rejection
from asclepius_ray.synthesis.case_reports import input_identity, read_case_reports
from asclepius_ray.synthesis.config import ColumnsConfig, InputConfig

HEADER = ["patient_id", "patient_uid", "PMID", "title", "patient", "age", "gender"]


def row(number: int, text: str = "") -> dict[str, Any]:
    text = text or f'A man was seen.\\nHe had "chest pain", for {number} days ().'
    return {
        "patient_id": number, "patient_uid": f"{100 + number}-1", "PMID": 7, "title": "A case",
        "patient": text, "age": "[[60.0, 'year']]", "gender": "M",
    }  # fmt: skip


def write_csv(path: Path, rows: list[dict[str, Any]], encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.DictWriter(stream, HEADER)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def read(path: Path | str, **settings: object) -> list[CaseReport | Rejection]:
    return list(read_case_reports(InputConfig.model_validate({"path": str(path), **settings})))


def outcome(records: list[CaseReport | Rejection]) -> list[str]:
    """One word for each record: "ok" or the reason."""
    assert [record.row_index for record in records] == list(range(len(records)))
    return [record.reason if isinstance(record, Rejection) else "ok" for record in records]


def refusal(path: Path | str, **settings: object) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **settings)
    return str(caught.value)


def test_the_same_real_rows_are_the_same_reports_in_every_format(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "pmc_patients" / "v1_first_500.csv"
    with source.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    write_lines(tmp_path / "b.jsonl", [json.dumps(each) for each in rows])
    write_lines(tmp_path / "lines.json", [json.dumps(each) for each in rows])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    (tmp_path / "d.csv.gz").write_bytes(gzip.compress(source.read_bytes()))
    (tmp_path / "e.CSV").write_bytes(b"\xef\xbb\xbf" + source.read_bytes().replace(b"\n", b"\r\n"))
    expected = read(source)
    assert outcome(expected) == ["ok"] * 500
    for name in ("a.json", "b.jsonl", "lines.json", "c.parquet", "d.csv.gz", "e.CSV"):
        assert read(tmp_path / name) == expected, name


def test_lists_as_in_v2_and_their_text_give_the_same_age(tmp_path: Path) -> None:
    as_list = row(1) | {"age": [[60.0, "year"], [6, "month"]]}
    (tmp_path / "x.json").write_text(json.dumps([as_list]))
    (report,) = read(tmp_path / "x.json")
    assert isinstance(report, CaseReport)
    assert report.age_years == 60.5


def test_a_folder_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", [json.dumps(row(2))])
    write_csv(tmp_path / "c" / "part.csv", [row(3)])
    write_csv(tmp_path / "a.csv", [row(1)])
    write_csv(tmp_path / "d.csv", [])
    (tmp_path / "README.md").write_text("not a table")
    write_csv(tmp_path / ".cache" / "old.csv", [row(9)])
    assert [record.row_id for record in read(tmp_path)] == ["101-1", "102-1", "103-1"]


def test_real_line_breaks_within_a_cell_stay_one_row(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [row(1, "First line.\nSecond, line."), row(2)])
    first = read(path)[0]
    assert isinstance(first, CaseReport)
    assert first.text == "First line.\nSecond, line."


def test_a_cell_longer_than_the_csv_modules_limit_is_read(tmp_path: Path) -> None:
    (report,) = read(write_csv(tmp_path / "x.csv", [row(1, "word " * 100_000)]))
    assert isinstance(report, CaseReport)
    assert len(report.text) > 131_072 * 3


def test_each_broken_csv_row_is_counted_and_the_others_are_read(shared_data: Path, tmp_path: Path) -> None:
    lines = (shared_data / "pmc_patients" / "v1_first_500.csv").read_bytes().splitlines(keepends=True)
    assert len(lines) == 501
    assert lines[18].count(b'"') >= 2
    lines[18] = b'"'.join(lines[18].split(b'"')[:2]) + b"\n"  # a quote that never closes
    lines[19] = b"only,three,fields\n"
    lines[101] = lines[101].rstrip() + b",one,too,many\n"
    path = tmp_path / "broken.csv"
    path.write_bytes(b"".join(lines))
    records = read(path)
    whole = read(shared_data / "pmc_patients" / "v1_first_500.csv")
    broken = [record for record in records if isinstance(record, Rejection)]
    assert [(each.row_id, each.reason, each.stage, each.state) for each in broken] == [
        (f"row {number}", "unreadable_row", "input", "rejected") for number in (18, 19, 101)
    ]
    assert len(records) == 500
    assert [each for each in records if isinstance(each, CaseReport)] == [
        each for each in whole if each.row_index not in (17, 18, 100)
    ]


def test_a_stray_quote_costs_its_row_rather_than_change_its_words(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [row(1, 'He said "no", firmly.'), row(2)])
    assert outcome(read(path)) == ["ok", "ok"]
    path.write_text(path.read_text().replace('""no"", firmly', '"no" firmly'))
    assert outcome(read(path)) == ["unreadable_row", "ok"]


def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("patient_uid,patient\n7-1,A man was seen.\n", encoding="utf-8-sig")
    assert [record.row_id for record in read(path)] == ["7-1"]


def test_a_broken_row_over_several_lines_is_one_row(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [row(1, "One.\nTwo."), row(2, "a\nb\nc"), row(3), row(4)])
    path.write_text(path.read_text().replace("a\nb\nc", 'a, "b"\n c,\nd'))
    assert outcome(read(path))[0] == "ok"
    path.write_text(path.read_text().replace(",102-1,", ",102-1,surplus,").replace('a, "b"', "a, b"))
    assert outcome(read(path)) == ["ok", "unreadable_row", "ok", "ok"]


def test_a_file_cut_off_in_its_last_row_keeps_the_others(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [row(1), row(2), row(3)])
    path.write_bytes(path.read_bytes()[:-30])
    assert outcome(read(path)) == ["ok", "ok", "unreadable_row"]


@pytest.mark.parametrize("name", ["x.csv", "x.jsonl", "x.json"])
def test_bytes_that_are_not_utf8_cost_their_row_only(tmp_path: Path, name: str) -> None:
    rows = [row(1), row(2, "Caf\u00e9 au lait spots were seen."), row(3)]
    write_csv(tmp_path / "x.csv", rows)
    write_lines(tmp_path / "x.jsonl", [json.dumps(each, ensure_ascii=False) for each in rows])
    (tmp_path / "x.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    path = tmp_path / name
    assert outcome(read(path)) == ["ok"] * 3
    content = path.read_bytes()
    path.write_bytes(content.replace("\u00e9".encode(), b"\xe9"))
    assert outcome(read(path)) == ["ok", "unreadable_row", "ok"]
    path.write_bytes(content.replace(b"103-1", b"10\xff-1"))
    assert outcome(read(path)) == ["ok", "ok", "unreadable_row"]


def test_broken_json_lines_are_counted(tmp_path: Path) -> None:
    lone_half = json.dumps(row(4)).replace("chest", "\\ud83d")
    lines = [
        json.dumps(row(1)),
        '{"patient": "cut',
        "",
        "[1, 2]",
        lone_half,
        "[" * 100_000,
        json.dumps(row(5)),
    ]
    path = write_lines(tmp_path / "x.jsonl", lines)
    assert outcome(read(path)) == ["ok", *["unreadable_row"] * 4, "ok"]


def test_a_torn_json_array_is_an_error_that_says_where(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([row(1), row(2), row(3)])[:-40])
    message = refusal(path)
    assert "x.json" in message
    assert "row 3" in message
    assert "chest" not in message


@pytest.mark.parametrize("name", ["x.csv", "x.json", "x.parquet"])
def test_memory_does_not_grow_with_the_table(tmp_path: Path, name: str) -> None:
    def peak_bytes(num_rows: int) -> int:
        rows = [row(number, "words" * 4_000) for number in range(num_rows)]
        if name == "x.csv":
            write_csv(tmp_path / name, rows)
        elif name == "x.json":
            (tmp_path / name).write_text(json.dumps(rows))
        else:
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name)
        del rows
        tracemalloc.start()
        num_read = sum(1 for _ in read_case_reports(InputConfig(path=str(tmp_path / name))))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert num_read == num_rows
        return peak

    assert peak_bytes(1_000) < peak_bytes(400) + 2_000_000, "12 MB more of text were held in memory"


# ---- what is wrong with the input as a whole ----


def test_an_unset_path_says_how_to_set_it() -> None:
    assert "input.path is not set" in refusal("")
    with pytest.raises(InputError, match="path is not set"):
        input_identity(InputConfig())


@pytest.mark.parametrize("name", ["missing.csv", "missing/folder", "x.xlsx", "empty.csv", "nothing"])
def test_a_path_without_a_table_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    (tmp_path / "x.xlsx").write_bytes(b"PK")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing" / "README.md").write_text("no table")
    assert name in refusal(tmp_path / name)
    with pytest.raises(InputError, match=name):
        input_identity(InputConfig(path=str(tmp_path / name)))


@pytest.mark.parametrize("content", ["patient_uid,patient\n", "\n\n", "[]", " ", ""], ids=repr)
def test_a_table_without_rows_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / ("x.csv" if "," in content or content == "\n\n" else "x.json")
    path.write_text(content)
    message = refusal(path)
    assert path.name in message
    assert "no rows" in message or "empty" in message


def test_wrong_columns_are_refused_before_the_first_record(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [row(1)])
    (tmp_path / "b.csv").write_text("id,report\n1,A man was seen.\n")
    with pytest.raises(InputError) as caught:
        read_case_reports(InputConfig(path=str(tmp_path)))
    message = str(caught.value)
    for part in ("b.csv", "'id'", "'report'", "`patient` or `text`", "patient_uid", "[input.columns]"):
        assert part in message


def test_a_table_without_a_header_does_not_show_its_text(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    for first_row in (
        '1,101-1,"A man of 60 was seen with chest pain that had lasted for three days."',
        "7,chest pain",
        "M,severe chest pain today",
        "F,Mary Smith,12 chest pain",
    ):
        path.write_text(f"{first_row}\n")
        message = refusal(path)
        assert not [text for text in ("chest pain", "Smith", "101-1") if text in message]
        assert f"{first_row.count(',') + 1} columns" in message
        assert "does not look like a header" in message


def test_own_columns_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("Case,Report,Years,Sex\nA7,A man was seen.,61,M\n")
    columns = ColumnsConfig(patient_uid="Case", text="Report", age="Years", gender="Sex")
    assert read(path, columns=columns) == [
        CaseReport(0, "A7", 0, "A7", "A man was seen.", age_years=61.0, gender="M")
    ]


def test_a_mapping_to_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "x.csv", [row(1)])
    message = refusal(path, columns=ColumnsConfig(gender="Sex"))
    for part in ("input.columns.gender", "'Sex'", "'patient_uid'", "x.csv"):
        assert part in message


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("patient_uid,patient,patient\n1-1,a,b\n")
    assert "more than one column 'patient'" in refusal(path)


@pytest.mark.parametrize("name", ["x.parquet", "x.csv.gz", "x.json", "x.jsonl", "x.csv"])
def test_a_file_that_is_not_what_its_ending_says_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes("A man was seen\n".encode("utf-16" if name == "x.csv" else "utf-8") * 4)
    message = refusal(tmp_path / name)
    assert name in message
    assert "man was seen" not in message
    assert ("UTF-8" in message) == (name == "x.csv")


def test_a_header_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes("patient_uid,patient,Gr\u00f6\u00dfe\n1-1,A man was seen.,180\n".encode("latin-1"))
    assert "not UTF-8" in refusal(path)


# ---- buckets ----


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The endpoint of a real S3 server over HTTP with the bucket `reports`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    client = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    client.create_bucket(Bucket="reports")
    yield f"{host}:{port}"
    server.stop()


def test_a_bucket_is_read_like_a_folder(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_csv(tmp_path / "in" / "a.csv", [row(1), row(2)])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row(3)]), tmp_path / "in" / "b.parquet")
    (tmp_path / "in" / "c.json").write_text(json.dumps([row(4)]))
    client = boto3.client("s3", endpoint_url=f"http://{bucket}")
    for name in ("a.csv", "b.parquet", "c.json"):
        client.upload_file(str(tmp_path / "in" / name), "reports", f"in/{name}")
    endpoint = f"?scheme=http&endpoint_override={bucket}"
    assert read(f"s3://reports/in{endpoint}") == read(tmp_path / "in")
    assert read(f"s3://reports/in/a.csv{endpoint}") == read(tmp_path / "in" / "a.csv")
    local = input_identity(InputConfig(path=str(tmp_path / "in")))
    assert input_identity(InputConfig(path=f"s3://reports/in/{endpoint}")) == local
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{bucket}")
    assert read("s3://reports/in") == read(tmp_path / "in")


def test_a_missing_object_is_named_without_the_keys_in_its_uri(bucket: str) -> None:
    uri = f"s3://someone:hush@reports/in/none.csv?scheme=http&endpoint_override={bucket}"
    message = refusal(uri)
    assert "none.csv" in message
    assert "does not exist" in message
    assert "hush" not in message


# ---- identity ----


def test_the_identity_follows_the_content_and_not_the_place(tmp_path: Path) -> None:
    one = write_csv(tmp_path / "one" / "x.csv", [row(1)])
    other = write_csv(tmp_path / "other" / "renamed.csv", [row(1)])
    changed = write_csv(tmp_path / "changed" / "x.csv", [row(1, "Another text.")])
    identities = [input_identity(InputConfig(path=str(path))) for path in (one, one.parent, other, changed)]
    assert identities[0] == identities[1] == identities[2] != identities[3]


def test_the_identity_tells_where_one_file_ends(tmp_path: Path) -> None:
    for name, parts in (("p", ["ab", "c"]), ("q", ["a", "bc"])):
        (tmp_path / name).mkdir()
        for number, part in enumerate(parts):
            (tmp_path / name / f"{number}.csv").write_text(part)
    first, second = (input_identity(InputConfig(path=str(tmp_path / name))) for name in ("p", "q"))
    assert first != second
