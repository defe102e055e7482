"""Sizes → calls, tokens and money of a synthesis that nobody has been asked for yet. Pure.

Every report is taken to be asked for its note, unless it is one, its question and its answer, each once: what
is rejected on the way asks less, what is asked again asks more.
"""

from asclepius_ray.chat.config import EndpointConfig
from asclepius_ray.chat.prices import CHARACTERS_PER_TOKEN
from asclepius_ray.costs.sizes import Sizes
from asclepius_ray.evaluation.estimate import RoleEstimate, estimate_role
from asclepius_ray.prompts.rendering import (
    render_answer_prompt,
    render_note_prompt,
    render_question_prompt,
    task_prompt,
)
from asclepius_ray.records import Task
from asclepius_ray.synthesis.steps import POOLED_PER_QUESTION, SEEDS_PER_QUESTION


def plan_synthesis(sizes: Sizes, teacher: EndpointConfig, has_notes: bool = False) -> list[RoleEstimate]:
    """One line for each step, with this project's own prompts around texts of these lengths.

    has_notes: the input is notes already, and none is asked for.
    """
    note, question = sizes.note_characters, sizes.question_characters
    asked = {
        "note": len(render_note_prompt("")[0].content) + sizes.report_characters,
        "question": _question_frame(question) + note,
        "answer": len(render_answer_prompt("", "")[0].content) + note + question,
    }
    replies = {"note": note, "question": question, "answer": sizes.answer_characters}
    return [
        estimate_role(step, teacher, sizes.reports, characters, replies[step] / CHARACTERS_PER_TOKEN)
        for step, characters in asked.items()
        if step != "note" or not has_notes
    ]


def _question_frame(question_characters: float) -> float:
    """The mean of the tasks: each has a description and seed questions of its own."""
    frames = []
    for task in Task:
        seeds = task_prompt(task).seed_questions[:SEEDS_PER_QUESTION]
        frames.append(len(render_question_prompt("", task, seeds)[0].content))
    return sum(frames) / len(frames) + POOLED_PER_QUESTION * question_characters
