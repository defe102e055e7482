"""The checks of a note against its case report, on seeded corruptions of real reports.

The rules were tuned on the rows with an even number; what is asserted here is asked of the others.
"""

import csv
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from corruptions import CORRUPTIONS, FINDINGS, add_finding, findings_of_other_patients, rewrite

from asclepius_ray.quality.fidelity import lexicon
from asclepius_ray.quality.fidelity.compare import find_all_unfaithful, find_unfaithful
from asclepius_ray.quality.fidelity.kinds import Unfaithful
from asclepius_ray.records import CaseReport
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.synthesis.config import InputConfig

CAUGHT_AS = {
    "dose": {Unfaithful.DOSE, Unfaithful.NUMBER},
    "drug": {Unfaithful.DRUG},
    "finding": {Unfaithful.FINDING},
    "negation": {Unfaithful.CONTRADICTION, Unfaithful.DENIAL, Unfaithful.NEGATION},
    "side": {Unfaithful.SIDE},
    "date": {Unfaithful.DATE},
}


def reports(shared_data: Path) -> list[str]:
    path = shared_data / "pmc_patients" / "v1_first_500.csv"
    return [one.text for one in read_case_reports(InputConfig(path=str(path))) if isinstance(one, CaseReport)]


def corrupted(texts: list[str]) -> Iterator[tuple[str, str, str]]:
    """(kind of corruption or "none", the rewritten and corrupted text, the report)."""
    for number, report in enumerate(texts):
        if number % 2 == 0:
            continue
        draw = random.Random(f"none{number}")
        yield "none", rewrite(report, draw, report), report
        for kind, corrupt in CORRUPTIONS.items():
            draw = random.Random(f"{kind}{number}")
            text = corrupt(report, draw)
            if text is not None:
                yield kind, rewrite(text, draw, report), report


def tell(capsys: pytest.CaptureFixture[str], *lines: str) -> None:
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(lines) + "\n")


def test_each_kind_of_corruption_is_found_with_precision_and_recall_of_nine_in_ten(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, found, right = Counter[str](), Counter[str](), Counter[str]()
    for kind, text, report in corrupted(reports(shared_data)):
        made[kind] += 1
        faults = find_all_unfaithful(text, report)
        for group, kinds in CAUGHT_AS.items():
            found[group] += bool(faults & kinds)
            right[group] += bool(faults & kinds) and group == kind
    recall = {kind: right[kind] / made[kind] for kind in CAUGHT_AS}
    precision = {kind: right[kind] / found[kind] for kind in CAUGHT_AS}
    lines = [
        f"{kind}: {made[kind]}, recall {recall[kind]:.3f}, precision {precision[kind]:.3f}"
        for kind in made
        if kind in CAUGHT_AS
    ]
    tell(capsys, *lines)
    assert sum(made[kind] for kind in CAUGHT_AS) >= 400
    assert min(made[kind] for kind in CAUGHT_AS) >= 50
    assert min(recall.values()) >= 0.9, recall
    assert min(precision.values()) >= 0.9, precision


def test_the_corruptions_are_not_made_of_the_checkers_own_list() -> None:
    assert not set(FINDINGS) & set(lexicon.MORE_FINDINGS)


def test_findings_in_the_words_of_other_patients_reports_are_found(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The names are of reports by which nothing was tuned; "easy fatiguability" no list has."""
    with (shared_data / "pmc_patients" / "v2_sample_250.csv").open(newline="", encoding="utf-8") as stream:
        names = findings_of_other_patients(row["text"] for row in csv.DictReader(stream))
    assert len(names) >= 70
    num_made = num_found = 0
    for number, report in enumerate(reports(shared_data)):
        if number % 2 and (text := add_finding(report, random.Random(f"listed{number}"), names)):
            num_made += 1
            rewritten = rewrite(text, random.Random(number), report)
            num_found += Unfaithful.FINDING in find_all_unfaithful(rewritten, report)
    tell(capsys, f"{len(names)} findings of other reports: {num_made}, recall {num_found / num_made:.3f}")
    assert num_made >= 240
    assert num_found >= 0.85 * num_made


def test_a_report_is_faithful_to_itself_and_to_its_own_words_in_another_order(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = reports(shared_data)
    rewritten = [rewrite(text, random.Random(number), text) for number, text in enumerate(texts)]
    rejected = {
        "itself": sum(find_unfaithful(text, text) is not None for text in texts),
        "itself rewritten": sum(
            find_unfaithful(text, report) is not None for text, report in zip(rewritten, texts, strict=True)
        ),
    }
    for against, number in rejected.items():
        tell(capsys, f"{len(texts)} reports, each against {against}: {number / len(texts):.1%} rejected")
    assert len(texts) == 500
    assert rejected["itself"] == 0
    assert rejected["itself rewritten"] <= 0.01 * len(texts)


def test_a_published_note_that_denies_all_medication_is_caught(shared_data: Path) -> None:
    published = json.loads((shared_data / "asclepius" / "published_pairs.json").read_text())["rows"]
    faults = {row["patient_id"]: find_all_unfaithful(row["note"], row["case_report"]) for row in published}
    assert Unfaithful.DENIAL in faults[620]
    assert not faults[0]
    assert not faults[8]


@pytest.mark.parametrize(
    ("note", "kind"),
    [
        ("He took prednisone 40 mg daily.", Unfaithful.DOSE),
        ("He took dexamethasone 30 mg daily.", Unfaithful.DRUG),
        ("He took Zyxovirumab 30 mg and zorvutinib 30 mg daily.", Unfaithful.DRUG),
        ("He had no cough.", Unfaithful.DENIAL),
        ("Discharge medications:\n- None", Unfaithful.DENIAL),
        ("He had fever.", Unfaithful.CONTRADICTION),
        ("The right kidney was enlarged.", Unfaithful.SIDE),
        ("Both kidneys were enlarged.", Unfaithful.SIDE),
        ("He was seen on 3 May 2016.", Unfaithful.DATE),
        ("On day 7 he went home.", Unfaithful.DATE),
        ("The mass measured 5.2 cm.", Unfaithful.NUMBER),
        ("He had hemoptysis.", Unfaithful.FINDING),
        ("He had no seizures.", Unfaithful.NEGATION),
    ],
)
def test_each_kind_has_its_own_name(note: str, kind: Unfaithful) -> None:
    assert find_unfaithful(note, REPORT) is kind
    assert find_unfaithful(note, REPORT, frozenset(Unfaithful) - {kind}) is not kind


@pytest.mark.parametrize(
    "note",
    [
        "Prednisone was given at 30 milligrams; on the third day he went home.",
        "He coughed for two weeks (14 days); the tumour was 4.3 cm.",
        "Left renal mass of 43 mm, seen in May 2015. No pyrexia.",
        "Return if fever, seizures or bleeding occur; monitor for signs of infection.",
        "A 61 years old man with a neoplasm of the left kidney.",
    ],
)
def test_other_words_for_the_same_are_faithful(note: str) -> None:
    assert find_all_unfaithful(note, REPORT) == set()


REPORT = (
    "A 61-year-old man presented in May 2015 with cough for 2 weeks. He denied fever. Computed tomography "
    "showed a mass of the left kidney of 4.3 cm, a renal tumor. He was given prednisone 30 mg daily and "
    "went home on day 3."
)
