"""The tables beside the evaluation's page: LaTeX prints every name, a spreadsheet runs none."""

import csv
import io
import re

import pytest
from evaluation_scores import (
    full_scores,
    sound_scores,
)
from shown_evaluation import HOSTILE, show

from asclepius_ray.artifacts import Folder


def test_a_hostile_name_is_printed_by_latex_and_not_run(root: Folder) -> None:
    scores = sound_scores()
    scores["run"] = "a\n\\input{b}"
    scores["models"][HOSTILE] = scores["models"].pop("alpha")
    scores["models"]["[2ex] *"] = scores["models"].pop("beta")
    show(root, scores)
    text = root.child("evaluation").read_bytes("scores.tex").decode()
    commands = set(re.findall(r"\\([a-zA-Z]+)", text))
    known = (
        "usepackage begin end centering footnotesize setlength tabcolsep caption toprule midrule bottomrule"
    )
    printed = {name for name in commands if name.startswith("text")}
    assert commands - printed == {*known.split(), "scriptsize", "shortstack"}
    assert (
        r"\textbackslash{}input\{/etc/passwd\} 100 \% \#\textasciitilde{}\textasciicircum{} [U+6A21]" in text
    )
    assert r"\& \$x\_1\$" in text
    assert "\n{[2ex] *} & " in text
    assert all(line.startswith("%") for line in text.splitlines()[:2])


def test_the_latex_table_has_a_cell_for_each_model_and_task(root: Folder) -> None:
    scores = full_scores()
    show(root, scores)
    text = root.child("evaluation").read_bytes("scores.tex").decode()
    assert text.count(r"\begin{tabular}{@{}lrrr@{}}") == text.count(r"\end{tabular}") == 2
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    depth = 0
    for mark in re.findall(r"(?<!\\)[{}]", text.replace(r"\\", "")):
        depth += 1 if mark == "{" else -1
        assert depth >= 0
    assert depth == 0
    first = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in first.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 1 + 2 * 3
    assert {row.count(" & ") for row in rows} == {3}
    assert r"{alpha} & 3.25 & 3.25 & 3.25 \\" in rows
    assert r" & {\scriptsize 3.08--3.44} & {\scriptsize 3.08--3.44} & {\scriptsize 3.08--3.44} \\" in rows
    assert r"{gamma} & -- & -- & -- \\" in text


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1+cmd", "@SUM(A1)", "\t=1", "＝1", HOSTILE])
def test_no_cell_of_the_csv_is_run_by_a_spreadsheet(root: Folder, name: str) -> None:
    scores = sound_scores()
    scores["models"][name] = scores["models"].pop("alpha")
    scores["judges"][name] = scores["judges"].pop("one")
    for values in scores["models"].values():
        values["grades"][name] = values["grades"].pop("one")
    scores["comparisons"] = {name: {"over_all": [{**scores["comparisons"]["one"]["over_all"][0], "a": name}]}}
    show(root, scores)
    text = root.child("evaluation").read_bytes("scores.csv").decode()
    cells = {cell for row in csv.reader(io.StringIO(text)) for cell in row}
    assert any(cell.startswith("'") for cell in cells)
    for cell in cells:
        assert not re.match(r"\s*[=+@＝]", cell)
        assert not cell.startswith("-") or float(cell) < 0


def test_the_csv_holds_one_figure_a_row(root: Folder) -> None:
    scores = full_scores()
    scores["comparisons"]["one"]["over_all"][0]["difference"] = -0.123456789
    show(root, scores)
    rows = list(csv.DictReader(io.StringIO(root.child("evaluation").read_bytes("scores.csv").decode())))

    def find(**wanted: str) -> dict[str, str]:
        (row,) = [row for row in rows if all(row[key] == value for key, value in wanted.items())]
        return row

    over_all = find(judge="one", model="alpha", task="Over all", measure="mean_grade")
    assert [float(over_all[key]) for key in ("value", "low", "high", "n")] == [3.25, 3.08, 3.44, 40]
    assert find(judge="two", model="gamma", task="Summarization", measure="mean_grade")["value"] == ""
    pair = find(judge="one", model="alpha", against="beta", task="Over all", measure="paired_difference")
    assert [pair[key] for key in ("value", "n", "p", "p_adjusted")] == [
        "-0.123456789",
        "40",
        "0.002",
        "0.004",
    ]
    assert find(model="beta", measure="unfaithful_dose")["value"] == "0.075"
    assert find(model="beta", measure="rouge_l")["n"] == "37"
    assert find(model="beta", judge="two", measure="declined_unanswerable")["value"] == "0.727"
    assert find(model="beta", judge="", measure="declined_unanswerable")["value"] == "0.636"
