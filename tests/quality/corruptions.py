"""Seeded corruptions of case reports, each of one kind, and rewritings that change nothing of what is said.

The word lists here are the test's own, and no name of them stands in the checks' own lists of findings;
`findings_of_other_patients` takes its names out of real reports.
"""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

DRUGS = """
prednisone methylprednisolone prednisolone dexamethasone aspirin rituximab ceftriaxone fluconazole
vancomycin heparin
furosemide tacrolimus norepinephrine azithromycin propofol amoxicillin clopidogrel cyclophosphamide
methotrexate
metronidazole cisplatin levofloxacin fentanyl gabapentin paracetamol atorvastatin olanzapine
metoprolol tramadol
diazepam infliximab thalidomide warfarin meropenem ampicillin amikacin azathioprine clindamycin carboplatin
midazolam levothyroxine amlodipine haloperidol doxorubicin ibuprofen morphine metformin
acetaminophen doxycycline
levetiracetam spironolactone omeprazole fluoxetine quetiapine itraconazole lorazepam enoxaparin
apixaban bisoprolol
colchicine hydroxychloroquine lisinopril pantoprazole sertraline ciprofloxacin valproate insulin
digoxin imatinib
nivolumab pembrolizumab bevacizumab tocilizumab mycophenolate voriconazole acyclovir ondansetron
ketamine rivaroxaban
""".split()
FINDINGS = [
    one.strip()
    for one in """
fever|cough|nausea|vomiting|headache|diarrhea|constipation|hemoptysis|hematuria|dysuria|jaundice
chest pain|abdominal pain|back pain|dizziness|syncope|fatigue|weight loss|pruritus|photophobia
diplopia|tinnitus|hearing loss|hoarseness|dysphagia|hematemesis|ascites|splenomegaly|hepatomegaly
lymphadenopathy|cyanosis|ankle edema|wheezing|stridor|seizures|tremor|ataxia|aphasia|paresthesia
myalgia|arthralgia|hallucinations|polyuria|polydipsia|anorexia|hypertension|diabetes mellitus|asthma
pneumonia|deep vein thrombosis|pulmonary embolism|atrial fibrillation|anemia|leukopenia
thrombocytopenia|sepsis|pericardial effusion|pleural effusion|pneumothorax|hydronephrosis
cholecystitis|pancreatitis|gastric ulcer|hypothyroidism|epistaxis|gum bleeding|urinary incontinence
hypotension|tachycardia|bradycardia|hiccups|alopecia|conjunctivitis|papilledema|osteomyelitis
calf tenderness|flank pain|meningitis|cellulitis|urinary retention|muscle cramps|migraine
""".replace("\n", "|").split("|")
    if one.strip()
]
MONTHS = "January February March April May June July August September October November December".split()
_SIDED = (
    r"(?:eye|ear|lung|kidney|arm|leg|hand|foot|knee|hip|shoulder|breast|ovary|sided|side|wrist|ankle|elbow"
    r"|thigh"
    r"|cheek|forearm|testis|ventricle|ventricular|atrium|atrial|hemithorax|hemisphere|flank|femur|tibia|lobe"
    r"|upper|lower|pleural|renal|adrenal|maxillary|parotid|frontal|temporal|parietal|orbit|axilla|groin|calf)"
)
_NEGATED_BEFORE = re.compile(
    r"\b(?:no|not|nor|without|den\w+|absen\w+|negative|free|never|neither|or|and)\b[^.]*$"
)

Corrupt = Callable[[str, random.Random], "str | None"]


def change_dose(report: str, draw: random.Random) -> str | None:
    """Another number before the unit of a drug's dose, one that the report does not hold."""
    pattern = re.compile(
        rf"(?:{'|'.join(DRUGS)})\b[^.\n\d]{{0,25}}?(\d+(?:\.\d+)?)(?=\s?(?:mg|g|mcg|µg|IU|units)\b)"
        rf"|(?<![\d.])(\d+(?:\.\d+)?)(?=\s?(?:mg|g|mcg|µg|IU|units)(?:/\w+)?\s+(?:of\s+)?(?:\w+\s)?(?:{'|'.join(DRUGS)}))",
        re.IGNORECASE,
    )
    found = list(pattern.finditer(report))
    if not found:
        return None
    match = draw.choice(found)
    group = 1 if match[1] else 2
    old = float(match[group])
    factors = [2, 3, 5, 10, 0.5, 0.1, 1.5]
    draw.shuffle(factors)
    for factor in factors:
        new = f"{old * factor:g}"
        if "e" not in new and not re.search(rf"(?<![\d.]){re.escape(new)}(?![\d.]*\d)", report):
            return report[: match.start(group)] + new + report[match.end(group) :]
    return None


def swap_drug(report: str, draw: random.Random) -> str | None:
    """One mention of a drug becomes another drug, one that the report does not name."""
    found = list(re.finditer(rf"\b(?:{'|'.join(DRUGS)})\b", report, re.IGNORECASE))
    others = [drug for drug in DRUGS if drug not in report.lower()]
    if not found or not others:
        return None
    match = draw.choice(found)
    return report[: match.start()] + draw.choice(others) + report[match.end() :]


def add_finding(report: str, draw: random.Random, findings: Sequence[str] = FINDINGS) -> str | None:
    """A sentence with a finding that the report does not name."""
    lower = report.lower()
    others = [finding for finding in findings if not _names(lower, finding)]
    finding = draw.choice(others)
    sentence = draw.choice(
        [
            f"The patient also had {finding}.",
            f"On examination, {finding} was noted.",
            f"The patient developed {finding} during the stay.",
            f"There was a history of {finding}.",
        ]
    )
    sentences = _sentences(report)
    sentences.insert(draw.randrange(1, len(sentences) + 1), sentence)
    return " ".join(sentences)


def flip_negation(report: str, draw: random.Random) -> str | None:
    """What is denied once is affirmed, or what is affirmed once is denied."""
    flips: list[Corrupt] = [_affirm, _deny]
    draw.shuffle(flips)
    return flips[0](report, draw) or flips[1](report, draw)


def change_side(report: str, draw: random.Random) -> str | None:
    """Left for right, or right for left, where the report never speaks of the other one."""
    found = [
        match
        for match in re.finditer(rf"\b(left|right)(?=([ -]{_SIDED}\b(?:[ -]\w+)?))", report, re.IGNORECASE)
        if not re.search(
            rf"{_other(match[1])}.{{0,15}}{match[2].strip(' -')[:5]}|bilateral|both", report, re.I
        )
    ]
    if not found:
        return None
    match = draw.choice(found)
    return report[: match.start()] + _other(match[1]) + report[match.end() :]


def change_date(report: str, draw: random.Random) -> str | None:
    """Another year, another month before a year, or another number after "day"."""
    found = list(
        re.finditer(
            rf"(?<=\b[Ii]n )(?:19|20)\d\d\b|\b(?:{'|'.join(MONTHS)})(?=,? (?:\d+,? )?(?:19|20)\d\d)"
            r"|(?<=\b[Dd]ay )\d{1,2}\b|(?<=\bPOD )\d{1,2}\b",
            report,
        )
    )
    if not found:
        return None
    match = draw.choice(found)
    if match.group() in MONTHS:
        choices = [month for month in MONTHS if month.lower() not in report.lower()]
    else:
        step = 30 if len(match.group()) < 3 else 12
        low = max(1, int(match.group()) - step)
        choices = [str(n) for n in range(low, int(match.group()) + step) if str(n) not in report]
    if not choices:
        return None
    return report[: match.start()] + draw.choice(choices) + report[match.end() :]


_LISTED = re.compile(
    r"\b(?:den(?:ies|ied|ying)|complain(?:s|ed|ing) of|complaints? of|symptoms? of|presented with"
    r"|presenting with|developed|experienced|experiencing|reported|suffering from|history of|without) "
    r"([a-zA-Z ,/-]{4,120})"
)
_ENDS_OF_NAMES = re.compile(
    r",|/|\b(?:and|or|for|over|since|in|at|on|to|with|after|during|that|which|from|by|who|lasting|without|but"
    r"|was|were|is|due|before|while|as)\b"
)
_BEFORE_NAMES = frozenset(
    """
    a an the any no some new recent prior previous current significant severe mild moderate chronic acute
    progressive persistent intermittent worsening sudden occasional generalized generalised history complaints
    complaint of his her associated including such as further other active left right bilateral diffuse
    """.split()
)
_NO_FINDINGS = frozenset(
    """
    abnormalities admitted alcohol along antibiotics bacteria benefit change complications consistent contrast
    deterioration difficulty disease exertion exposure february found hand home intervention intubation last
    medication mother normal noted past patient performed positive postoperatively presented recurrence
    referred reported side smoking surgery symptoms thought transferred trauma travel trunk type well
    """.split()
) | {"emergency department", "four days", "our hospital", "three weeks"}


def findings_of_other_patients(reports: Iterable[str]) -> list[str]:
    """What at least two of the reports list as complaints, by name."""
    counted: Counter[str] = Counter()
    for report in reports:
        parts = [part for match in _LISTED.finditer(report) for part in _ENDS_OF_NAMES.split(match[1])]
        counted.update({name for part in parts if (name := _name_in(part)) and name not in _NO_FINDINGS})
    return sorted(name for name, number in counted.items() if number >= 2)


def _name_in(part: str) -> str:
    words = part.lower().split()
    while words and words[0] in _BEFORE_NAMES:
        del words[0]
    name = " ".join(words)
    return name if 4 <= len(name) <= 30 and len(words) <= 3 else ""


CORRUPTIONS: dict[str, Corrupt] = {
    "dose": change_dose,
    "drug": swap_drug,
    "finding": add_finding,
    "negation": flip_negation,
    "side": change_side,
    "date": change_date,
}


def rewrite(report: str, draw: random.Random, keep: str = "") -> str:
    """The same in other words: other spellings, another order, some sentences left out.

    Sentences that are not in `keep` are never left out, so that a corruption stays.
    """
    kept = [sentence for sentence in _sentences(report) if sentence not in keep or draw.random() > 0.3]
    draw.shuffle(kept)
    text = "\n".join(f"- {sentence}" for sentence in kept)
    for old, new in _RESPELLINGS:
        if draw.random() < 0.5:
            text = re.sub(old, new, text)
    return text


_RESPELLINGS = [
    (r"(\d) ?mg\b(?!/)", r"\1 milligrams"),
    (r"(\d) ?cm\b", r"\1-cm"),
    (r"(\d) ?mg/d[lL]", r"\1 mg per dL"),
    (r"\btwo (weeks|days|months)", r"2 \1"),
    (r"\b3 (weeks|days|months)", r"three \1"),
    (r"(\d)-year-old", r"\1 years old"),
    (r"\bedema", "oedema"),
    (r"\banemia", "anaemia"),
    (r"\bhem(orrhage|aturia|atoma)", r"haem\1"),
    (r"\btumor", "tumour"),
    (r"\bdiarrhea", "diarrhoea"),
    (r"\bshortness of breath\b", "dyspnea"),
    (r"\bhigh blood pressure\b", "hypertension"),
    (r"\bvomiting\b", "emesis"),
    (r"\bfever\b", "pyrexia"),
    (r"\bleft-sided\b", "left sided"),
    (r"\bparacetamol\b", "acetaminophen"),
    (r"\b[Dd]ay (\d)\b", r"day #\1"),
    (r"\b[Pp]ostoperative day (\d)", r"POD \1"),
]


def _affirm(report: str, draw: random.Random) -> str | None:
    looked_for = r"(?:any |new |fresh |signs of |symptoms of |evidence of )?"
    pattern = rf"\b(no|without|denied|denies) (?={looked_for}({'|'.join(FINDINGS)})\b)"
    found = [match for match in re.finditer(pattern, report, re.IGNORECASE) if _is_once(report, match[2])]
    if not found:
        return None
    match = draw.choice(found)
    instead = {"no": "", "without": "with ", "denied": "reported ", "denies": "reports "}[match[1].lower()]
    return report[: match.start()] + instead + report[match.end() :]


def _deny(report: str, draw: random.Random) -> str | None:
    pattern = (
        rf"\b(with|had|developed|reported|of|and|by|experienced|showed|revealed) ({'|'.join(FINDINGS)})\b"
    )
    found = [
        match
        for match in re.finditer(pattern, report, re.IGNORECASE)
        if _is_once(report, match[2]) and not _NEGATED_BEFORE.search(report[: match.start()][-80:])
    ]
    if not found:
        return None
    match = draw.choice(found)
    return report[: match.start(2)] + "no " + report[match.start(2) :]


def _is_once(report: str, finding: str) -> bool:
    return report.lower().count(finding.lower()) == 1


def _names(lower: str, finding: str) -> bool:
    """Whether the report names the finding or something with one of its longer words."""
    return any(word.rstrip("s")[:6] in lower for word in finding.split() if len(word) > 3)


def _other(side: str) -> str:
    other = {"left": "right", "right": "left"}[side.lower()]
    return other.capitalize() if side[0].isupper() else other


def _sentences(report: str) -> list[str]:
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", report.replace("\n", " "))
