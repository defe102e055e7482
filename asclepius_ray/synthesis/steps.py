"""The three steps as pure functions: what is drawn for a row, what is asked, what is kept of a reply.

A row's task and examples depend on the run's seed and the row's id alone, never on order or workers.
"""

import hashlib
import random
import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from enum import StrEnum

from asclepius_ray.prompts.rendering import (
    render_answer_prompt,
    render_note_prompt,
    render_question_prompt,
    task_prompt,
)
from asclepius_ray.quality.checks import find_answer_fault, find_note_fault, find_question_fault
from asclepius_ray.quality.fidelity.compare import find_unfaithful, load_lexicons
from asclepius_ray.quality.fidelity.kinds import Unfaithful
from asclepius_ray.records import CaseReport, Message, Task
from asclepius_ray.synthesis.config import SynthesisConfig
from asclepius_ray.synthesis.question_pool import QuestionPool

STEPS = ("note", "question", "answer")
SEEDS_PER_QUESTION = 3
POOLED_PER_QUESTION = 2

_FENCED = re.compile(r"\A```[a-z]*\n(.*?)\n?```\Z", re.DOTALL)
_BLANK_LINES = re.compile(r"\n[ \t]*\n(?:[ \t]*\n)+")
_QUESTION_LABEL = re.compile(r"\A(?:[-*]\s+|(?:instruction|question)\s*:\s*)+", re.IGNORECASE)
_QUOTES = {'"': '"', "\u201c": "\u201d"}


def draw_task(seed: int, row_id: str) -> Task:
    """The row's task, each of the eight equally likely."""
    return _random("task", seed, row_id).choice(list(Task))


def draw_examples(seed: int, row_id: str, task: Task, pool: QuestionPool) -> list[str]:
    """Three of the task's five seed questions and two of the pool (paper, section 3), in random order."""
    draw = _random("examples", seed, row_id)
    chosen = draw.sample(task_prompt(task).seed_questions, SEEDS_PER_QUESTION)
    pooled = pool.of(task)
    chosen += draw.sample(pooled, min(POOLED_PER_QUESTION, len(pooled)))
    if pooled:
        draw.shuffle(chosen)
    return chosen


def build_messages(
    step: str, report: CaseReport, texts: Mapping[str, str], seed: int, pool: QuestionPool
) -> list[Message]:
    """The request of one step; `texts` holds what the steps before it have yielded."""
    if step == "note":
        return render_note_prompt(report.text)
    if step == "question":
        task = draw_task(seed, report.row_id)
        return render_question_prompt(texts["note"], task, draw_examples(seed, report.row_id, task, pool))
    return render_answer_prompt(texts["note"], texts["question"])


def clean_step_reply(step: str, text: str) -> str:
    return clean_question(text) if step == "question" else clean_reply(text)


@dataclass(frozen=True)
class Demands:
    """What a reply has to be."""

    min_note_words: int
    fidelity: Set[Unfaithful] = frozenset()
    """Kinds of unfaithfulness to its case report for which a note is rejected."""

    rejects_note_placeholders: bool = False

    @classmethod
    def from_config(cls, config: SynthesisConfig) -> "Demands":
        return cls(config.min_note_words, frozenset(config.fidelity), config.reject_note_placeholders)

    def prepare(self) -> None:
        """Loads what the checks need, so that the first note does not wait for it, and all others with it."""
        if self.fidelity:
            load_lexicons()


def find_step_fault(
    step: str, text: str, report: str, texts: Mapping[str, str], demands: Demands
) -> StrEnum | None:
    """Why the reply of a step is not accepted, or None. `report` is the text of the case report."""
    if step == "note":
        fault = find_note_fault(text, demands.min_note_words, report, demands.rejects_note_placeholders)
        return fault or find_unfaithful(text, report, demands.fidelity)
    if step == "question":
        return find_question_fault(text, texts["note"])
    return find_answer_fault(text, texts["note"])


def clean_reply(text: str) -> str:
    """The reply without what only its transport added: fences around it, odd line ends, blank runs.

    A half surrogate pair, which JSON can carry and a table cannot, becomes a question mark.
    """
    encodable = text.encode("utf-8", errors="replace").decode("utf-8").replace("\x00", "")
    unified = encodable.replace("\r\n", "\n").replace("\r", "\n").strip()
    fenced = _FENCED.match(unified)
    return _BLANK_LINES.sub("\n\n", fenced.group(1) if fenced else unified).strip()


def clean_question(text: str) -> str:
    """The instruction alone, without the bullet, label or quotation marks that teachers put around it."""
    question = _QUESTION_LABEL.sub("", clean_reply(text)).strip()
    is_quoted = len(question) > 2 and _QUOTES.get(question[0]) == question[-1]
    inner = question[1:-1].strip()
    return inner if is_quoted and question[0] not in inner else question


def _random(purpose: str, seed: int, row_id: str) -> random.Random:
    digest = hashlib.sha256(f"{purpose}\n{seed}\n{row_id}".encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))
