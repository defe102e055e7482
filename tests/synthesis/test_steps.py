"""What is drawn for a row depends on seed and row alone; what is kept of a reply is its content."""

from collections import Counter

import pytest

from asclepius_ray.prompts.rendering import task_prompt
from asclepius_ray.records import CaseReport, Task
from asclepius_ray.synthesis.question_pool import QuestionPool
from asclepius_ray.synthesis.steps import (
    build_messages,
    clean_question,
    clean_reply,
    draw_examples,
    draw_task,
)

REPORT = CaseReport(0, "123-1", 7, "123-1", "A 54-year-old man came with chest pain.", 54.0, "M")


def test_the_draws_of_a_row_are_these_for_ever() -> None:
    """Golden values: another Python, or another way of drawing, would give finished runs other tasks."""
    assert draw_task(7, "7665777-1") is Task.SUMMARIZATION
    assert draw_task(8, "7665777-1") is Task.ABBREVIATION_EXPANSION
    seeds = task_prompt(Task.PARAPHRASING).seed_questions
    drawn = draw_examples(7, "7665777-1", Task.PARAPHRASING, QuestionPool())
    assert [seeds.index(question) for question in drawn] == [4, 3, 2]


def test_every_task_is_equally_likely() -> None:
    counts = Counter(draw_task(3, f"{row}-1") for row in range(8000))
    assert set(counts) == set(Task)
    assert all(900 < number < 1100 for number in counts.values())


@pytest.mark.parametrize("task", list(Task))
def test_three_different_seed_questions_of_the_task_are_shown(task: Task) -> None:
    shown = {tuple(draw_examples(1, f"{row}-1", task, QuestionPool())) for row in range(1000)}
    assert all(
        len(set(drawn)) == 3 and set(drawn) <= set(task_prompt(task).seed_questions) for drawn in shown
    )
    assert len(shown) == 60  # every choice of three out of five, in every order


def test_the_question_prompt_shows_the_rows_task_and_examples() -> None:
    task = draw_task(5, REPORT.row_id)
    (message,) = build_messages("question", REPORT, {"note": "NOTE TEXT"}, seed=5, pool=QuestionPool())
    assert task.value in message.content
    assert all(
        f"- {question}" in message.content
        for question in draw_examples(5, REPORT.row_id, task, QuestionPool())
    )
    assert "NOTE TEXT" in message.content
    assert REPORT.text not in message.content


def test_the_note_prompt_holds_the_report_and_the_answer_prompt_note_and_question() -> None:
    assert REPORT.text in build_messages("note", REPORT, {}, seed=5, pool=QuestionPool())[0].content
    content = build_messages(
        "answer", REPORT, {"note": "NOTE TEXT", "question": "Why?"}, seed=5, pool=QuestionPool()
    )[0].content
    assert "NOTE TEXT" in content
    assert "Why?" in content


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("  Summary.\r\n\r\n\r\n\r\nCourse.\n", "Summary.\n\nCourse."),
        ("```\nSummary.\nCourse.\n```", "Summary.\nCourse."),
        ("```text\nSummary.\n```\n", "Summary."),
        ("Use ``` as it is.", "Use ``` as it is."),
        ("half a pair \ud83d, a zero \x00byte", "half a pair ?, a zero byte"),
        ("Temp 38.5 \u00b0C \U0001fa7a", "Temp 38.5 \u00b0C \U0001fa7a"),
    ],
)
def test_a_reply_keeps_its_content(reply: str, kept: str) -> None:
    assert clean_reply(reply) == kept
    assert clean_reply(kept) == kept


@pytest.mark.parametrize(
    ("reply", "kept"),
    [
        ("- List the drugs.", "List the drugs."),
        ('Instruction: "List the drugs."', "List the drugs."),
        ("\u201cList the drugs.\u201d", "List the drugs."),
        ('"CAD" and "HTN"', '"CAD" and "HTN"'),
        ('Expand "CAD".', 'Expand "CAD".'),
        ("Question the dose: is it right?", "Question the dose: is it right?"),
        ("", ""),
    ],
)
def test_a_question_loses_only_what_is_put_around_it(reply: str, kept: str) -> None:
    assert clean_question(reply) == kept
