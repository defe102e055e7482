"""The question step: (note, task, examples) → an instruction the note can answer, unlike the examples."""

import hashlib
from itertools import pairwise

from asclepius_ray.chat.offline.answers.abbreviations import find_abbreviations
from asclepius_ray.chat.offline.answers.facts import find_topic_sentence
from asclepius_ray.chat.offline.answers.references import find_references
from asclepius_ray.chat.offline.answers.relations import find_pairs
from asclepius_ray.chat.offline.answers.times import find_times
from asclepius_ray.chat.offline.entities import find_entities
from asclepius_ray.chat.offline.text import ParsedNote, content_words, parse_note, shorten, without_stop
from asclepius_ray.records import Task

_ENTITY_PHRASES = {
    "medication": (
        "Name all medications that this patient was given.",
        "Extract the drugs in this note, with their doses.",
        "Enumerate the medications of this stay.",
    ),
    "test": (
        "Name all diagnostic tests in this note.",
        "Enumerate the investigations that were carried out.",
        "Extract each test that the team ordered.",
    ),
    "result": (
        "Extract the measured values from this note.",
        "Enumerate the laboratory values and vital signs given here.",
    ),
    "procedure": (
        "Extract all procedures that were carried out.",
        "Enumerate the interventions of this stay.",
    ),
    "problem": (
        "Enumerate the symptoms and diagnoses of this patient.",
        "Extract the clinical problems from this note.",
        "Name all problems that the team documented.",
    ),
    "anatomy": (
        "Extract the body parts that occur in this note.",
        "Enumerate the organs and parts of the body in the text.",
    ),
}
_FACT_PHRASES = (
    "Which diagnosis did the team make?",
    "What led the patient to seek care at the hospital?",
    "How did the patient fare in the end?",
    "How was the patient treated?",
    "What did the doctors find on investigation?",
    "For what complaint did the patient present?",
    "With what therapy was the illness managed?",
    "What outcome does the note document?",
    "What is known of the patient's history?",
)


def ask_question(note_text: str, task_name: str, examples: tuple[str, ...]) -> str:
    """One of the task's phrases that fit the note, drawn by the note's hash; never one of the examples."""
    note = parse_note(note_text)
    candidates = _CANDIDATES.get(task_name, _fact_questions)(note)
    taken = [content_words(example) for example in examples]
    fresh = [phrase for phrase in candidates if all(not _says_the_same(phrase, words) for words in taken)]
    ordered = fresh or candidates
    digest = hashlib.sha256(f"{task_name}\n{note_text}".encode()).digest()
    return ordered[int.from_bytes(digest[:4], "big") % len(ordered)]


def _says_the_same(phrase: str, words: set[str]) -> bool:
    own = content_words(phrase)
    return bool(own) and len(own & words) / len(own | words) > 0.7


def _entity_questions(note: ParsedNote) -> list[str]:
    text = "\n".join(note.sentences)
    present = [kind for kind in _ENTITY_PHRASES if find_entities(text, kind)]
    return [phrase for kind in present or ["medication"] for phrase in _ENTITY_PHRASES[kind]]


def _abbreviation_questions(note: ParsedNote) -> list[str]:
    present = find_abbreviations("\n".join(note.sentences))
    if not present:
        return [
            "Are there abbreviations in this note, and what is their full form?",
            "Write out any acronym that the note holds.",
        ]
    questions = [
        "Write out every abbreviation of this note.",
        "Provide the full form of each acronym used here.",
    ]
    for short in present[:4]:
        questions += [
            f"What is the full form of {short} in this note?",
            f"Write out {short} as it is meant here.",
        ]
    for first, second in pairwise(present[:4]):
        questions.append(f"Tell me what the abbreviations {first} and {second} stand for.")
    return questions


def _relation_questions(note: ParsedNote) -> list[str]:
    pairs = find_pairs(note)
    questions = list[str]()
    if not pairs:
        questions += [
            "Connect the treatments with the problems that they were meant for.",
            "State how the findings relate to the illness.",
        ]
    for pair in pairs[:6]:
        if pair.kind == "result":
            questions += [
                f"Connect the {pair.subject} with its result.",
                f"How is the {pair.subject} related to a finding?",
                f"What did the {pair.subject} reveal?",
            ]
        elif pair.kind == "reason":
            questions += [
                f"For what reason did the patient get {pair.subject}?",
                f"State the indication for {pair.subject}.",
            ]
        else:
            questions += [
                "Which two things does the note relate as cause and consequence?",
                "State a cause and what it led to in this case.",
            ]
    return questions


def _temporal_questions(note: ParsedNote) -> list[str]:
    questions = [
        "Draw up a timeline from the time expressions of this note.",
        "Give the durations that occur in this case.",
        "How much time do the events of this note take?",
    ]
    for mention in find_times(note)[:4]:
        questions += [
            f'To which event does the time expression "{mention.expression}" belong?',
            f'What happened at the point in time "{mention.expression}"?',
        ]
    return questions


def _reference_questions(note: ParsedNote) -> list[str]:
    questions = ["Resolve the pronouns of this note.", "For each pronoun, name its antecedent."]
    for reference in find_references(note)[:4]:
        start = shorten(without_stop(reference.sentence), 6)
        questions += [
            f'What does "{reference.expression}" refer to in the sentence that begins "{start}"?',
            f'Name the antecedent of "{reference.expression}".',
        ]
    return questions


def _paraphrase_questions(note: ParsedNote) -> list[str]:
    questions = [
        "Say what this note tells in everyday words.",
        "Put the main point of this note differently.",
    ]
    for heading in _headings(note):
        questions += [
            f"Reword the section {heading} for a layperson.",
            f"State the part {heading} in simpler language.",
            f"Paraphrase what stands under {heading}.",
        ]
    return questions


def _summary_questions(note: ParsedNote) -> list[str]:
    questions = [
        "Summarize this case in three sentences.",
        "Boil this note down to its essence.",
        "Provide a two-sentence overview of this stay.",
    ]
    for heading in _headings(note):
        questions += [
            f"Summarize what stands under {heading}.",
            f"Shorten the section {heading} to its main points.",
        ]
    return questions


def _fact_questions(note: ParsedNote) -> list[str]:
    answerable = [phrase for phrase in _FACT_PHRASES if find_topic_sentence(note, phrase) is not None]
    return answerable or ["What does the note say about the patient?"]


def _headings(note: ParsedNote) -> list[str]:
    """The headings of the sections that are long enough to reword or shorten."""
    return [
        s.heading for s in note.sections if s.heading and sum(len(text.split()) for text in s.sentences) >= 12
    ]


_CANDIDATES = {
    Task.NAMED_ENTITY_RECOGNITION.value: _entity_questions,
    Task.ABBREVIATION_EXPANSION.value: _abbreviation_questions,
    Task.RELATION_EXTRACTION.value: _relation_questions,
    Task.TEMPORAL_INFORMATION_EXTRACTION.value: _temporal_questions,
    Task.COREFERENCE_RESOLUTION.value: _reference_questions,
    Task.PARAPHRASING.value: _paraphrase_questions,
    Task.SUMMARIZATION.value: _summary_questions,
    Task.QUESTION_ANSWERING.value: _fact_questions,
}
