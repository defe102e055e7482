"""Near duplicates and identifiers."""

import csv
import sys
from pathlib import Path

import pytest

from asclepius_ray.quality.checks import Reason, find_answer_fault, find_note_fault
from asclepius_ray.quality.duplicates import EarlierNotes
from asclepius_ray.quality.identifiers import has_new_identifier

NOTE = " ".join(f"word{number}" for number in range(200))


def test_a_note_with_one_word_changed_is_a_near_duplicate_and_another_note_is_not() -> None:
    earlier = EarlierNotes(0.9, 1000)
    assert earlier.add_if_new(NOTE)
    assert not earlier.add_if_new(NOTE)
    assert not earlier.add_if_new(NOTE.replace("word7 ", "other "))
    assert earlier.add_if_new(NOTE.replace("word", "text"))


def test_only_the_same_words_are_duplicates_where_all_similarity_is_demanded() -> None:
    earlier = EarlierNotes(1.0, 1000)
    assert earlier.add_if_new(NOTE)
    assert not earlier.add_if_new(NOTE.upper())
    assert earlier.add_if_new(NOTE.replace("word7 ", "other ").replace("word99 ", "other "))


def test_of_many_notes_each_is_found_again_and_none_is_taken_for_another() -> None:
    notes = [NOTE.replace("word", f"case{number}") for number in range(300)]
    earlier = EarlierNotes(0.9, len(notes))
    assert all(earlier.add_if_new(note) for note in notes)
    assert not any(earlier.add_if_new(note) for note in notes)


def test_half_a_note_is_no_duplicate_of_the_whole() -> None:
    earlier = EarlierNotes(0.9, 1000)
    assert earlier.add_if_new(NOTE)
    assert earlier.add_if_new(" ".join(NOTE.split()[:100]))


def test_no_two_real_reports_of_different_patients_are_near_duplicates(shared_data: Path) -> None:
    csv.field_size_limit(sys.maxsize)
    with (shared_data / "pmc_patients" / "v2_sample_250.csv").open(encoding="utf-8") as stream:
        texts = [row["text"] for row in csv.DictReader(stream)]
    earlier = EarlierNotes(0.9, 1000)
    assert sum(not earlier.add_if_new(text) for text in texts) <= 2


@pytest.mark.parametrize(
    "text",
    [
        "Call (555) 123-4567.",
        "Call 555-123-4567.",
        "MRN: 12345678",
        "SSN 123-45-6789",
        "Write to jane.doe@example.org",
        "Patient Name: John Smith",
        "DOB: 01/02/1960",
        "Lives at 12 North Main Street",
    ],
)
def test_what_is_shaped_like_an_identifier_is_one_unless_the_source_has_it(text: str) -> None:
    assert has_new_identifier(text, "")
    assert not has_new_identifier(text, f"Source. {text}")
    assert find_note_fault(f"{text} {'word ' * 40}", 30) is Reason.IDENTIFIER
    assert find_answer_fault(text, "A note.") is Reason.IDENTIFIER


def test_no_real_case_report_is_taken_for_an_identifier(shared_data: Path) -> None:
    csv.field_size_limit(sys.maxsize)
    with (shared_data / "pmc_patients" / "v1_first_500.csv").open(encoding="utf-8") as stream:
        texts = [row["patient"] for row in csv.DictReader(stream)]
    assert sum(has_new_identifier(text, "") for text in texts) <= 1


def test_an_answer_without_a_word_is_too_short() -> None:
    assert find_answer_fault("...", "A note.") is Reason.SHORT_ANSWER
