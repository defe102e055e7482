"""The frozen pool of questions: the same out of whatever order, each wording once, and of this run alone."""

import random
from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder, read_manifest
from asclepius_ray.errors import ArtifactError
from asclepius_ray.prompts.rendering import task_prompt
from asclepius_ray.records import Task
from asclepius_ray.synthesis.question_pool import (
    POOL_NAME,
    QuestionPool,
    build_pool,
    find_pool,
    read_pool,
    read_pool_if_frozen,
    write_pool,
)
from asclepius_ray.synthesis.steps import draw_examples

TASK, OTHER = Task.SUMMARIZATION, Task.QUESTION_ANSWERING
QUESTIONS = [
    (3, TASK.value, "Sum up the stay."),
    (1, TASK.value, "What was done, in short?"),
    (2, TASK.value, "what was done - in short"),
    (5, OTHER.value, "What was done, in short?"),
    (4, TASK.value, task_prompt(TASK).seed_questions[0].upper()),
    (6, TASK.value, " ?! "),
]


def test_each_wording_is_kept_once_for_its_task_in_the_order_of_the_rows() -> None:
    expected = {TASK: ("What was done, in short?", "Sum up the stay."), OTHER: ("What was done, in short?",)}
    for seed in range(10):
        shuffled = random.Random(seed).sample(QUESTIONS, len(QUESTIONS))
        assert build_pool(shuffled).questions == expected


def test_a_frozen_pool_is_read_back_by_whoever_waits_for_it(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    assert read_pool_if_frozen(root) is None
    pool = build_pool(QUESTIONS)
    write_pool(root, pool, {"seed": 7})
    assert read_pool(root) == read_pool_if_frozen(root) == find_pool(root, {"seed": 7}) == pool
    manifest = read_manifest(root.child("questions"))
    assert manifest.counts == {TASK.value: 2, OTHER.value: 1}
    assert list(manifest.files) == [POOL_NAME]


def test_a_pool_of_other_settings_is_taken_away(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    write_pool(root, build_pool(QUESTIONS), {"seed": 7})
    assert find_pool(root, {"seed": 8}) is None
    assert root.child("questions").names() == []


@pytest.mark.parametrize("content", [b"", b"[]", b'{"No such task": []}', b'{"Summarization": 3}'])
def test_a_damaged_pool_is_an_error_that_says_what_to_do(content: bytes, tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    write_pool(root, build_pool(QUESTIONS), {})
    root.child("questions").write_bytes(POOL_NAME, content)
    with pytest.raises(ArtifactError, match="nothing is paid twice"):
        read_pool(root)


def test_a_row_sees_three_seeds_and_two_of_the_pool_whatever_else_is_drawn() -> None:
    pool = QuestionPool({TASK: tuple(f"Question {number}?" for number in range(40))})
    seeds = set(task_prompt(TASK).seed_questions)
    drawn = {row: draw_examples(7, f"{row}-1", TASK, pool) for row in range(300)}
    assert all(len(set(questions)) == 5 for questions in drawn.values())
    assert all(len(seeds & set(questions)) == 3 for questions in drawn.values())
    assert len({question for questions in drawn.values() for question in questions}) == 45
    assert drawn == {row: draw_examples(7, f"{row}-1", TASK, pool) for row in reversed(range(300))}
    few = QuestionPool({TASK: ("Only one?",)})
    assert len(draw_examples(7, "1-1", TASK, few)) == 4
