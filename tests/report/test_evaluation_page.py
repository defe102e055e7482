"""The evaluation's page: what it says is what was measured, and it warns exactly where it should."""

import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from evaluation_scores import (
    Scores,
    full_scores,
    interval,
    judge,
    model,
    positions,
    score,
    sound_scores,
    write_evaluation,
)
from read_page import ReadPage

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError
from asclepius_ray.report.evaluation_page import write_evaluation_page

Change = Callable[[Scores], Any]
HOSTILE = '=cmd|"/c calc"!A0\n<script>alert(1)</script> & $x_1$ \\input{/etc/passwd} 100 % #~^ 模'


@pytest.fixture
def root(tmp_path: Path) -> Folder:
    return Folder(str(tmp_path))


def show(root: Folder, scores: Scores) -> tuple[str, ReadPage]:
    write_evaluation(root, scores)
    page, _, _ = write_evaluation_page(root)
    text = Path(page).read_text(encoding="utf-8")
    read = ReadPage(text)
    assert read.open == []
    return text, read


def warned(text: str) -> set[str]:
    return set(re.findall(r'<li data-kind="(\w+)">', text))


def _flat(scores: Scores) -> None:
    for values in scores["models"].values():
        values["grades"]["one"]["over_all"]["grade_shares"] = {"1": 0.0, "2": 0.0, "3": 0.03, "4": 0.97}


def _barely_not_flat(scores: Scores) -> None:
    for values in scores["models"].values():
        values["grades"]["one"]["over_all"]["grade_shares"] = {"1": 0.0, "2": 0.0, "3": 0.06, "4": 0.94}


def _one_flat_model(scores: Scores) -> None:
    scores["models"]["beta"]["grades"]["one"]["over_all"]["grade_shares"] = {"4": 1.0}


def _unjudged(number: int) -> Change:
    def change(scores: Scores) -> None:
        scores["models"]["alpha"]["grades"]["one"]["over_all"] = score(3.25, 400 - number, number)

    return change


def _set(path: str, value: Any) -> Change:
    def change(scores: Scores) -> None:
        *parents, last = path.split(".")
        for name in parents:
            scores = scores[name]
        scores[last] = value

    return change


def _both(*changes: Change) -> Change:
    def change(scores: Scores) -> None:
        for one in changes:
            one(scores)

    return change


WARNINGS: dict[str, tuple[Change, set[str]]] = {
    "nothing is wrong": (_set("seed", 8), set()),
    "one grade alone": (_flat, {"flat"}),
    "94 % of one grade": (_barely_not_flat, set()),
    "one model with one grade alone": (_one_flat_model, set()),
    "the first is preferred": (_set("positions.one", positions(0.4)), {"position_bias"}),
    "the last is preferred": (_set("positions.one", positions(-0.4)), {"position_bias"}),
    "a bias that may be none": (_set("positions.one", positions(0.09)), set()),
    "a bias without interval": (_set("positions.one.first_minus_last", interval(None)), set()),
    "1.25 % unjudged": (_unjudged(5), {"unjudged"}),
    "1 % unjudged": (_unjudged(4), set()),
    "1.25 % unreadable": (_set("judges.one.unreadable_replies", 1), {"unreadable"}),
    "1 % unreadable": (
        _both(_set("judges.one.unreadable_replies", 1), _set("judges.one.requests", 100)),
        set(),
    ),
    "failed answers": (_set("models.beta.failed", {"timeout": 1}), {"failed_answers"}),
    "29 notes": (_set("test_set.notes", 29), {"few_notes"}),
    "30 notes": (_set("test_set.notes", 30), set()),
    "a cut answer": (_set("models.beta.cut_at_token_limit", 1), {"cut_answers"}),
    "one order": (_set("protocol.orders", 1), {"one_order"}),
    "one answer at a time": (_both(_set("protocol.orders", 1), _set("protocol.kind", "single")), set()),
    "rules as judge": (_set("judges.one", judge(is_offline=True)), {"rules"}),
    "nothing judged": (
        _set("models", {"alpha": model({"one": None}), "beta": model({"one": None})}),
        {"nothing_judged", "unjudged"},
    ),
}


@pytest.mark.parametrize(("change", "kinds"), WARNINGS.values(), ids=WARNINGS)
def test_each_warning_stands_exactly_where_it_should(root: Folder, change: Change, kinds: set[str]) -> None:
    scores = sound_scores()
    change(scores)
    text, page = show(root, scores)
    assert warned(text) == kinds
    assert ("None: the figures give no cause for one." in page.text) == (not kinds)
    assert ("before the figures." in page.text) == bool(kinds)


def test_a_warning_says_by_how_much_and_of_whom(root: Folder) -> None:
    scores = sound_scores()
    for path, value in (
        ("models.beta.failed", {"timeout": 2, "too_long": 1}),
        ("models.beta.cut_at_token_limit", 10),
        ("judges.one.unreadable_replies", 40),
        ("test_set.notes", 12),
    ):
        _set(path, value)(scores)
    _unjudged(20)(scores)
    _, page = show(root, scores)
    for said in (
        "Questions were left without an answer: beta 3 (timeout 2, too long 1). They",
        "cut at the limit of 400 tokens and graded as they are: beta 10 of 40 (25.0 %).",
        "Of 80 replies of one, 40 held no grades that can be read (50.0 %).",
        "one left items without a grade: alpha 20 of 400 (5.0 %). They are in no mean",
        "Only 12 notes were asked about.",
        "5 warnings stand below",
    ):
        assert said in page.text, said


def test_a_bias_that_balanced_orders_cancel_is_told_from_one_that_they_do_not(root: Folder) -> None:
    scores = sound_scores()
    scores["positions"]["one"] = positions(0.4)
    write_evaluation(root, scores)
    evaluation = Path(root.child("evaluation").uri)
    balanced = ReadPage(Path(write_evaluation_page(root)[0]).read_text(encoding="utf-8"))
    assert "one prefers the answer that stands first: by 0.40 grades" in balanced.text
    assert "(first minus last 0.40, 95 % interval 0.30 to 0.50)" in balanced.text
    assert "it cancels in the means: at most 0.000 grades" in balanced.text
    grades = pyarrow.parquet.read_table(evaluation / "grades.parquet")
    of_alpha_first = [row for row in grades.to_pylist() if (row["model"] == "alpha") == (row["place"] == 0)]
    table = pyarrow.Table.from_pylist(of_alpha_first, schema=grades.schema)
    pyarrow.parquet.write_table(table, evaluation / "grades.parquet")
    text = Path(write_evaluation_page(root)[0]).read_text(encoding="utf-8")
    assert warned(text) == {"position_bias", "bias_left"}
    unbalanced = ReadPage(text)
    assert "0.400 grades of it are left between two models" in unbalanced.text
    assert "This may be the doing of the order in which the answers were shown." in unbalanced.text
    (evaluation / "grades.parquet").unlink()
    unknown = ReadPage(Path(write_evaluation_page(root)[0]).read_text(encoding="utf-8"))
    assert "is not known: the table of grades is gone" in unknown.text


HEADLINES: dict[str, tuple[Change, str]] = {
    "ahead": (
        _set("seed", 8),
        "By the judge one, alpha is ahead with a mean grade of 3.25 of 4: its difference to beta stays clear "
        "of zero after correction for the number of comparisons; against beta, 0.50 grades (95 % interval "
        "0.43 to 0.58, corrected p = 0.004).",
    ),
    "not shown": (
        lambda scores: scores["comparisons"]["one"]["over_all"][0].update(p_adjusted=0.05),
        "alpha has the highest mean grade, 3.25 of 4, but that it is ahead is not shown: after correction "
        "for the number of comparisons its difference to beta may be zero; against beta, 0.50 grades (95 % "
        "interval 0.43 to 0.58, corrected p = 0.050).",
    ),
    "turned": (
        lambda scores: scores["comparisons"]["one"]["over_all"][0].update(
            a="beta", b="alpha", difference=-0.5, low=-0.6, high=-0.1, p_adjusted=0.0001
        ),
        "alpha is ahead with a mean grade of 3.25 of 4: its difference to beta stays clear of zero after "
        "correction for the number of comparisons; against beta, 0.50 grades (95 % interval 0.10 to 0.60, "
        "corrected p < 0.001).",
    ),
    "beaten in pairs": (
        lambda scores: scores["comparisons"]["one"]["over_all"][0].update(difference=-0.5),
        "alpha has the highest mean grade, 3.25 of 4, and yet beta is ahead of it on the items",
    ),
    "flat": (_flat, "Who is ahead cannot be said by the judge one: 97.0 % of the grades are 4."),
    "same mean": (
        _set("models", {"alpha": model({"one": 3.0}), "beta": model({"one": 3.0})}),
        "By the judge one, nobody is ahead: alpha and beta have the same highest mean grade.",
    ),
    "one model": (
        lambda scores: scores.update(models={"alpha": model({"one": 3.25})}, comparisons={}, wins={}),
        "alpha has a mean grade of 3.25 of 4 (95 % interval 3.08 to 3.44); with one model there is nothing",
    ),
    "nothing tested": (_set("comparisons", {}), "against beta, nothing could be tested."),
    "nothing judged": (
        _set("models", {"alpha": model({"one": None})}),
        "Nothing can be said by the judge one: not one answer has a grade.",
    ),
    "rules": (
        _set("judges.one", judge(is_offline=True)),
        "Not said by any of this: how good the answers are for a clinician. The grades come from rules",
    ),
    "no judge": (
        lambda scores: scores.update(judges={}, models={"alpha": model({})}, comparisons={}, positions={}),
        "Nobody graded the answers",
    ),
}


@pytest.mark.parametrize(("change", "said"), HEADLINES.values(), ids=HEADLINES)
def test_the_headline_says_what_the_figures_show_and_no_more(root: Folder, change: Change, said: str) -> None:
    scores = sound_scores()
    change(scores)
    _, page = show(root, scores)
    assert said in page.text
    assert page.text.index(said) < page.text.index("What was done", page.text.index("Examples"))


def test_a_leader_of_three_is_said_to_be_ahead_of_those_alone_of_whom_it_is_shown(root: Folder) -> None:
    scores = full_scores()
    scores["comparisons"]["one"]["over_all"][0]["p_adjusted"] = 0.3
    _, page = show(root, scores)
    said = "and is ahead of gamma; that it is ahead of beta is not shown, as after correction"
    assert said in page.text
    assert "The judges differ on whose mean is the highest: alpha by one, beta by two." in page.text


SHOWN = (
    "Model Named Entity Recognition Summarization Over all alpha 3.25 3.08 to 3.44 n = 20 3.25 3.08",
    "beta 2.75 2.58 to 2.94 n = 20 2.75 2.58 to 2.94 n = 20 2.75 2.58 to 2.94 n = 40 gamma",
    "gamma nothing judged nothing judged nothing judged",
    "alpha 37.5 % 25.0 % 25.0 % 12.5 %",
    "Over all alpha − beta 0.50 0.43 to 0.58 0.002 0.004 40 36 yes",
    "Over all beta − gamma 0.25 0.18 to 0.33 0.030 0.060 40 36 no",
    "Summarization alpha − beta 0.50",
    "Model Win Tie Loss alpha 21 12 7",
    "first − last 0.40 0.30 to 0.50 n = 40",
    "in all orders in 81.3 % of the cases",
    "one − two 80 0.456 0.356 to 0.556 0.567 0.467 to 0.667 −0.234 −0.334 to −0.134",
    "alpha 0.412 0.392 to 0.432 0.523 0.493 to 0.553 0.054 0.044 to 0.064 37",
    "alpha 40 61.5 57.0 120.0 5.0 % 2.5 % 0.0 %",
    "number dose drug any of them alpha 12.5 % 7.5 % 10.0 %",
    "alpha 11 63.6 % 72.7 % 72.7 %",
    "trained − untrained, paired −5.000 −5.500 to −4.500 5",
    "reports case reports 21.125 21.025 to 21.225 42.250 42.150 to 42.350 30 1 45,678 34,567",
    "made synthetic notes 9.375",
    "MIMIC-III discharge summaries real notes, those of the fine-tuning's source 2.186",
    "i2b2 real notes of other hospitals 5.178",
    "PMC-Patients case reports 71.719",
    "Asclepius synthetic notes 4.816",
    "their level cannot be compared with figures of ours",
    "gamma 40 0 40 0",
    "model alpha 40 40,123 4,567 unknown",
    "judge one 80 91,234 321 USD 1.75",
    "grader-1 , rules, not a language model",
    "Seed 7",
    "2026-09-21 14:13 UTC, after 5 min 12 s",
    "together, 2 orders, without reasons, answers of at most 400 tokens",
    "e" * 64,
)


def test_the_figures_on_the_page_are_those_of_the_scores(root: Folder) -> None:
    _, page = show(root, full_scores())
    for shown in SHOWN:
        assert shown in page.text, shown


def test_the_page_goes_from_what_can_be_said_to_the_single_answers(root: Folder) -> None:
    _, page = show(root, full_scores())
    places = [
        page.ids.index(name)
        for name in (
            *("about", "warnings", "scores", "comparisons", "position", "judges", "without"),
            *("loss", "realism", "lost", "costs", "examples"),
        )
    ]
    assert places == sorted(places)


def test_the_evaluation_page_fetches_nothing_and_runs_no_script(root: Folder) -> None:
    text, page = show(root, full_scores())
    assert page.tags.count("svg") == 2 * 3 + 2 + 2
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert len(page.ids) == len(set(page.ids))
    files = {"scores.json", "scores.csv", "scores.tex"}
    assert {reference.removeprefix("#") for reference in page.references} - set(page.ids) == files
    assert files <= set(root.child("evaluation").names())


def test_every_plot_tells_its_figures_to_those_who_cannot_see_them(root: Folder) -> None:
    text, _ = show(root, full_scores())
    labels = re.findall(r'<svg class="plot"[^>]*role="img" aria-label="([^"]+)"', text)
    assert len(labels) == text.count("<svg")
    assert any("Over all: alpha 3.25, 95 % interval 3.08 to 3.44; beta 2.75" in label for label in labels)
    assert any("alpha 2.90, 95 % interval 2.73 to 3.09; beta 3.10" in label for label in labels)
    assert any("gamma nothing judged" in label for label in labels)
    assert any("alpha 4 excellent 37.5 %, 3 satisfactory 25.0 %" in label for label in labels)
    assert any("alpha minus beta 0.50, 95 % interval 0.43 to 0.58" in label for label in labels)


def test_each_model_has_a_colour_and_a_mark_of_its_own(root: Folder) -> None:
    scores = sound_scores()
    scores["models"] = {f"model-{k}": model({"one": 3.0 + k / 10}, ()) for k in range(7)}
    text, _ = show(root, scores)
    plot = text[text.index('aria-label="Mean grades') :]
    plot = plot[: plot.index("</svg>")]
    marks = re.findall(r'<path id="scores-0-0-m\w+" d="([^"]+)" style="([^"]+)"/>', plot)
    series = [mark for mark in marks if "--series-" in mark[1]]
    assert len(series) == len(set(series)) == 7
    assert len({shape for shape, _ in series}) == 7


def _missing(scores: Scores) -> Iterator[Scores]:
    single = full_scores()
    single["models"] = {"alpha": single["models"]["alpha"]}
    yield single | {"comparisons": {}, "wins": {}, "judges_compared": []}
    yield single | {"comparisons": {"one": {"over_all": [], "tasks": {}}}, "wins": None, "positions": None}
    bare = full_scores()
    for values in bare["models"].values():
        values |= {"reference": None, "unanswerable": None}
        values["grades"].pop("two")
    yield bare
    empty = full_scores()
    for values in empty["models"].values():
        values["grades"] = {"one": {"over_all": score(None, 0, 40), "tasks": {}}}
        values["texts"] |= {"declined_share": None, "unfaithful": {}, "unfaithful_any": None}
        values["texts"]["words"] = {"mean": None, "median": None, "p95": None}
        values["unanswerable"]["declined_by_judge"] = {"one": None}
    yield empty | {"realism": None, "answer_loss": None, "prompts": {}}
    tiny = sound_scores()
    over_all = tiny["models"]["alpha"]["grades"]["one"]["over_all"]
    over_all |= {"low": None, "high": None}
    tiny["comparisons"]["one"]["over_all"][0] |= dict.fromkeys(("low", "high", "p", "p_adjusted"))
    tiny["positions"]["one"] = {"places": [], "first_minus_last": None, "orders_agree": None}
    tiny["test_set"] |= {"notes": 1, "items": 1, "tasks": {"": 1}}
    yield tiny
    judged = sound_scores()
    judged["judges"] = {}
    judged["models"] = {"alpha": model({})}
    yield judged | {"comparisons": {}, "wins": {}, "positions": {}}


def test_everything_renders_where_parts_are_missing(root: Folder) -> None:
    pages = [show(root, scores)[1].text for scores in _missing(full_scores())]
    assert "There are no two models to compare." in pages[0]
    assert "There are no two judges to compare." in pages[0]
    assert "The test set has no reference answers." in pages[2]
    assert "No such question was asked." in pages[2]
    assert "Not measured in this evaluation." in pages[3]
    assert "PMC-Patients case reports 71.719" in pages[3]
    assert "Over all alpha − beta 0.50 not available not available not available" in pages[4]
    assert "1 model answered 40 questions" in pages[5]


def test_hostile_names_and_answers_stay_text_on_the_page(root: Folder) -> None:
    scores = full_scores()
    scores["run"] = scores["test_set"]["name"] = HOSTILE
    scores["models"][HOSTILE] = scores["models"].pop("alpha")
    scores["judges"][HOSTILE] = scores["judges"].pop("two")
    for values in scores["models"].values():
        values["grades"][HOSTILE] = values["grades"].pop("two")
    write_evaluation(root, scores, answer=HOSTILE + "{{ 7 * 7 }}", note="</div><img src=x onerror=y>")
    text = Path(write_evaluation_page(root)[0]).read_text(encoding="utf-8")
    page = ReadPage(text)
    assert page.open == []
    assert not {"script", "img"} & set(page.tags)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "{{ 7 * 7 }}" in page.text
    assert "</div><img src=x onerror=y>" in page.text


def test_a_plot_takes_no_name_for_a_formula(root: Folder) -> None:
    scores = sound_scores()
    scores["models"][r"$\frac$"] = scores["models"].pop("alpha")
    text, _ = show(root, scores)
    plots = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert all(r">$\frac$</text>" in plot for plot in plots if 'aria-label="Mean grades' in plot)


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


def test_examples_are_a_few_at_each_grade_and_the_same_each_time(root: Folder) -> None:
    text, page = show(root, sound_scores())
    heads = re.findall(r"<article class=\"example\">\s*<h3>(\d) \w+ · (\w+)</h3>", text)
    assert [grade for grade, _ in heads] == [*"444333222111"]
    assert {name for grade, name in heads if grade == "4"} == {"alpha", "beta"}
    assert re.search(r"Why \d+\?", page.text)
    again = Path(write_evaluation_page(root)[0]).read_text(encoding="utf-8")
    assert again == text
    other, _ = show(root, sound_scores() | {"seed": 8})
    assert re.findall(r"Why \d+\?", other) != re.findall(r"Why \d+\?", text)


@pytest.mark.parametrize("said", [True, None], ids=["real", "not said"])
def test_nothing_of_a_real_note_is_on_the_page_or_in_the_tables(root: Folder, said: bool | None) -> None:
    scores = sound_scores()
    scores["test_set"]["real_notes"] = said
    write_evaluation(root, scores, answer="kestrel", note="zebrafinch")
    for uri in write_evaluation_page(root):
        text = Path(uri).read_text(encoding="utf-8")
        assert "zebrafinch" not in text
        assert "kestrel" not in text
        assert "Why " not in text
    page = ReadPage(Path(root.child("evaluation").child("report.html").uri).read_text(encoding="utf-8"))
    assert "The test set holds real notes. None is shown" in page.text
    assert "40 questions on 36 real notes" in page.text


def test_a_real_note_is_not_even_read(root: Folder) -> None:
    scores = sound_scores()
    scores["test_set"]["real_notes"] = True
    write_evaluation(root, scores)
    for name in ("items.parquet", "answers.parquet"):
        root.child("evaluation").write_bytes(name, b"no table")
    assert len(write_evaluation_page(root)) == 3


def test_a_root_without_an_evaluation_is_refused(root: Folder) -> None:
    with pytest.raises(ArtifactError, match="nothing has been evaluated"):
        write_evaluation_page(root)
