"""A sheet shows all that there is to grade, names no model, runs no text, and its key is private."""

import csv
import html
import io
import json
import re
import stat
from pathlib import Path

import pytest
from invented_study import FAILED, FORMULAS, MARKUP, MODELS, RATERS, UNANSWERABLE, draw, write_study

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.records import ANSWERS_NAME, ITEMS_NAME, Answer, Item, read_records
from asclepius_ray.evaluation.sheets.assignment import Drawing
from asclepius_ray.evaluation.sheets.writing import SheetOrder, write_sheets


def rows_of(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8-sig"), newline="")))


def test_no_sheet_names_a_model_or_an_item(study: Folder, tmp_path: Path) -> None:
    written = draw(study, tmp_path / "out")
    sheets = sorted((tmp_path / "out").glob("sheet-*"))
    assert [file.name for file in sheets] == [
        f"sheet-{rater}.{kind}" for rater in RATERS for kind in ("csv", "html")
    ]
    item_ids = {item.item_id for items in written.key.assignment.values() for item in items}
    for file in sheets:
        text = file.read_text(encoding="utf-8")
        assert [word for word in (*MODELS, *item_ids) if word in text] == []
    key_text = (tmp_path / "out" / "key.json").read_text()
    assert all(word in key_text for word in (*MODELS, *item_ids))


def test_page_and_table_show_each_answer_under_the_label_of_the_key(study: Folder, tmp_path: Path) -> None:
    written = draw(study, tmp_path / "out")
    evaluation = study.child("evaluation")
    items = {item.item_id: item for item in read_records(evaluation, ITEMS_NAME, Item)}
    texts = {
        (answer.item_id, answer.model): answer.text
        for answer in read_records(evaluation, ANSWERS_NAME, Answer)
    }
    for rater in RATERS:
        page = (tmp_path / "out" / f"sheet-{rater}.html").read_text(encoding="utf-8")
        rows = {(row["item"], row["label"]): row for row in rows_of(tmp_path / "out" / f"sheet-{rater}.csv")}
        expected = written.key.answers_of(rater)
        assert rows.keys() == expected.keys()
        assert len(expected) > 20
        for place, (item_id, model) in expected.items():
            assert rows[place]["answer"].removeprefix("'") == texts[item_id, model]
            assert rows[place]["note"] == items[item_id].note
            assert rows[place]["question"] == items[item_id].question
            assert rows[place]["grade"] == ""
            shown = re.search(
                rf'id="{place[0]}-{place[1]}">.*?<div class="text" dir="auto">(.*?)</div>', page, re.DOTALL
            )
            assert shown is not None
            assert html.unescape(shown[1]) == texts[item_id, model]


def test_no_text_becomes_markup_and_the_page_asks_for_nothing(study: Folder, tmp_path: Path) -> None:
    draw(study, tmp_path / "out")
    page = (tmp_path / "out" / "sheet-anna.html").read_text(encoding="utf-8")
    assert html.escape(MARKUP, quote=False).replace('"', "&#34;").replace("'", "&#39;") in page
    assert MARKUP not in page
    assert "default-src 'none'" in page
    assert re.findall(r"""(?:src|href)=|url\(|@import|https?:""", page) == []


def test_no_cell_of_the_table_runs_as_a_formula(study: Folder, tmp_path: Path) -> None:
    draw(study, tmp_path / "out")
    cells = [cell for row in rows_of(tmp_path / "out" / "sheet-anna.csv") for cell in row.values()]
    guarded = [cell for cell in cells if cell.startswith("'")]
    assert {start for start in FORMULAS if any(cell.startswith(f"'{start}") for cell in guarded)} == set(
        FORMULAS
    )
    assert [cell for cell in cells if cell.lstrip()[:1] in tuple("=+-@") or cell[:1] in ("\t", "\r")] == []


def test_the_key_and_the_sheets_are_the_owners_alone(study: Folder, tmp_path: Path) -> None:
    draw(study, tmp_path / "out")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {0o600}
    assert "key.json" in modes


def test_a_failed_answer_is_left_out_and_counted(study: Folder, tmp_path: Path) -> None:
    written = draw(study, tmp_path / "out", num_items=36)
    assert written.missing == {FAILED[1]: 1}
    shown = {answer for rater in RATERS for answer in written.key.answers_of(rater).values()}
    assert FAILED not in shown
    assert (FAILED[0], "vossberg") in shown


def test_unanswerable_items_are_drawn_on_request_alone(study: Folder, tmp_path: Path) -> None:
    drawing = Drawing(RATERS, 37, 0.5, 7)
    with pytest.raises(ConfigError, match="only 36 items"):
        write_sheets(study, SheetOrder(drawing, (), False), Folder(str(tmp_path / "out")))
    written = write_sheets(study, SheetOrder(drawing, (), True), Folder(str(tmp_path / "out")))
    assert UNANSWERABLE in {item.item_id for items in written.key.assignment.values() for item in items}


def test_chosen_models_alone_are_shown(study: Folder, tmp_path: Path) -> None:
    order = SheetOrder(Drawing(RATERS, 20, 0.5, 7), ("vossberg", "tarnfield"), False)
    written = write_sheets(study, order, Folder(str(tmp_path / "out")))
    shown = {model for rater in RATERS for _, model in written.key.answers_of(rater).values()}
    assert shown == {"vossberg", "tarnfield"}


def test_the_same_order_writes_the_same_bytes_and_another_takes_another_folder(
    study: Folder, tmp_path: Path
) -> None:
    draw(study, tmp_path / "out")
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    draw(study, tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == first
    with pytest.raises(ConfigError, match="another drawing"):
        draw(study, tmp_path / "out", seed=8)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == first


@pytest.mark.parametrize("notes_are_real", [True, False, None])
def test_the_notice_is_there_unless_the_notes_are_known_to_be_invented(
    study: Folder, tmp_path: Path, notes_are_real: bool | None
) -> None:
    if notes_are_real is not None:
        scores = json.dumps({"test_set": {"real_notes": notes_are_real}})
        study.child("evaluation").write_bytes("scores.json", scores.encode())
    draw(study, tmp_path / "out")
    page = (tmp_path / "out" / "sheet-anna.html").read_text(encoding="utf-8")
    assert ('id="confidential"' in page) is (notes_are_real is not False)
    assert ("These notes are of real patients" in page) is (notes_are_real is True)


@pytest.mark.parametrize(
    ("raters", "said"),
    [
        ((), "names nobody"),
        (("anna", "Anna"), "twice"),
        (("../anna",), "part of a file's"),
    ],
    ids=["none", "twice", "path"],
)
def test_raters_that_make_no_files_are_refused(tmp_path: Path, raters: tuple[str, ...], said: str) -> None:
    root = Folder(str(tmp_path / "run"))
    write_study(root)
    with pytest.raises(ConfigError, match=said):
        draw(root, tmp_path / "out", raters=raters)
    assert not (tmp_path / "out").exists()
