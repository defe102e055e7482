"""Question Answering, and free questions: (note, question) → the sentence of the note that answers it."""

import re

from asclepius_ray.chat.offline.text import ParsedNote, as_sentence, content_words, shorten
from asclepius_ray.chat.offline.wording import put_in_house_style

MOST_WORDS = 45

# What a question is about, and how a sentence that answers it looks, the surest sign first.
_TOPICS = (
    (r"complication|adverse|side effect", (r"complication|adverse|side effect",)),
    (
        r"diagnos|what (?:disease|illness)|condition was (?:found|named)",
        (
            r"diagnosed (?:with|as)|final diagnosis|diagnosis of",
            r"confirmed|consistent with|compatible",
            r"diagnos",
        ),
    ),
    (
        r"why .*(?:hospital|come|came|brought|admitted|care)|present|complain|led the patient|reason for",
        (r"present(?:ed|ing)|complain|admitted|referred|visited", r"symptom|onset"),
    ),
    (
        r"how did .* (?:fare|end)|outcome|last visit|discharge|follow-up|follow up|recover|(?:at|in) the end|"
        r"what condition",
        (
            r"discharged|died|passed away|recover|last visit",
            r"follow-up|follow up|\blater\b|asymptomatic|improved|resolved|remission|regularly",
        ),
    ),
    (
        r"treat|therap|medic|drug|surger|operat|procedure|managed|given",
        (
            r"treated with|underwent|received|was started|was given|administered",
            r"treat|therapy|surgery|resect",
        ),
    ),
    (
        r"test|imaging|scan|examination|investigation|finding|x-ray|biopsy",
        (r"showed|revealed|demonstrated", r"normal|elevated|examination"),
    ),
    (r"history|past|before|previous", (r"history|previous|past",)),
    (r"how old|\bage\b|sex|gender|man or|woman", (r"year-old|y/o|month-old|\bmale\b|female",)),
)
_COMPILED = tuple(
    (re.compile(asked, re.IGNORECASE), tuple(re.compile(sign, re.IGNORECASE) for sign in signs))
    for asked, signs in _TOPICS
)


def answer_fact(note: ParsedNote, question: str) -> str:
    """The sentence that shares two words with the question, else one with the signs of its topic."""
    asked = content_words(question) | content_words(put_in_house_style(question))
    best = max(note.sentences, key=lambda sentence: len(asked & content_words(sentence)), default="")
    shared = len(asked & content_words(best))
    told = find_topic_sentence(note, question) if shared < 2 else None
    if told is not None:
        return as_sentence(shorten(told, MOST_WORDS))
    if shared >= 2 or (shared == 1 and len(asked) <= 2):
        return as_sentence(shorten(best, MOST_WORDS))
    what = "that" if not asked else "what the question asks about"
    lead = as_sentence(shorten((*note.sentences, "nothing")[0], 30))
    return f"The note does not say {what}, so there is no answer in it. What it does say is this: {lead}"


def find_topic_sentence(note: ParsedNote, question: str) -> str | None:
    """The first sentence with the surest sign there is; the last one where the outcome is asked for."""
    for asked, signs in _COMPILED:
        if asked.search(question):
            for sign in signs:
                matching = [sentence for sentence in note.sentences if sign.search(sentence)]
                if matching:
                    ends = "discharged" in sign.pattern or "follow-up" in sign.pattern
                    return matching[-1] if ends else matching[0]
            return None
    return None
