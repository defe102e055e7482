"""One row through note, question and answer over real HTTP: where it ends, what it used, what is kept."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from desk_beside import reports_named, walk_rows
from scripted_teacher import NOTE, REPLIES, ScriptedTeacher

from asclepius_ray.chat.desk_link import RunTrouble
from asclepius_ray.quality.fidelity.kinds import Unfaithful
from asclepius_ray.records import Message, Task
from asclepius_ray.synthesis import steps
from asclepius_ray.synthesis.config import SynthesisConfig
from asclepius_ray.synthesis.steps import Demands, draw_task
from asclepius_ray.synthesis.walk import RowResult, StepUsage, Walk


def _walk(
    teacher: ScriptedTeacher,
    num_rows: int,
    folder: Path,
    max_in_flight: int = 8,
    text_is_note: bool = False,
) -> list[RowResult]:
    walk = Walk(teacher.endpoint(max_in_flight), seed=7, demands=Demands(30), text_is_note=text_is_note)
    return walk_rows(walk, reports_named(num_rows), folder)


def test_a_row_carries_its_texts_task_and_usage(tmp_path: Path) -> None:
    with ScriptedTeacher() as teacher:
        (result,) = _walk(teacher, 1, tmp_path)
    assert (result.state, result.stage, result.reason) == ("ok", "", "")
    assert (result.note, result.question, result.answer) == (NOTE.strip(), "List the drugs.", "Aspirin.")
    assert result.task == draw_task(7, "0-1").value
    assert result.task in {task.value for task in Task}
    assert result.usage == {step: StepUsage(1, 10, 5) for step in ("note", "question", "answer")}


def test_a_row_ends_at_the_step_whose_reply_is_unfit_and_asks_no_further(tmp_path: Path) -> None:
    unfit = {"note": "report<0>", "question": "Case 1.", "answer": "Case 2."}

    def reply(step: str, prompt: str) -> str:
        if step == "note":
            row = prompt.split("report<")[1].split(">")[0]
            return "Too short." if row == "0" else f"Case {row}. {NOTE}"
        return "Sorry, I cannot do this." if unfit[step] in prompt else REPLIES[step]

    with ScriptedTeacher(reply) as teacher:
        results = _walk(teacher, 4, tmp_path)
    assert [(result.state, result.stage, result.reason) for result in results] == [
        ("rejected", "note", "short_note"),
        ("rejected", "question", "refusal"),
        ("rejected", "answer", "refusal"),
        ("ok", "", ""),
    ]
    texts = [(bool(result.note), bool(result.question), bool(result.answer)) for result in results]
    assert texts == [(False, False, False), (True, False, False), (True, True, False), (True, True, True)]
    assert teacher.received == {"note": 4, "question": 3, "answer": 2}
    assert [list(result.usage) for result in results[:2]] == [["note"], ["note", "question"]]


def test_a_text_that_is_a_note_already_is_neither_asked_for_nor_changed(tmp_path: Path) -> None:
    with ScriptedTeacher() as teacher:
        results = _walk(teacher, 2, tmp_path, text_is_note=True)
    assert [result.note for result in results] == ["report<0>", "report<1>"]
    assert {result.state for result in results} == {"ok"}
    assert teacher.received == {"question": 2, "answer": 2}


def test_a_text_that_no_table_can_hold_does_not_end_the_run(tmp_path: Path) -> None:
    def reply(step: str, prompt: str) -> str:
        return "Aspirin \ud83d and a zero \x00." if step == "answer" else REPLIES[step]

    with ScriptedTeacher(reply) as teacher:
        (result,) = _walk(teacher, 1, tmp_path)
    assert result.answer == "Aspirin ? and a zero ."


def test_editing_the_answer_prompt_buys_answers_again_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ScriptedTeacher() as teacher:
        first = _walk(teacher, 8, tmp_path)
        bought = dict(teacher.received)
        # All notes are the same here, and so are the questions about them.
        assert bought["answer"] == 1
        assert _walk(teacher, 8, tmp_path) == first
        assert teacher.received == bought

        def edited(note: str, question: str) -> list[Message]:
            return [Message("user", f"{message.content} Be brief.") for message in rendered(note, question)]

        rendered = steps.render_answer_prompt
        monkeypatch.setattr(steps, "render_answer_prompt", edited)
        assert _walk(teacher, 8, tmp_path) == first
        assert teacher.received == bought | {"answer": 2}


@pytest.mark.parametrize(
    ("kinds", "ending"),
    [
        (frozenset(Unfaithful), ("rejected", "note", "unsupported_drug")),
        (frozenset({Unfaithful.DENIAL, Unfaithful.DRUG}), ("rejected", "note", "unsupported_drug")),
        (frozenset({Unfaithful.DENIAL}), ("ok", "", "")),
        (frozenset(), ("ok", "", "")),
    ],
    ids=["all", "two", "another", "none"],
)
def test_a_note_is_held_against_its_report_by_the_kinds_that_are_set(
    kinds: frozenset[Unfaithful], ending: tuple[str, str, str], tmp_path: Path
) -> None:
    with ScriptedTeacher() as teacher:
        walk = Walk(teacher.endpoint(), 7, Demands(30, kinds), text_is_note=False)
        (result,) = walk_rows(walk, reports_named(1), tmp_path)
    # The reply names aspirin, and the report is no more than a name.
    assert (result.state, result.stage, result.reason) == ending
    assert bool(result.note) == (result.state == "ok")


@pytest.mark.parametrize("is_rejected", [True, False])
def test_a_note_with_a_placeholder_is_rejected_where_the_run_file_says_so(
    is_rejected: bool, tmp_path: Path
) -> None:
    def reply(step: str, prompt: str) -> str:
        return f"{NOTE} Seen by [Name of physician]." if step == "note" else REPLIES[step]

    config = SynthesisConfig(min_note_words=5, fidelity=(), reject_note_placeholders=is_rejected)
    with ScriptedTeacher(reply) as teacher:
        walk = Walk(teacher.endpoint(), 7, Demands.from_config(config), text_is_note=False)
        (result,) = walk_rows(walk, reports_named(1), tmp_path)
    expected = ("rejected", "note", "placeholder") if is_rejected else ("ok", "", "")
    assert (result.state, result.stage, result.reason) == expected


def test_a_slow_row_holds_no_other_row_up(tmp_path: Path) -> None:
    answered_at: dict[bool, float] = {}

    def reply(step: str, prompt: str) -> str:
        if step == "answer":
            answered_at["SLOW" in prompt] = time.monotonic()
        return f"{NOTE} SLOW" if step == "note" and "report<0>" in prompt else REPLIES[step]

    def delay(step: str, prompt: str) -> float:
        return 1.5 if "report<0>" in prompt else 0.0

    with ScriptedTeacher(reply, delay) as teacher:
        assert len(_walk(teacher, 30, tmp_path, max_in_flight=2)) == 30
    # The last of the 29 other rows is through its three steps before the slow one has its note.
    assert answered_at[True] - answered_at[False] > 0.3


@pytest.mark.parametrize(("max_in_flight", "most_at_once"), [(5, 5), (0, 120)], ids=["limited", "unlimited"])
def test_a_worker_fills_its_limit_and_never_passes_it(
    max_in_flight: int, most_at_once: int, tmp_path: Path
) -> None:
    def delay(step: str, prompt: str) -> float:
        return 1.5 if step == "note" and not max_in_flight else 0.01

    with ScriptedTeacher(delay_seconds=delay) as teacher:
        _walk(teacher, 120, tmp_path, max_in_flight)
    assert teacher.most_at_once == most_at_once


def test_trouble_of_the_endpoint_ends_every_row(tmp_path: Path) -> None:
    with ScriptedTeacher() as teacher:
        endpoint = replace(teacher.endpoint(), base_url=teacher.base_url.replace("/v1", "/v2"))
        with pytest.raises(RunTrouble) as caught:
            walk_rows(Walk(endpoint, 7, 30, text_is_note=False), reports_named(6), tmp_path)
    assert "no model 'scripted'" in caught.value.trouble.message
