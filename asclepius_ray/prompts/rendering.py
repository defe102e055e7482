"""The only place where a prompt's text is put together: files of this folder → the text that is sent.

A prompt's bytes are part of what is made with it, so each has a hash that goes into the manifests.
"""

import hashlib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template

from asclepius_ray.records import Message, Task

_OWN_TAG = re.compile(r"<(?=\s*/?\s*(?:case_report|note|question|task|examples|answer)\b)", re.IGNORECASE)


@dataclass(frozen=True)
class TaskPrompt:
    """What the question prompt says of one task, and its five seed questions."""

    description: str
    seed_questions: tuple[str, ...]


def render_note_prompt(case_report: str) -> list[Message]:
    """The request for a note: the eight requirements of the paper's section 2."""
    return [Message("user", _render("note", case_report=_quote(case_report)))]


def render_question_prompt(note: str, task: Task, examples: Sequence[str]) -> list[Message]:
    """The request for an instruction of one task, with examples of it."""
    text = _render(
        "question",
        note=_quote(note),
        task=task.value,
        task_description=task_prompt(task).description,
        examples=[_quote(example) for example in examples],
    )
    return [Message("user", text)]


def render_answer_prompt(note: str, question: str) -> list[Message]:
    """The request for the teacher's answer."""
    return [Message("user", _render("answer", note=_quote(note), question=_quote(question)))]


def render_instruction(note: str, question: str) -> str:
    """The text that the clinical model is trained with and served with, byte for byte the same."""
    return _render("instruction", note=note, question=question)


def render_judge_prompt(
    note: str, question: str, labelled_answers: Sequence[tuple[str, str]], reasons: bool = False
) -> list[Message]:
    """The request for grades: the models' answers as (label, answer), in the order of their labels.

    `reasons`: the judge is to say why, below the line of grades.
    """
    answers = [(label, _quote(answer)) for label, answer in labelled_answers]
    text = _render("judge", note=_quote(note), question=_quote(question), answers=answers, reasons=reasons)
    return [Message("user", text)]


@cache
def task_prompt(task: Task) -> TaskPrompt:
    values = tomllib.loads(_read(f"tasks/{task.slug}.toml"))
    return TaskPrompt(values["description"], tuple(values["seed_questions"]))


@cache
def prompt_text(name: str) -> str:
    """The file of one prompt, unrendered; it is exported beside the trained model."""
    return _read(f"{name}.txt")


def prompt_hash(name: str) -> str:
    """sha256 of a prompt's file; the question prompt's covers the eight tasks' files too."""
    digest = hashlib.sha256(prompt_text(name).encode())
    if name == "question":
        for task in Task:
            digest.update(_read(f"tasks/{task.slug}.toml").encode())
    return digest.hexdigest()


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    # The values are inserted in one pass: braces inside a note are never taken for a template's.
    return Environment(
        undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=False, autoescape=False
    )


@cache
def _template(name: str) -> Template:
    # Compiled once: to compile it for every call took a quarter of a synthesis worker's time.
    return _environment().from_string(prompt_text(name))


def _quote(text: str) -> str:
    """Breaks our own tags inside a text, so that an answer cannot close its tag and speak to the judge."""
    return _OWN_TAG.sub("&lt;", text)


def _render(name: str, **values: object) -> str:
    return _template(name).render(**values)
