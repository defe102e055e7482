"""A sheet as a CSV: one row per item and label, with an empty column for the grade."""

import csv
import io

from asclepius_ray.evaluation.sheets.content import Sheet

COLUMNS = ("sheet", "rater", "item", "label", "note", "question", "answer", "grade", "comment")
LONGEST_CELL = 32_767
"""Characters that a cell of Excel and LibreOffice's export to it holds."""
_FORMULA_STARTS = "=+-@＝＋－＠"


def render_table(sheet: Sheet) -> bytes:
    """The table in UTF-8 with the mark by which Excel knows it; no cell of it can run as a formula."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for item in sheet.items:
        for answer in item.answers:
            cells = (sheet.sheet, sheet.rater, item.code, answer.label)
            texts = (item.note, item.question, answer.text, "", "")
            writer.writerow([_without_formula(cell) for cell in (*cells, *texts)])
    return text.getvalue().encode("utf-8-sig")


def _without_formula(cell: str) -> str:
    """With an apostrophe before what a spreadsheet would run (OWASP, CSV injection)."""
    starts_formula = cell.lstrip()[:1] in tuple(_FORMULA_STARTS) or cell[:1] in ("\t", "\r", "\n")
    return f"'{cell}" if starts_formula else cell
