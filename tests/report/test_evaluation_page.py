"""The evaluation's page: its figures are those that were measured; names stay text, real notes stay away."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluation_scores import (
    Scores,
    full_scores,
    model,
    score,
    sound_scores,
    write_evaluation,
)
from read_page import ReadPage
from shown_evaluation import HOSTILE, show

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError
from asclepius_ray.report.evaluation_page import write_evaluation_page
from asclepius_ray.report.paper_figures import PUBLISHED_PERPLEXITIES

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
    with pytest.raises(ArtifactError, match="nothing was evaluated"):
        write_evaluation_page(root)


def test_in_the_paper_synthetic_notes_lie_among_the_real_ones() -> None:
    of_kind: dict[str, list[float]] = {}
    for row in PUBLISHED_PERPLEXITIES:
        of_kind.setdefault(row.kind.partition(",")[0].partition(" of ")[0], []).append(row.perplexity)
    (synthetic,) = of_kind["synthetic notes"]
    assert min(of_kind["real notes"]) < synthetic < max(of_kind["real notes"]) < of_kind["case reports"][0]
