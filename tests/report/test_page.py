"""The page over all stages: self-contained, escaped, honest about what is unknown or missing."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from evaluation_scores import full_scores, judge, sound_scores, write_evaluation
from local_buckets import local_bucket
from read_page import ReadPage

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.errors import ArtifactError
from asclepius_ray.report.page import write_report

COUNTS = {
    "input": 20,
    "ok": 15,
    "rejected": {"note.too_short": 2, "duplicate": 1},
    "failed": {"timeout": 2},
}
LOSS = {
    "unit": "nats",
    "models": {
        "trained": {"mean": 2.0, "rows": 5, "rows_too_long": 0},
        "untrained": {"mean": 7.0, "rows": 5, "rows_too_long": 0},
    },
    "difference": {"mean": -5.0, "low": -5.5, "high": -4.5, "n": 5},
}
SCORES = {**sound_scores(), "answer_loss": LOSS}


EVALUATION = "evaluation/report.html"


def spent(cost_usd: float | None = None, unsettled_usd: float | None = None) -> dict[str, Any]:
    return {
        "calls": 25,
        "tokens": 7654,
        "cost_usd": cost_usd,
        "unsettled_usd": unsettled_usd,
        "refusals": 3,
    }


def _write_dataset(
    root: Folder, note: str = "A note.", kind: str = "case_reports", **details: object
) -> None:
    dataset = root.child("dataset")
    dataset.make()
    rows = [{"note": f"{note} {'word ' * index}", "question": "Why?", "answer": "x"} for index in range(15)]
    with dataset.open_output("train-00000.parquet") as stream:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    usage = {"note": {"calls": 20, "prompt_tokens": 4321, "completion_tokens": 987}}
    facts = {
        "tasks": {"Summarization": 15},
        "usage": usage,
        "cost_usd": None,
        "spent": spent(),
        "teacher": {"model": "a-teacher", "is_offline": False},
        "prompts": {"note": "e" * 64},
        "rows": {"train": 14, "validation": 1},
        "articles": {"train": 13, "validation": 1},
    }
    write_manifest(dataset, "dataset", COUNTS, {"input": {"kind": kind}}, {**facts, **details})
    example = {
        "case_report": note,
        "note": note,
        "question": "Why?",
        "answer": "x",
        "task": "Summarization",
        "patient_uid": "1-1",
    }
    root.child("notes").make()
    root.child("notes").write_bytes("examples.json", json.dumps([example]).encode())


def _step(phase: str, number: int, step: int, loss: float, tokens: int = 10) -> dict[str, Any]:
    return {
        "phase": phase,
        "phase_number": number,
        "step": step,
        "loss": loss,
        "learning_rate": 1e-3 / step,
        "gradient_norm": None,
        "tokens": tokens,
        "seconds": 1.0,
        "tokens_per_second": float(tokens),
        "padding_share": 0.2,
        "data_wait_share": 0.01,
        "checkpoint_blocked_share": 0.5 if step == 2 else 0.0,
        "host_memory_gib": 1.5,
    }


def _validation(phase: str, number: int, step: int, loss: float | None) -> dict[str, Any]:
    perplexity = None if loss is None else math.exp(loss)
    place = {"phase": phase, "phase_number": number, "step": step}
    return {**place, "validation_loss": loss, "perplexity": perplexity, "seconds": 0.5}


def _write_later_stages(root: Folder, scores: dict[str, Any]) -> None:
    training = root.child("training")
    training.make()
    lines = [
        _step(phase, number, step, 9.0 - step / 10)
        for number, (phase, steps) in enumerate((("notes", range(1, 21)), ("instructions", range(21, 61))), 1)
        for step in steps
    ]
    lines += [_validation("instructions", 2, step, 4.0) for step in (40, 60)]
    lines += [_validation("instructions", 2, 60, None)]
    training.write_bytes("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
    for name in ("training", "base_model", "model"):
        root.child(name).make()
        write_manifest(root.child(name), name, {}, {})
    write_evaluation(root, scores)
    write_manifest(root.child("evaluation"), "evaluation", {}, {})


def _page(root: Folder) -> tuple[str, ReadPage]:
    text = Path(write_report(root)).read_text(encoding="utf-8")
    return text, ReadPage(text)


def test_the_page_holds_no_key_of_its_root_s_address(root: Folder) -> None:
    _write_dataset(root)
    with local_bucket("pages") as uri:
        stored = Folder(uri.format("run").replace("s3://", "s3://AKIAZZNOTAKEY:zznosecret@"))
        stored.upload(root.local_path)
        assert write_report(stored) == "s3://***@pages/run/report.html"
        page = stored.read_bytes("report.html").decode()
    assert "s3://***@pages/run" in page
    assert "zznosecret" not in page


def test_the_page_fetches_nothing_and_runs_no_script(root: Folder) -> None:
    _write_dataset(root)
    _write_later_stages(root, SCORES)
    text, page = _page(root)
    assert page.tags.count("svg") == 3 + 2 + 2
    assert page.references
    assert all(reference.startswith("#") for reference in page.references if reference != EVALUATION)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert page.open == []


def test_every_link_of_the_page_leads_to_one_place(root: Folder) -> None:
    _write_dataset(root)
    _write_later_stages(root, SCORES)
    _, page = _page(root)
    assert len(page.ids) == len(set(page.ids))
    assert {reference.removeprefix("#") for reference in page.references} - set(page.ids) == {EVALUATION}
    assert root.exists(EVALUATION)


def test_a_note_cannot_put_markup_into_the_page(root: Folder) -> None:
    note = "</div><script>alert('x')</script><img src=x onerror=y> & {{ 7 * 7 }}"
    _write_dataset(root, note=note)
    text, page = _page(root)
    assert "&lt;script&gt;alert" in text
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert "{{ 7 * 7 }}" in page.text


def test_a_page_made_from_real_notes_holds_none_and_calls_them_what_they_are(root: Folder) -> None:
    _write_dataset(root, note="zebrafinch", kind="notes")
    text, page = _page(root)
    assert "zebrafinch" not in text
    assert "1-1" not in text
    assert "synthetic" not in page.text
    assert "case report" not in page.text.lower()
    assert "Made from notes of your own." in page.text
    assert "left out of this page" in page.text
    assert "notes read 20 100.0 %" in page.text


def test_neighbouring_phases_of_one_kind_stand_apart(root: Folder) -> None:
    _write_dataset(root)
    root.child("training").make()
    lines: list[dict[str, Any]] = []
    for first in (0, 2):
        number = 1 + first // 2
        lines.append(_validation("notes", number, first, 9.0 - first))
        lines += [_step("notes", number, first + step, 8.0 - first - step, tokens=1) for step in (1, 2)]
        lines.append(_validation("notes", number, first + 2, 7.0 - first))
    text = "".join(json.dumps(line) + "\n" for line in lines)
    root.child("training").write_bytes("metrics.jsonl", text.encode())
    _, page = _page(root)
    assert "notes 2 2 2.0 s 7.000 6.000 7.000 1096.6" in page.text
    assert "notes 2 2 2.0 s 5.000 4.000 5.000 148.4" in page.text
    # Standing still for as long as one of the two steps took is a third of all the time.
    assert "notes 1 20.0 % 1.0 % 33.3 % not known here 1.50 GiB" in page.text


def test_the_funnel_names_every_reason_and_adds_up(root: Folder) -> None:
    _write_dataset(root)
    _, page = _page(root)
    for shown in (
        "case reports read 20 100.0 %",
        "in the dataset 15 75.0 %",
        "rejected: note · too short 2 10.0 %",
        "rejected: duplicate 1 5.0 %",
        "failed: timeout 2 10.0 %",
    ):
        assert shown in page.text


@pytest.mark.parametrize(
    ("cost_usd", "shown"),
    [(None, "unknown"), (0.0, "USD 0.0000"), (12.5, "USD 12.50")],
    ids=["no price", "free", "paid"],
)
def test_a_cost_without_a_price_is_unknown_and_not_nothing(
    root: Folder, cost_usd: float | None, shown: str
) -> None:
    _write_dataset(root, cost_usd=cost_usd, spent=spent(cost_usd))
    _, page = _page(root)
    assert f"Cost of the teacher {shown}" in page.text
    assert f"20 4,321 987 {shown}" in page.text


def test_the_cost_on_top_is_all_that_was_spent_failed_and_broken_calls_included(root: Folder) -> None:
    _write_dataset(root, cost_usd=1.0, spent=spent(3.5, 0.25))
    _, page = _page(root)
    on_top = "Cost of the teacher USD 3.50 25 calls, failed ones included; up to USD 0.2500 more for calls"
    assert on_top in page.text
    assert "20 4,321 987 USD 1.00" in page.text
    assert "teacher, all runs on this root 25 7,654 USD 3.50" in page.text


@pytest.mark.parametrize(
    ("teacher_is_offline", "judge_is_offline", "shown"),
    [
        (True, True, "The teacher and the judge of this run were the offline rules, not a language model."),
        (True, False, "The teacher of this run was the offline rules, not a language model."),
        (False, True, "The judge of this run was the offline rules, not a language model."),
    ],
)
def test_a_run_by_rules_says_at_the_top_that_it_shows_nothing_clinical(
    root: Folder, teacher_is_offline: bool, judge_is_offline: bool, shown: str
) -> None:
    _write_dataset(root, teacher={"model": "m", "is_offline": teacher_is_offline})
    _write_later_stages(root, {**SCORES, "judges": {"one": judge(judge_is_offline)}})
    _, page = _page(root)
    assert shown in page.text
    assert page.text.index(shown) < page.text.index("Rows in the dataset")
    assert "say nothing about clinical quality" in page.text


def test_a_run_with_language_models_carries_no_banner_of_rules(root: Folder) -> None:
    _write_dataset(root)
    _write_later_stages(root, SCORES)
    _, page = _page(root)
    assert "offline rules" not in page.text
    assert "Research only." in page.text


def test_of_two_judges_the_one_that_is_rules_is_named(root: Folder) -> None:
    _write_dataset(root)
    _write_later_stages(root, full_scores())
    _, page = _page(root)
    assert "of this run was the offline rules" not in page.text
    assert "Judged by rules. Grades of two say nothing clinical." in page.text


def test_the_page_of_a_dataset_alone_says_what_is_not_there_yet(root: Folder) -> None:
    _write_dataset(root)
    _, page = _page(root)
    assert "Not finished when this page was written: train, evaluate." in page.text
    assert "No training step has run yet." in page.text
    assert "Nothing has been evaluated yet." in page.text


def test_scores_loss_and_counts_stand_on_the_page(root: Folder) -> None:
    _write_dataset(root)
    _write_later_stages(root, SCORES)
    _, page = _page(root)
    assert "Not finished" not in page.text
    for shown in (
        "alpha one 3.25 3.08 to 3.44 40 40",
        "beta one 2.75 2.58 to 2.94 40 40",
        "trained 2.000, untrained 7.000.",
        "trained − untrained is −5.000, 95 % interval −5.500 to −4.500, over 5 rows.",
        "training lowered the loss",
        "notes 20 200 20.0 s 8.900 7.000 not measured",
        "instructions 40 400 40.0 s 6.900 3.000 4.000",
        "evaluation, alpha 40 40,123 4,567 unknown",
        "judge one ( grader-1 ) 80 91,234 321 USD 1.75",
    ):
        assert shown in page.text, shown
    assert "e" * 64 in page.text
    assert "f" * 64 in page.text


def test_scores_that_another_version_wrote_are_refused_with_what_to_do(root: Folder) -> None:
    _write_dataset(root)
    _write_later_stages(root, SCORES)
    old = {"judge": {"model": "a-judge"}, "models": {}, "seed": 7}
    root.child("evaluation").write_bytes("scores.json", json.dumps(old).encode())
    with pytest.raises(ArtifactError, match=r"has no .*judges, .*test_set.*--redo evaluate"):
        write_report(root)


def test_an_evaluation_without_an_answer_loss_has_none_on_the_page(root: Folder) -> None:
    _write_dataset(root)
    _write_later_stages(root, sound_scores())
    _, page = _page(root)
    assert "alpha one 3.25" in page.text
    assert "Loss on held-out answers" not in page.text


def test_plots_tell_their_figures_to_those_who_cannot_see_them(root: Folder) -> None:
    _write_dataset(root)
    _write_later_stages(root, SCORES)
    text, _ = _page(root)
    labels = re.findall(r'<svg class="plot"[^>]*role="img" aria-label="([^"]+)"', text)
    assert len(labels) == 7
    assert any("from 6.900 to 3.000; validation from 4.000 to 4.000" in label for label in labels)
    assert any("Learning rate over 60 optimizer steps: from 0.001 to 1.67e-05" in label for label in labels)
    assert all(re.search(r"\d", label) for label in labels)


def test_a_torn_last_line_of_the_metrics_is_left_out(root: Folder) -> None:
    _write_dataset(root)
    root.child("training").make()
    whole = json.dumps(_step("notes", 1, 1, 5.5, tokens=1))
    root.child("training").write_bytes("metrics.jsonl", f'{whole}\n{{"phase": "no'.encode())
    _, page = _page(root)
    assert "notes 1 1 1.0 s 5.500 5.500 not measured" in page.text


def test_a_root_without_any_stage_is_refused(root: Folder) -> None:
    with pytest.raises(ArtifactError, match="no finished stage"):
        write_report(root)
    assert not root.exists("report.html")
