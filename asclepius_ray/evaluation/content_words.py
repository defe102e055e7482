"""Text → the words by which a question tells what it is about.

Left out are the words of grammar, of asking, and those that fit any patient ("diagnosis", "medication",
"hospital course"): a question made of them alone can be asked of any note.
"""

import re
from functools import lru_cache

_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")

_GRAMMAR = """
    a about above after again against all along already also although always am among an and another any
    are around as at away back be because been before behind being below between both but by can cannot
    could did do does doing done down during each either else enough ever every few for from further had
    has have having he her here hers him his how however i if in inside into is it its itself just later
    least less like made make many may me might more most much must my neither never next no none nor not
    now of off often on once one only onto or other our out outside over own per quite rather same several
    shall she should since so some soon still such than that the their them themselves then there these
    they this those though three through throughout thus to together too toward two under until up upon us
    use used using very was way we well were what when where whether which while who whom whose why will
    with within without would yet yes you your first second third last
"""
_ASKING = """
    answer ask bring brief briefly bullet categorize category cite clarify clear clearly class classify
    code compare concise contain define definition derive describe description detail determine different
    difference discuss distinguish draft elaborate entity enumerate evidence exact exactly example explain
    explanation expand explicit express extract find following form full general generate give given help
    highlight identify identified important include included including indicate infer information
    instruction instead key keyword kind know known language layman likely list long main major mean
    meaning mention mentioned minor name named normalize note noun number opinion order outline outlined
    paragraph paraphrase part particular passage person phrase please point possible possibly potential
    pronoun provide provided question reader reason record refer reference referred regard regarding
    relate related relation relationship relevant rephrase replace report resolve restate reword rewrite
    say section sentence short show significant simple simpler simplify specific specify specified
    standard standardize state stated statement suggest summarize summary summarise summarizing support
    tell term terminology text thing type understand understandable understanding word write yourself
    abbreviation acronym context correct appropriate accurate based basis according link connection cause
    caused causal effect affect lead led result resulted impact influence role contribute purpose
"""
_ANY_PATIENT = """
    abnormal abnormality acute admission admit admitted adult age aged ago appointment areas assessment
    baby boy birth body care case change child chronic clinic clinical clinician complaint complication
    concern condition consult consultation course current currently daily data date day diagnose diagnosed
    diagnosis diagnostic diagnoses discharge discharged disease disorder doctor dosage dose drug duration
    ethnicity evaluate evaluation event exam examination experience experienced female family finding follow
    follow-up followup frequency friendly future gender girl goal he health healthcare history home
    hospital hospitalization hospitalized hour ill illness improve improved improvement individual infant
    initial initially instructed issue lab laboratory length level life male man management medical
    medicine medication minute month mother name newborn normal nurse occur occurred outcome outpatient
    overall past patient perform performed period physical physician plan prescribe prescribed prescription
    present presentation presented presenting previous primary prior problem procedure professional prognosis
    progress provider race reaction receive received recommend recommended recommendation recovery resident
    risk schedule scheduled secondary service severe severity sex sign specialist specialty stable stage
    start started status stay stop study suffer surgeon surgery surgical symptom take taken taking test
    therapist therapy time timeline timing treat treated treatment total undergo undergone underwent value
    visit vital week woman work year young old older positive negative successful success response
    upcoming additional previously postoperative preoperative operation operative need needed require
    required requirement dr mr mrs ms md icd snomed ability able accomplish achieve achieving activity
    adjust adjusted adjustment admitting adverse assign assigned associate associated attend attended belong
    center comorbidity co-morbidity complete completed consider considered consistent consistently consult
    consulted continue continued deal decide decided decision decrease decreased decreasing department
    develop developed diet difficulty discontinue discontinued dismiss dismissed elevated emergency evaluated
    explaining exist existing expected focus friend highest increase increased increasing involve involved
    left listed lowest maintain maintaining manage managed member monitor monitored morbidity notice noticed
    noted office operating ordered oversaw own patient-friendly perform performing post post-discharge
    postoperatively presence primarily range reading recent reported request requested resolve
    resolved resolving resume return returned right role room section seen sentence-long session site
    something suspect suspected supposed team transfer transferred two-sentence one-sentence typical
    ultimately undergoing weight administered see adolescent teenager
"""


def stem(word: str) -> str:
    """The word without a plural's ending; no more, as "ulcer" and "ulcerated" are different things."""
    word = word.removesuffix("'s").removesuffix("'")
    if len(word) < 4 or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word.removesuffix("s")


_BEGINNING_LETTERS = 6
_LEFT_OUT = frozenset(stem(word) for word in f"{_GRAMMAR} {_ASKING} {_ANY_PATIENT}".split())


def content_words(text: str) -> frozenset[str]:
    """The content words of a text, case-folded and in the singular.

    A hyphenated word counts as a whole and by its parts. Single letters are none, as in "Dr. X"; numbers are.
    """
    words = set(_WORD.findall(text.replace("\u2019", "'").casefold()))
    return frozenset().union(*map(_read_word, words))


@lru_cache(maxsize=65_536)
def _read_word(word: str) -> frozenset[str]:
    parts = {word, *word.split("-")} if "-" in word else {word}
    stems = {stem(part) for part in parts}
    return frozenset(part for part in stems - _LEFT_OUT if len(part) > 1 or part.isdigit())


def beginnings(words: frozenset[str]) -> frozenset[str]:
    """What the words begin with: "diabetes" and "diabetic", "stenosis" and "stenotic" begin alike."""
    return frozenset(word[:_BEGINNING_LETTERS] if word.isalpha() else word for word in words)
