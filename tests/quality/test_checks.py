"""The checks find what a language model says of itself, and never take clinical text for it."""

import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from asclepius_ray.quality.checks import Reason, find_answer_fault, find_note_fault, find_question_fault

NOTE = "Discharge Summary: 54-year-old man with chest pain, given aspirin, discharged on day 3."

REFUSALS = [
    "As an AI language model, I do not have access to patient records.",
    "As an AI, I have no access to the chart.",
    "As an artificial intelligence I cannot examine anyone.",
    "I'm sorry, but I cannot generate a discharge summary for this case.",
    "I\u2019m sorry, but I can\u2019t assist with that request.",
    "Sorry, I am unable to write this.",
    "I apologize, but I do not feel comfortable with this.",
    "I cannot help with that.",
    "I can\u2019t help with that.",
    "I am not able to provide medical advice.",
    "As a clinical language model, I would say aspirin.",
    "This goes beyond my training data.",
    "I am ChatGPT and made by OpenAI.",
]
CLINICAL = [
    "The plan was drawn on the model, and the wax was sealed to the model.",
    "Echocardiography showed moderate AI (aortic insufficiency) and mild MR.",
    "The patient was unable to walk and cannot communicate.",
    "HOMA (homeostasis model assessment) was 3.1; GPT 45 U/L, GOT 50 U/L.",
    "The summary does not say when aspirin was started; it names the dose alone.",
    "I cannot determine the dose from the summary, because it names the drug alone.",
    "Family is sorry to see him suffer. Discharged home.",
    "Labs: [AST] 40, [Hb] 9.1, [normal: 35-55 g/L], [18F]FDG uptake, [Figure 3], [, ].",
    "Potassium < 3 and > 2; BP <120/80>.",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_a_refusal_is_found_in_every_step(text: str) -> None:
    assert find_note_fault(text, min_words=1) is Reason.REFUSAL
    assert find_question_fault(text, NOTE) is Reason.REFUSAL
    assert find_answer_fault(text, NOTE) is Reason.REFUSAL


@pytest.mark.parametrize("text", CLINICAL)
def test_clinical_text_is_no_fault(text: str) -> None:
    assert find_note_fault(text, min_words=1) is None
    assert find_question_fault(text, NOTE) is None
    assert find_answer_fault(text, NOTE) is None


@pytest.mark.parametrize(
    ("file", "column", "num_rows"),
    [
        ("pmc_patients/v1_first_500.csv", "patient", 500),
        ("pmc_patients/v2_sample_250.csv", "text", 250),
        ("mtsamples/sample_250.csv", "text", 250),
    ],
)
def test_no_real_text_is_taken_for_a_language_models(
    shared_data: Path, file: str, column: str, num_rows: int
) -> None:
    with (shared_data / file).open(newline="", encoding="utf-8") as stream:
        texts = [row[column] for row in csv.DictReader(stream)]
    assert len(texts) == num_rows
    assert {find_note_fault(text, min_words=1) for text in texts} == {None}
    assert {find_question_fault(text, NOTE) for text in texts} == {None}


def test_no_published_note_is_lost(shared_data: Path) -> None:
    notes = json.loads((shared_data / "asclepius/published_notes_40.json").read_text(encoding="utf-8"))
    found = Counter(find_note_fault(row["note"], min_words=30) for row in notes)
    assert found == {None: 40}


def test_placeholders_of_published_notes_are_found(shared_data: Path) -> None:
    notes = json.loads((shared_data / "asclepius/published_notes_40.json").read_text(encoding="utf-8"))
    found = Counter(find_answer_fault(row["note"], NOTE) for row in notes)
    assert found == {None: 27, Reason.PLACEHOLDER: 13}


@pytest.mark.parametrize(
    "placeholder",
    ["[Name]", "[DATE]", "[Patient's ID]", "[Insert date here]", "[Redacted]", "[Doctor's Name]", "[XX]"],
)
def test_a_placeholder_is_a_fault_unless_the_note_holds_it(placeholder: str) -> None:
    text = f"The patient {placeholder} was given aspirin."
    assert find_question_fault(text, NOTE) is Reason.PLACEHOLDER
    assert find_answer_fault(text, NOTE) is Reason.PLACEHOLDER
    assert find_answer_fault(text, f"{NOTE} Seen by {placeholder}.") is None


def test_a_note_one_word_short_is_too_short() -> None:
    assert find_note_fault("word " * 29, min_words=30) is Reason.SHORT_NOTE
    assert find_note_fault("word " * 30, min_words=30) is None


def test_an_answer_that_asks_back_is_a_fault_and_a_question_that_asks_is_none() -> None:
    assert find_answer_fault("Which dose do you mean? ", NOTE) is Reason.ANSWER_IS_QUESTION
    assert find_answer_fault("Asked 'why?', he named the aspirin.", NOTE) is None
    assert find_question_fault("Which dose was given?", NOTE) is None


@pytest.mark.parametrize("tag", ["<note>", "</question>", "<case_report>", '<answer label="A">', "</task>"])
def test_a_tag_of_the_prompt_is_a_fault(tag: str) -> None:
    assert find_answer_fault(f"{tag} Aspirin was given.", NOTE) is Reason.PROMPT_ECHO
    assert find_note_fault(f"{tag} Aspirin was given.", min_words=1) is Reason.PROMPT_ECHO


@pytest.mark.parametrize("text", ["", "  \n"])
def test_nothing_is_a_fault(text: str) -> None:
    assert find_note_fault(text, min_words=1) is Reason.EMPTY
    assert find_question_fault(text, NOTE) is Reason.EMPTY
    assert find_answer_fault(text, NOTE) is Reason.EMPTY
