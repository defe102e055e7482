"""The pilot round's accepted questions → `questions/`: a frozen pool of examples for all other rows.

The paper shows each question call three seed questions and two out of a pool that grows with every
reply, so that the result depends on the order of the replies. Here the first rows are asked with seed
questions alone; their accepted questions, each wording once, are the pool, and it never changes again.
"""

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from asclepius_ray.artifacts import Folder, is_finished, read_manifest, write_manifest
from asclepius_ray.errors import ArtifactError
from asclepius_ray.prompts.rendering import task_prompt
from asclepius_ray.records import Task

POOL_NAME = "pool.json"
FOLDER_NAME = "questions"
LOOK_SECONDS = 0.5

_NOT_A_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class QuestionPool:
    """Task → questions, in the order of the rows that they come from."""

    questions: Mapping[Task, tuple[str, ...]] = field(default_factory=dict)

    def of(self, task: Task) -> tuple[str, ...]:
        return self.questions.get(task, ())


def build_pool(questions: Iterable[tuple[int, str, str]]) -> QuestionPool:
    """The pool of (row_index, task, question): each wording once, none that is a seed question.

    Two questions that differ in case, spaces or punctuation alone count as one.
    """
    seen: dict[Task, set[str]] = {
        task: {_wording(seed) for seed in task_prompt(task).seed_questions} for task in Task
    }
    kept: dict[Task, list[str]] = {task: [] for task in Task}
    for _row_index, name, question in sorted(questions):
        task = Task(name)
        if (wording := _wording(question)) and wording not in seen[task]:
            seen[task].add(wording)
            kept[task].append(question)
    return QuestionPool({task: tuple(found) for task, found in kept.items() if found})


def write_pool(root: Folder, pool: QuestionPool, made_from: dict[str, Any]) -> None:
    folder = root.child(FOLDER_NAME)
    folder.clear()
    content = {task.value: list(found) for task, found in pool.questions.items()}
    folder.write_bytes(POOL_NAME, (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
    counts = {task.value: len(found) for task, found in pool.questions.items()}
    write_manifest(folder, FOLDER_NAME, counts, made_from)


def read_pool(root: Folder) -> QuestionPool:
    folder = root.child(FOLDER_NAME)
    try:
        content = json.loads(folder.read_bytes(POOL_NAME))
        return QuestionPool({Task(name): tuple(found) for name, found in content.items()})
    except (ValueError, AttributeError, TypeError):
        raise ArtifactError(
            f"{folder.uri}/{POOL_NAME} is damaged; remove the folder and run again: it is made from the "
            "journal, and nothing is paid twice"
        ) from None


def find_pool(root: Folder, made_from: dict[str, Any]) -> QuestionPool | None:
    """The frozen pool of an earlier run with the same settings; one of other settings is removed."""
    folder = root.child(FOLDER_NAME)
    if not is_finished(folder):
        return None
    if read_manifest(folder).made_from == made_from:
        return read_pool(root)
    folder.clear()
    return None


def read_pool_if_frozen(root: Folder) -> QuestionPool | None:
    return read_pool(root) if is_finished(root.child(FOLDER_NAME)) else None


async def wait_for_pool(root: Folder) -> QuestionPool:
    """The pool, as soon as the driver has frozen it."""
    while not await asyncio.to_thread(is_finished, root.child(FOLDER_NAME)):
        await asyncio.sleep(LOOK_SECONDS)
    return await asyncio.to_thread(read_pool, root)


def _wording(question: str) -> str:
    return _NOT_A_WORD.sub(" ", question.casefold()).strip()
