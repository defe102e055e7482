"""The note step: a case report → its own sentences under the headings of a discharge summary.

Sentences are sorted by key words, long reports are condensed, some terms become abbreviations or
everyday words. Nothing is added: each number of the note stands in the report.
"""

import hashlib
import re
from dataclasses import dataclass

from asclepius_ray.chat.offline.entities import find_entities
from asclepius_ray.chat.offline.text import as_sentence, lower, shorten, split_sentences
from asclepius_ray.chat.offline.wording import put_in_house_style

LONGEST_NOTE_WORDS = 400
SHARE_OF_REPORT = 0.65
ALWAYS_KEPT_WORDS = 90

_HISTORY, _PAST, _EXAMINATION, _INVESTIGATIONS, _DIAGNOSIS, _COURSE, _FOLLOW_UP = range(7)
_HEADINGS = (
    (
        "History of Present Illness",
        "Past Medical History",
        "Physical Examination",
        "Investigations",
        "Diagnosis",
        "Hospital Course",
        "Condition and Follow-up",
    ),
    (
        "Present Illness",
        "Medical History",
        "Examination",
        "Diagnostic Studies",
        "Assessment",
        "Treatment",
        "Outcome and Follow-up",
    ),
    (
        "History",
        "Past History",
        "Findings on Examination",
        "Laboratory and Imaging",
        "Diagnosis",
        "Treatment and Course",
        "Follow-up",
    ),
)

_STUDY = (
    r"\bMRI\b|\bCT\b|x-ray|radiograph|ultraso|tomograph|imaging|biops|histolog|patholog|laborator|serum|cultur|"
    r"\bECG\b|electrocardio|echocardio|endoscop|scan"
)
# In this order: the first pattern that a sentence in lower case matches names its section.
_RULES = tuple(
    (section, re.compile(pattern.lower()))
    for section, pattern in (
        (
            _FOLLOW_UP,
            r"follow(?:ed)?[- ]?up|discharged|at discharge|no (?:evidence of )?recurrence|outpatient|died|"
            r"(?:days?|weeks?|months?|years?) (?:later|after (?:the )?(?:surgery|operation|treatment|"
            r"discharge|procedure))|passed away|last visit|recovered|full recovery|symptom-free|disease-free",
        ),
        (
            _PAST,
            r"history of|medical history|past history|family history|allerg|smok|alcohol|comorbid|denied any|"
            r"previously (?:healthy|diagnosed)|no significant (?:past|medical)|had been diagnosed",
        ),
        (_DIAGNOSIS, r"diagnosed (?:with|as)|diagnosis|consistent with|compatible with"),
        (
            _INVESTIGATIONS,
            rf"(?:{_STUDY}|analysis).*(?:showed|revealed|demonstrated|confirmed|indicated|suggested)",
        ),
        (
            _COURSE,
            r"treat(?:ed|ment)|therapy|underwent|surg|operat|administ|received|(?:was|were) given|started on|"
            r"initiated|resect|excis|prescribed|postoperative|transfus|intubat|incision|sutur|anesthe|implant|"
            r"antibiotic|\bmg\b|dose|drain|transferred|extubat|improved|ventilat",
        ),
        (
            _EXAMINATION,
            r"physical exam|(?:on|clinical) examination|examination (?:revealed|showed)|vital signs|pulse|"
            r"blood pressure|heart rate|auscult|palpat|tender|temperature|reflex|inspection|visual acuity|"
            r"intraoral|extraoral|range of motion|alert|body mass",
        ),
        (
            _INVESTIGATIONS,
            rf"{_STUDY}|blood (?:count|test)|mg/d|mmol|elevated|stain|immuno|genetic|sequencing|revealed|"
            r"showed|demonstrated|normal range",
        ),
        (
            _HISTORY,
            r"present(?:ed|ing) (?:to|with)|complain|admitted|referred|symptom|onset|prior to|noticed|"
            r"reported",
        ),
    )
)

_LEFT_HOSPITAL = re.compile(r"discharged|sent home|went home|left the hospital")
_BRACKET = re.compile(r"\s*[(\[]([^()\[\]]{0,60})[)\]]")
_STUB_WORD = re.compile(
    r"(?:fig|figs|figure|figures|table|tables|video|videos|supplementary|additional|file|see|and|"
    r"[A-Za-z]?\d{0,2}[A-Za-z]?)$",
    re.IGNORECASE,
)
_ASIDE = re.compile(r"consent|literature|ethic|to our knowledge|we report|we present|this case|et al|\bfig")
_WHO = re.compile(
    r"\d{1,3}(?:\.\d)?[- ](?:year|month|week|day)s?[- ]old\b[\w\s()/-]{0,40}?\b"
    r"(?:man|woman|male|female|boy|girl|infant|neonate|newborn|child|gentleman|lady|patient)\b",
    re.IGNORECASE,
)
_COMPLAINT = re.compile(
    r"\b(?:present(?:ed|ing)|complain(?:ed|ing|t)|admitted|referred|suffer(?:ed|ing)|consulted|brought|came|"
    r"visited)\b[^.;]{0,90}?\b(?:with|of|for|because of|due to)\s+(?:evaluation of |a history of )?"
    # "for 2 weeks" and "for further evaluation" are no complaints.
    r"(?!\d+ (?:day|week|month|year)|(?:further|treatment|a|the|his|her) (?:evaluation|treatment|hospital))"
    r"(?P<what>(?:[^.;]|\.(?=\d)){4,240})",
    re.IGNORECASE,
)
_VALUED = (
    (re.compile(r"\d"), 1.0),
    (re.compile(r"diagnos|confirmed|consistent with"), 3.0),
    (re.compile(r"treated|underwent|received|started|performed|surgery"), 2.0),
    (re.compile(r"discharged|died|follow-up|recover|improved"), 2.0),
    (re.compile(r"presented|complain|admitted"), 2.0),
    (re.compile(r"revealed|showed|demonstrated|elevated"), 1.0),
    (re.compile(r"normal|negative|unremarkable|denied"), -0.5),
)


@dataclass(frozen=True)
class _Line:
    """One sentence of the report, where it goes, and how much it would be missed."""

    text: str
    section: int
    weight: float


def write_note(report: str) -> str:
    """The note of a report, always the same for the same report."""
    lines = _condense(
        _classify([_clean(sentence) for line in report.splitlines() for sentence in split_sentences(line)])
    )
    style = hashlib.sha256(report.encode()).digest()[0] % len(_HEADINGS)
    kept = "\n".join(line.text for line in lines)
    parts = ["Discharge Summary" if _LEFT_HOSPITAL.search(lower(kept)) else "Hospital Course Summary"]
    parts += [f"{heading}:\n{text}" for heading, text in _opening(report) if text]
    for section, heading in enumerate(_HEADINGS[style]):
        text = " ".join(line.text for line in lines if line.section == section)
        if text:
            parts.append(f"{heading}:\n{text}")
        if section == _COURSE and (medications := find_entities(kept, "medication")):
            parts.append("Medications:\n" + "\n".join(f"- {medication}" for medication in medications[:12]))
    return "\n\n".join(parts)


def _opening(report: str) -> list[tuple[str, str]]:
    start = _drop_figure_links(report[:1500].replace("\n", " "))
    who, complaint = _WHO.search(start), _COMPLAINT.search(start)
    what = shorten(complaint.group("what"), 18).strip(" ,") if complaint else ""
    return [
        ("Patient", who.group(0) if who else ""),
        ("Chief Complaint", as_sentence(put_in_house_style(what)) if what else ""),
    ]


def _clean(sentence: str) -> str:
    """Without the stubs of figure links, in the wording of a ward."""
    sentence = re.sub(r"\s+", " ", _drop_figure_links(sentence)).strip()
    sentence = re.sub(r"\s+([.,;])", r"\1", sentence)
    return put_in_house_style(sentence)


def _drop_figure_links(text: str) -> str:
    """Takes out "()", "(Fig. )", "(Figures , )" and "[3, 4]", of which a reader has nothing."""

    def replace(match: re.Match[str]) -> str:
        words = re.findall(r"\w+", match.group(1))
        return "" if all(_STUB_WORD.match(word) for word in words) else match.group(0)

    return _BRACKET.sub(replace, text)


def _classify(sentences: list[str]) -> list[_Line]:
    lines: list[_Line] = []
    section = _HISTORY
    for index, text in enumerate(sentences):
        lowered = lower(text)
        matched = next((name for name, pattern in _RULES if pattern.search(lowered)), None)
        if index == 0:
            section = _HISTORY
        elif matched is not None:
            # "followed up" in the first third tells of the time before, not of the outcome.
            early = (
                matched == _FOLLOW_UP and index < len(sentences) / 3 and not _LEFT_HOSPITAL.search(lowered)
            )
            section = _HISTORY if early else matched
        lines.append(_Line(text, section, _weigh(lowered, index, len(sentences))))
    return lines


def _weigh(lowered: str, index: int, num_sentences: int) -> float:
    if index == 0:
        return 100.0
    weight = sum(value for pattern, value in _VALUED if pattern.search(lowered))
    weight += 1.0 if index == num_sentences - 1 else 0.0
    if _ASIDE.search(lowered):
        weight -= 6.0
    return weight - 0.02 * len(lowered.split())


def _condense(lines: list[_Line]) -> list[_Line]:
    """The lines that fit, by weight, in the order of the report; short reports stay whole."""
    num_words = sum(len(line.text.split()) for line in lines)
    allowed = min(LONGEST_NOTE_WORDS, max(ALWAYS_KEPT_WORDS, int(SHARE_OF_REPORT * num_words)))
    kept: set[int] = set()
    for index in sorted(range(len(lines)), key=lambda index: (-lines[index].weight, index)):
        length = len(lines[index].text.split())
        if length <= allowed or not kept:
            kept.add(index)
            allowed -= length
    return [line for index, line in enumerate(lines) if index in kept]
