"""The rules of all steps: the parts of a prompt → the reply. The same prompt has the same reply, always."""

import zlib
from collections.abc import Callable

from asclepius_ray.chat.offline.answers.abbreviations import expand_abbreviations
from asclepius_ray.chat.offline.answers.facts import answer_fact
from asclepius_ray.chat.offline.answers.named_entities import list_entities
from asclepius_ray.chat.offline.answers.paraphrases import paraphrase
from asclepius_ray.chat.offline.answers.references import resolve_references
from asclepius_ray.chat.offline.answers.relations import relate
from asclepius_ray.chat.offline.answers.summaries import summarize
from asclepius_ray.chat.offline.answers.times import tell_times
from asclepius_ray.chat.offline.judge import grade_answer
from asclepius_ray.chat.offline.note import write_note
from asclepius_ray.chat.offline.prompt_reading import PromptParts
from asclepius_ray.chat.offline.question import ask_question
from asclepius_ray.chat.offline.tasks import recognise_task
from asclepius_ray.chat.offline.text import ParsedNote, parse_note
from asclepius_ray.records import Task

SHORT_NOTE_WORDS = 40
SHORT_ANSWER_WORDS = 6

_ANSWERS: dict[Task, Callable[[ParsedNote, str], str]] = {
    Task.NAMED_ENTITY_RECOGNITION: list_entities,
    Task.ABBREVIATION_EXPANSION: expand_abbreviations,
    Task.RELATION_EXTRACTION: relate,
    Task.TEMPORAL_INFORMATION_EXTRACTION: tell_times,
    Task.COREFERENCE_RESOLUTION: resolve_references,
    Task.PARAPHRASING: paraphrase,
    Task.SUMMARIZATION: summarize,
    Task.QUESTION_ANSWERING: answer_fact,
}


def reply_to(parts: PromptParts) -> str:
    """What the offline teacher says to a prompt."""
    if parts.step == "note":
        return write_note(parts.source)
    if parts.step == "question":
        return ask_question(parts.source, parts.task, parts.examples)
    if parts.step == "answer":
        return answer_question(parts.source, parts.question)
    own = answer_question(parts.source, parts.question)
    return " ".join(str(grade_answer(parts.source, parts.question, own, answer)) for answer in parts.answers)


def short_reply_to(prompt: str, parts: PromptParts) -> str:
    """A reply of a few words, taken from the source's first ones, that differs from prompt to prompt."""
    if parts.step == "note":
        return " ".join(parts.source.split()[:SHORT_NOTE_WORDS])
    number = zlib.crc32(prompt.encode("utf-8", errors="replace"))
    if parts.step == "question":
        return f"What does part {number % 1000} of the summary say?"
    if parts.step == "answer":
        return f"{' '.join(parts.source.split()[:SHORT_ANSWER_WORDS])}, as part {number % 1000} says."
    return reply_to(parts)


def answer_question(note: str, question: str) -> str:
    """The rules' own answer to any question; it never ends with a question mark."""
    answer = _ANSWERS[recognise_task(question)](parse_note(note), question)
    return answer.rstrip("? ") + "." if answer.endswith("?") else answer
