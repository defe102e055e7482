"""Cleaning makes text plain and changes no fact; ages are read in every form of the published tables."""

import csv
import re
from pathlib import Path

import pytest

from asclepius_ray.synthesis.cleaning import age_years, clean_note, clean_text

LONG = "The wound was closed in layers and the drain was taken out on the second day after the long operation"


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        pytest.param(r"He was seen.\nHe went home.", "He was seen.\nHe went home.", id="literal-newline"),
        pytest.param(
            r"A loud\nmurmur was heard.", "A loud murmur was heard.", id="literal-newline-in-sentence"
        ),
        pytest.param("given for 3\nmonths, then", "given for 3 months, then", id="number-and-unit"),
        pytest.param(
            "seen by Neurology,\nOphthalmology", "seen by Neurology, Ophthalmology", id="after-comma"
        ),
        pytest.param("a follow-\nup visit", "a follow-up visit", id="hyphen-at-line-end"),
        pytest.param("Treatment\nShe was given", "Treatment\nShe was given", id="heading-stays"),
        pytest.param(f"{LONG}\nAt home he", f"{LONG}\nAt home he", id="paragraph-without-full-stop"),
        pytest.param("Two ways:\ni) wait\nii) cut", "Two ways:\ni) wait\nii) cut", id="list-stays"),
        pytest.param("One.\r\n\r\n \rTwo.", "One.\nTwo.", id="blank-lines"),
        pytest.param("a mass () was", "a mass was", id="empty-brackets"),
        pytest.param("a mass ( ).", "a mass.", id="brackets-with-blank"),
        pytest.param("an EUA (\n). No", "an EUA. No", id="brackets-over-two-lines"),
        pytest.param("lumen()and", "lumen and", id="brackets-between-words"),
        pytest.param("tissue (, ) and [] more [,].", "tissue and more.", id="brackets-around-commas"),
        pytest.param("seen (see ()).", "seen (see).", id="nested"),
        pytest.param("It healed.\n()\nHe left.", "It healed.\nHe left.", id="brackets-alone-on-a-line"),
        pytest.param(" BP\t120/80 \u2005mmHg\u00a0 \u200b. ", "BP 120/80 mmHg.", id="stray-blanks"),
        pytest.param(" \\n () \n", "", id="nothing-left"),
    ],
)
def test_artefacts_of_the_extraction_are_removed(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Rheumatoid factor (-), anti-CCP (+), HBsAg (\u2013).",
        "INR 2.1 (0.9-1.2), K+ 3.4 mmol/L, eGFR >90 mL/min/1.73m2, 0.5 mg x 2/d, a ratio of 1 : 160.",
        "A dose of .5 mg was given, then 1,200 mg; SpO2 was 88% on air (PaO2/FiO2 = 140).",
    ],
)
def test_findings_numbers_and_units_stay(text: str) -> None:
    assert clean_text(text) == text


def test_a_note_keeps_its_lines_and_its_boxes() -> None:
    raw = "LABS\\nNa 140\r\nK 4.1\n\n[ ] smoker\n( ) alcohol  \n  indented\n"
    assert clean_note(raw) == "LABS\nNa 140\nK 4.1\n\n[ ] smoker\n( ) alcohol\n  indented"


def test_real_reports_lose_no_letter_and_no_digit(shared_data: Path) -> None:
    num_changed = 0
    for name, column in (("v1_first_500.csv", "patient"), ("v2_sample_250.csv", "text")):
        with (shared_data / "pmc_patients" / name).open(newline="", encoding="utf-8") as stream:
            for row in csv.DictReader(stream):
                cleaned = clean_text(row[column])
                assert re.findall(r"\w", row[column].replace("\\n", " ")) == re.findall(r"\w", cleaned)
                num_changed += cleaned != row[column]
    assert num_changed > 500, "hardly a text was changed, so this says nothing"


@pytest.mark.parametrize(
    ("value", "years"),
    [
        pytest.param("[[60.0, 'year']]", 60.0, id="text-of-a-list"),
        pytest.param([[60.0, "year"]], 60.0, id="list"),
        pytest.param("[[1.0, 'year'], [6.0, 'month']]", 1.5, id="two-entries-add-up"),
        pytest.param([["3", "days"]], 3 / 365.25, id="plural-and-text"),
        pytest.param("[[2.0, 'week']]", 14 / 365.25, id="weeks"),
        pytest.param("[[12.0, 'hour']]", 0.5 / 365.25, id="hours"),
        pytest.param("47", 47.0, id="plain-number-as-text"),
        pytest.param(47.5, 47.5, id="plain-number"),
    ],
)
def test_ages_become_years(value: object, years: float) -> None:
    assert age_years(value) == pytest.approx(years)


@pytest.mark.parametrize(
    "value",
    [
        None, "", "unknown", "[[60.0, 'year']", "[]", [], "[[60.0]]", "[['x', 'year']]", "[[4.0, 'decade']]",
        "[[-1, 'year']]", "[[900, 'year']]", "__import__('os')", "{[]: 1}", "[" * 190, "[" * 5000, True,
        float("nan"), {"year": 3}, 10**400, [[float("inf"), "year"], [float("-inf"), "year"]],
        "[[1.0, 'year'], [2.0, 'moon']]",
    ],
    ids=lambda value: repr(value)[:20],
)  # fmt: skip
def test_an_unreadable_age_is_none(value: object) -> None:
    assert age_years(value) is None
