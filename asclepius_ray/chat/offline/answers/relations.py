"""Relation Extraction: (note, question) → pairs of a sentence: test and result, drug and reason."""

import re
from dataclasses import dataclass

from asclepius_ray.chat.offline.entities import drug_name, find_entities
from asclepius_ray.chat.offline.text import ParsedNote, as_sentence, content_words, shorten, without_stop

MOST_PAIRS = 3

_SHOWED = re.compile(
    r"\b(?:showed|revealed|demonstrated|confirmed|suggested|indicated|disclosed|identified|shows|"
    r"was remarkable for)\b(?: that)?\s+(?P<result>.+)"
)
_REASON = re.compile(
    r"\b(?:for (?:the )?(?:treatment|management|prevention|control) of|due to|because of|secondary to|"
    r"to (?:treat|control|prevent|reduce|relieve)|caused by|as a result of|for)\s+(?P<reason>[^,.;]+)",
    re.IGNORECASE,
)
# "for 2 weeks" is a duration and no reason.
_NO_REASON = re.compile(
    r"^(?:the )?(?:\d|one|two|three|four|five|six|seven|eight|nine|ten|several|a few|many|first|next|last|"
    r"past|about|approximately|up to|at least|further|a (?:day|week|month|year|total)|which|each|every|"
    r"evaluation)",
    re.IGNORECASE,
)
_CAUSE = re.compile(
    r"\w[^,.;]*?\s(?:due to|because of|secondary to|caused by|as a result of|led to|resulted in|resulting in|"
    r"leading to)\s+\w",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Pair:
    """Two spans of one sentence. kind: "result", "reason" or "cause"."""

    kind: str
    subject: str
    object: str
    sentence: str

    def told(self) -> str:
        if self.kind == "result":
            return f"{self.subject} is linked to its result: {self.object}."
        if self.kind == "reason":
            return f"{self.subject} was given for this reason: {self.object}."
        return f"The note links two things in one sentence: {self.sentence}."


def find_pairs(note: ParsedNote) -> list[Pair]:
    """All pairs of the note in its order; at most one of each kind in a sentence."""
    pairs: list[Pair] = []
    for sentence in dict.fromkeys(note.sentences):
        pairs += _pairs_of(without_stop(sentence))
    return pairs


def relate(note: ParsedNote, question: str) -> str:
    pairs = find_pairs(note)
    asked = _sort_by_question(pairs, question)
    if asked:
        return "\n".join(pair.told() for pair in asked[:MOST_PAIRS])
    lead = as_sentence(shorten((*note.sentences, "nothing")[0], 30))
    return f"No sentence of the note links a drug to its reason or a test to its result. It begins: {lead}"


def _pairs_of(sentence: str) -> list[Pair]:
    pairs: list[Pair] = []
    tests = find_entities(sentence, "test")
    if tests and (shown := _SHOWED.search(sentence)) and sentence.find(tests[0]) < shown.start():
        pairs.append(Pair("result", tests[0], shorten(shown.group("result"), 30), sentence))
    for drug in find_entities(sentence, "medication")[:1]:
        reason = _REASON.search(sentence)
        told = reason.group("reason") if reason else ""
        if told and not _NO_REASON.match(told) and drug_name(drug) not in told:
            pairs.append(Pair("reason", drug_name(drug), shorten(told, 15), sentence))
    if not pairs and _CAUSE.search(sentence):
        pairs.append(Pair("cause", "", "", shorten(sentence, 45)))
    return pairs


def _sort_by_question(pairs: list[Pair], question: str) -> list[Pair]:
    """The pairs whose subject the question names; else those of the kind it asks for; else all."""
    asked = content_words(question)
    named = [pair for pair in pairs if pair.subject and pair.subject.lower() in question.lower()]
    if named:
        return named
    wanted = []
    if asked & {"drug", "medication", "medicine", "treatment"}:
        wanted.append("reason")
    if asked & {"test", "imaging", "study", "studie", "result", "finding", "investigation"}:
        wanted.append("result")
    if asked & {"cause", "led", "why"}:
        wanted.append("cause")
    return [pair for pair in pairs if pair.kind in wanted] or pairs
