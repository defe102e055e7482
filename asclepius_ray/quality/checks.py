"""Reply of a teacher → None, or the reason why it does not belong in a dataset.

Each check looks for one fault that a language model has and a clinical text has not; none of them judges
medicine. The patterns are narrow on purpose: on published case reports and transcribed notes none fires.
"""

import re
from enum import StrEnum

from asclepius_ray.quality.identifiers import has_new_identifier


class Reason(StrEnum):
    """The codes under which rejected rows are counted."""

    EMPTY = "empty"
    REFUSAL = "refusal"
    PROMPT_ECHO = "prompt_echo"
    PLACEHOLDER = "placeholder"
    SHORT_NOTE = "short_note"
    SHORT_ANSWER = "short_answer"
    IDENTIFIER = "identifier"
    NEAR_DUPLICATE = "near_duplicate"
    ANSWER_IS_QUESTION = "answer_is_question"


# "the model", "AI" (aortic insufficiency) and "unable to" are everyday clinical text: none of them is here.
_REFUSAL = re.compile(
    r"""
    \bas\ an?\ (?:\w+\ )?(?:AI|artificial\ intelligence)\b
    | \blanguage\ models?\b
    | \bAI\ (?:model|assistant)\b
    | \b(?:openai|chatgpt)\b
    | \bmy\ (?:training\ data|knowledge\ cut-?off)\b
    | \b(?:sorry|apologi[sz]e)\b[^.!?\n]{0,40}\bI\ ?(?:'m|am|can|could|do|don't|was|have|will|must)
    | \bI\ (?:cannot|can't|can\ not|am\ unable\ to|am\ not\ able\ to|won't)[ ]
      (?:assist|help|comply|fulfil{1,2}|(?:provide|give|offer)\ (?:any\ )?medical\ (?:advice|information))
    """,
    re.IGNORECASE | re.VERBOSE,
)
_PROMPT_TAG = re.compile(r"</?(?:case_report|note|question|task|examples|answer)(?:\s[^<>]*)?>")
_PLACEHOLDER = re.compile(
    r"""
    \[ (?:[\w'/.-]+\ ){0,4}
    (?:name|names|date|dates|redacted|insert|your|number|hospital|physician|doctor|provider|signature
      |address|phone|mrn|dob|id|age|gender|sex|time|duration|location|facility|title|specialty|x{2,})
    (?:\ [\w'/.-]+){0,4} \]
    """,
    re.IGNORECASE | re.VERBOSE,
)


def find_note_fault(
    note: str, min_words: int, report: str = "", rejects_placeholders: bool = False
) -> Reason | None:
    """What is wrong with a synthetic note; the paper dropped refusals and extremely short notes.

    A placeholder such as [Name] is a fault only where the caller says so: 13 of 40 published notes hold one,
    as real notes do that were de-identified, and to drop them throws away a third of what was paid for.
    """
    fault = _find_fault(note)
    if fault is None and rejects_placeholders and _has_new_placeholder(note, report):
        return Reason.PLACEHOLDER
    if fault is None and len(note.split()) < min_words:
        return Reason.SHORT_NOTE
    if fault is None and has_new_identifier(note, report):
        return Reason.IDENTIFIER
    return fault


def find_question_fault(question: str, note: str) -> Reason | None:
    """What is wrong with an instruction about `note`."""
    return _find_fault(question) or _find_new(question, note)


def find_answer_fault(answer: str, note: str) -> Reason | None:
    """What is wrong with an answer about `note`; one that asks back does not answer."""
    fault = _find_fault(answer) or _find_new(answer, note)
    if fault is None and answer.rstrip().endswith("?"):
        return Reason.ANSWER_IS_QUESTION
    if fault is None and not re.search(r"\w", answer):
        return Reason.SHORT_ANSWER
    return fault


def is_refusal(text: str) -> bool:
    """Whether a language model speaks of itself, or declines to help, in the place of an answer."""
    # Models write curly apostrophes as often as straight ones.
    return _REFUSAL.search(text.replace("\u2019", "'")) is not None


def _find_fault(text: str) -> Reason | None:
    if not text.strip():
        return Reason.EMPTY
    if is_refusal(text):
        return Reason.REFUSAL
    if _PROMPT_TAG.search(text):
        return Reason.PROMPT_ECHO
    return None


def _find_new(text: str, note: str) -> Reason | None:
    """A placeholder or identifier that the note holds as well is a quotation, not a fault."""
    if _has_new_placeholder(text, note):
        return Reason.PLACEHOLDER
    return Reason.IDENTIFIER if has_new_identifier(text, note) else None


def _has_new_placeholder(text: str, source: str) -> bool:
    return any(match.group() not in source for match in _PLACEHOLDER.finditer(text))
