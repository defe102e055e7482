"""The text of a prompt of asclepius_ray/prompts → the step that it asks for and the parts in its tags."""

import re
from dataclasses import dataclass

_ANSWER = re.compile(r'<answer label="([^"]*)">\n?(.*?)\n?</answer>', re.DOTALL)


@dataclass(frozen=True)
class PromptParts:
    """step: "note", "question", "answer" or "judge". source: the case report or the note."""

    step: str
    source: str
    task: str = ""
    question: str = ""
    examples: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()


def read_prompt(text: str) -> PromptParts | None:
    """The parts of a prompt; None where it has none of the tags that tell a step.

    The case report or note is taken out first, so that tags inside of it mean nothing.
    """
    report = _between(text, "case_report")
    if report is not None:
        return PromptParts("note", report)
    note = _between(text, "note") or ""
    rest = text.replace(note, "", 1) if note else text
    answers = tuple(match.group(2).strip() for match in _ANSWER.finditer(rest))
    question = _between(rest, "question") or ""
    if answers:
        return PromptParts("judge", note, question=question, answers=answers)
    examples = _between(rest, "examples")
    if examples is not None:
        shown = tuple(line.removeprefix("- ").strip() for line in examples.splitlines() if line.strip())
        return PromptParts("question", note, task=_between(rest, "task") or "", examples=shown)
    if question:
        return PromptParts("answer", note, question=question)
    return None


def _between(text: str, tag: str) -> str | None:
    opening, closing = f"<{tag}>", f"</{tag}>"
    start = text.find(opening)
    end = text.find(closing, start)
    return text[start + len(opening) : end].strip() if start >= 0 and end >= 0 else None
