"""`asclepius purge`: texts go, figures stay."""

from pathlib import Path

import pytest
from report.evaluation_scores import sound_scores, write_evaluation

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.chat.purse import MARK_NAME
from asclepius_ray.errors import ConfigError, LeaseError
from asclepius_ray.evaluation.asking import JOURNALS_NAME
from asclepius_ray.evaluation.records import ANSWERS_NAME, Answer, read_records
from asclepius_ray.lease import acquire
from asclepius_ray.purge import purge
from asclepius_ray.report.evaluation_page import write_evaluation_page
from asclepius_ray.report.page import write_report
from asclepius_ray.synthesis.stage import JOURNAL_NAME

CANARY = b"kryptonithemia"
JOURNALS = (JOURNAL_NAME, f"{JOURNALS_NAME}/judge.judge")


def make_run(folder: Path) -> Folder:
    root = Folder(str(folder))
    root.make()
    root.write_bytes("run.json", b'{"name": "x"}')
    for name in JOURNALS:
        journal = root.child(name)
        journal.write_bytes("00000001.segment", CANARY)
        journal.write_bytes(MARK_NAME, b"{}")
    root.child("questions").write_bytes("pool.json", CANARY)
    root.child("notes").write_bytes("examples.json", b'[{"note": "' + CANARY + b'"}]')
    root.child("evaluation").write_bytes("asked.json", CANARY)
    write_manifest(root.child("notes"), "notes", {"train": 3}, {"seed": 7})
    return root


def finish(root: Folder) -> None:
    counts = {"input": 3, "ok": 3, "rejected": {}, "failed": {}}
    write_evaluation(root, sound_scores())
    write_manifest(root.child("evaluation"), "evaluation", {}, {})
    details = {"tasks": {}, "usage": {}, "teacher": {"model": "m", "is_offline": True}, "rows": {}}
    write_manifest(root.child("dataset"), "dataset", counts, {"input": {"kind": "case_reports"}}, details)


def shown_pages(root: Folder) -> list[Path]:
    return [root.local_path / "report.html", root.local_path / "evaluation" / "report.html"]


def holding_the_word(root: Path) -> list[str]:
    return [str(path) for path in root.rglob("*") if path.is_file() and CANARY in path.read_bytes()]


def test_no_text_is_left_and_the_mark_of_the_budget_is(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    finish(root)
    assert len(holding_the_word(tmp_path)) == 5
    assert purge(root) == 5
    assert holding_the_word(tmp_path) == []
    assert all(root.child(name).exists(MARK_NAME) for name in JOURNALS)
    assert purge(root) == 0


def test_no_text_of_a_purged_evaluation_comes_back_on_a_page_that_is_written_later(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    finish(root)
    write_evaluation(root, sound_scores(), CANARY.decode(), CANARY.decode())
    write_evaluation_page(root)
    assert CANARY in (root.local_path / "evaluation" / "report.html").read_bytes()
    purge(root)
    for _again in range(2):
        assert all(CANARY not in page.read_bytes() for page in shown_pages(root))
        write_report(root)
    assert b"taken off this page by" in (root.local_path / "evaluation" / "report.html").read_bytes()
    # The answers are what the run was for: they stay in their table.
    answers = read_records(root.child("evaluation"), ANSWERS_NAME, Answer)
    assert {answer.text for answer in answers} == {CANARY.decode()}


def test_what_names_the_raters_goes(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    finish(root)
    for name in ("agreement.json", "agreement.tex"):
        root.child("evaluation").write_bytes(name, b"anna")
    assert purge(root) == 7
    assert not root.child("evaluation").exists("agreement.json")
    assert not root.child("evaluation").exists("agreement.tex")


def test_a_journal_that_is_not_yet_an_evaluation_is_not_thrown_away(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    finish(root)
    root.child("evaluation").delete("manifest.json")
    with pytest.raises(ConfigError, match="no finished evaluation"):
        purge(root)
    assert len(holding_the_word(tmp_path)) == 5


def test_a_journal_that_is_not_yet_a_dataset_is_not_thrown_away(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="no finished dataset"):
        purge(root)
    assert len(holding_the_word(tmp_path)) == 5


def test_a_root_at_work_is_not_purged(tmp_path: Path) -> None:
    root = make_run(tmp_path / "run")
    finish(root)
    lease = acquire(root, "synthesize:1")
    try:
        with pytest.raises(LeaseError):
            purge(root)
    finally:
        lease.release(0)
    assert len(holding_the_word(tmp_path)) == 5
