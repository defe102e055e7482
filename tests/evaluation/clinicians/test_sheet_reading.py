"""What raters give back is counted once and as meant, or refused with the place where it is wrong."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from invented_study import draw, foreseen_grade, saved_page

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import InputError
from asclepius_ray.evaluation.sheets.key import Key, read_key
from asclepius_ray.evaluation.sheets.reading import collect_grades, read_entries

SECRET = "Mrs. Example has"


@pytest.fixture
def key(study: Folder, tmp_path: Path) -> Key:
    return draw(study, tmp_path / "out").key


def fill_table(file: Path, key: Key, delimiter: str = ",", encoding: str = "utf-8-sig") -> bytes:
    """The table as a spreadsheet saves it after a rater has filled its grades."""
    rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))
    heading = rows[0]
    places = {column: heading.index(column) for column in ("rater", "item", "label", "grade", "comment")}
    for row in rows[1:]:
        answer = key.answer_behind(row[places["rater"]], row[places["item"]], row[places["label"]])
        assert answer is not None
        row[places["grade"]] = str(foreseen_grade(*answer))
        row[places["comment"]] = "fine, “so”; naïve"
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter).writerows(rows)
    return text.getvalue().encode(encoding)


def page_bytes(key: Key, change: Callable[[dict[str, Any]], None] = lambda _: None) -> bytes:
    page = saved_page(key, "anna", foreseen_grade)
    change(page)
    return json.dumps(page).encode()


def collect(key: Key, **contents: bytes) -> dict[str, dict[tuple[str, str], int]]:
    names = {name: name.replace("_", ".") for name in contents}
    return collect_grades({names[name]: read_entries(contents[name], names[name]) for name in contents}, key)


def expected(key: Key, rater: str) -> dict[tuple[str, str], int]:
    return {answer: foreseen_grade(*answer) for answer in key.answers_of(rater).values()}


def test_the_key_comes_back_from_its_file(key: Key, tmp_path: Path) -> None:
    assert read_key((tmp_path / "out" / "key.json").read_bytes(), "key.json") == key


@pytest.mark.parametrize(
    ("delimiter", "encoding"),
    [(",", "utf-8-sig"), (";", "cp1252"), ("\t", "utf-8")],
    ids=["as written", "as a German Excel saves it", "tabs"],
)
def test_a_filled_table_comes_back_as_it_was_filled(
    key: Key, tmp_path: Path, delimiter: str, encoding: str
) -> None:
    content = fill_table(tmp_path / "out" / "sheet-ben.csv", key, delimiter, encoding)
    grades = collect(key, ben_csv=content)
    assert grades == {"ben": expected(key, "ben")}
    assert len(set(grades["ben"].values())) == 4


def test_page_and_table_of_all_raters_come_back_together(key: Key, tmp_path: Path) -> None:
    grades = collect(
        key, anna_json=page_bytes(key), ben_csv=fill_table(tmp_path / "out" / "sheet-ben.csv", key)
    )
    assert grades == {"anna": expected(key, "anna"), "ben": expected(key, "ben")}


def test_a_place_without_a_grade_is_left_out_and_no_error(key: Key) -> None:
    def empty_one(page: dict[str, Any]) -> None:
        page["grades"][3]["grade"] = None

    assert len(collect(key, anna_json=page_bytes(key, empty_one))["anna"]) == len(expected(key, "anna")) - 1


def test_the_same_rater_twice_with_the_same_grades_counts_once(key: Key, tmp_path: Path) -> None:
    table = fill_table(tmp_path / "out" / "sheet-anna.csv", key)
    assert collect(key, anna_json=page_bytes(key), anna_csv=table) == {"anna": expected(key, "anna")}


def change_grade(value: Any) -> Callable[[dict[str, Any]], None]:
    def change(page: dict[str, Any]) -> None:
        page["grades"][1]["grade"] = value

    return change


def change_place(field: str, value: str) -> Callable[[dict[str, Any]], None]:
    def change(page: dict[str, Any]) -> None:
        page["grades"][1][field] = value

    return change


def change_page(field: str, value: str) -> Callable[[dict[str, Any]], None]:
    def change(page: dict[str, Any]) -> None:
        page[field] = value

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (change_grade(5), "grade 2: 5 is no grade"),
        (change_grade(0), "grade 2: 0 is no grade"),
        (change_grade(2.5), r"grade 2: 2\.5 is no grade"),
        (change_grade(True), "no number is no grade"),
        (change_grade(SECRET), "something that is no number is no grade"),
        (change_place("item", "item-99"), "no answer 'A' of item 'item-99'|no answer 'B' of item 'item-99'"),
        (change_place("label", "Z"), "no answer 'Z' of item 'item-"),
        (change_place("label", SECRET), "no answer that is written there"),
        (change_page("sheet", "s-0000"), "belongs to the sheet 's-0000'"),
        (change_page("rater", "dora"), "no rater 'dora'; its raters are anna, ben, chris"),
        (change_page("form", "another"), "is no file of grades"),
    ],
)
def test_a_page_that_cannot_be_counted_is_refused(
    key: Key, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    with pytest.raises(InputError, match=said) as refused:
        collect(key, anna_json=page_bytes(key, change))
    assert "anna.json" in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_grade_of_a_table_is_refused_with_its_line(key: Key, tmp_path: Path) -> None:
    content = fill_table(tmp_path / "out" / "sheet-ben.csv", key)
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    rows[1][rows[0].index("grade")] = "7"
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    # The note has two lines, so the first row ends in the third.
    with pytest.raises(InputError, match=r"ben\.csv, line 3: 7 is no grade; write 1, 2, 3 or 4"):
        collect(key, ben_csv=text.getvalue().encode())


def test_contradicting_grades_of_one_rater_are_refused(key: Key, tmp_path: Path) -> None:
    table = fill_table(tmp_path / "out" / "sheet-anna.csv", key)
    (code, label), answer = list(key.answers_of("anna").items())[1]
    other = foreseen_grade(*answer) % 4 + 1
    with pytest.raises(InputError, match=f"anna grades answer {label} of {code} with"):
        collect(key, anna_json=page_bytes(key, change_grade(other)), anna_csv=table)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.csv", b"item,label,grade\n", "has no column sheet, rater"),
        ("x.csv", b"", "has no column"),
        ("x.json", b"{", "is no file of grades"),
        ("x.json", b"[1]", "is no file of grades"),
    ],
)
def test_a_file_that_is_no_sheet_is_refused(name: str, content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_entries(content, name)


def test_a_file_that_is_no_key_is_refused(key: Key) -> None:
    for content in (b"{", b"[]", b'{"form": "asclepius key 1"}', page_bytes(key)):
        with pytest.raises(InputError, match=r"is not a key: give the key\.json"):
            read_key(content, "other.json")


def test_a_note_longer_than_a_cell_is_read_back(key: Key, tmp_path: Path) -> None:
    content = fill_table(tmp_path / "out" / "sheet-ben.csv", key)
    long = content.replace(b"Second line", b"word " * 60_000)
    assert collect(key, ben_csv=long) == {"ben": expected(key, "ben")}
