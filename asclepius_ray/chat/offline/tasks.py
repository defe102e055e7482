"""Which of the eight tasks a question belongs to, by its words; a free question is Question Answering."""

import re

from asclepius_ray.records import Task

_QUOTED = r"[\"'][^\"']+[\"']"

# In this order: the first task with a pattern that the question matches is the question's.
_SIGNS: tuple[tuple[Task, tuple[str, ...]], ...] = (
    (
        Task.COREFERENCE_RESOLUTION,
        (
            r"pronoun|antecedent|coreferen|is meant by|earlier mention|to what does [\"']the",
            rf"\b(?:refers?|points? (?:back )?to)\b[^.?]*{_QUOTED}",
            rf"{_QUOTED} (?:refers?|points?|takes? up)|whom? does {_QUOTED}",
        ),
    ),
    (
        Task.ABBREVIATION_EXPANSION,
        (
            r"abbreviat|acronym|short forms?|spell out|full forms?|long forms?|expand|stands? for",
            r"write out|written out",
        ),
    ),
    (
        Task.PARAPHRASING,
        (
            r"re-?phrase|re-?write|re-?word|paraphras|other words|jargon|differently",
            r"lay ?(?:man|person|people)|(?:plain|everyday|simpler?) (?:words|terms|language|english)",
        ),
    ),
    (
        Task.SUMMARIZATION,
        (
            r"\bsum up\b|summari[sz]|overview|key points|main points|condense|shorten|\bbrief",
            r"in short\b|\bgist\b|digest|handover|essence",
        ),
    ),
    (
        Task.TEMPORAL_INFORMATION_EXTRACTION,
        (
            r"\bwhen\b|how long|duration|timeline|chronolog|order in which|in the order|\bdates?\b",
            r"at what point|time expression|how much time|points? in time|sequence of events|time span",
        ),
    ),
    (
        Task.RELATION_EXTRACTION,
        (
            r"for (?:which|what) (?:problem|reason|purpose)|cause|\blinks?\b|relat(?:e|ion)|connect",
            r"led the team|which finding led|indication|associat|what did .* (?:show|reveal)",
        ),
    ),
    (
        Task.NAMED_ENTITY_RECOGNITION,
        (
            r"\blist\b|\bname (?:all|every|each|the|them)|pick out|extract|collect|enumerate|identify",
            r"entit|mark (?:all|each)",
            r"which (?:medications|drugs|tests|procedures|diagnoses|symptoms|problems|parts|organs|values)",
            r"named in|mentioned",
        ),
    ),
)
_COMPILED = tuple((task, re.compile("|".join(signs), re.IGNORECASE)) for task, signs in _SIGNS)


def recognise_task(question: str) -> Task:
    return next((task for task, sign in _COMPILED if sign.search(question)), Task.QUESTION_ANSWERING)
