"""Notes paired with questions that they cannot answer."""

import json
import random
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from asclepius_ray.evaluation.content_words import content_words
from asclepius_ray.evaluation.records import Item, ItemKind
from asclepius_ray.evaluation.unanswerable import pair_unanswerable

TOPICS = {
    "heart": ("He has atrial fibrillation and takes warfarin.", "What dose of warfarin was given?"),
    "knee": ("She had a knee arthroplasty with femoral block.", "When was the knee arthroplasty?"),
    "skin": ("The melanoma of his shoulder was excised.", "How thick was the melanoma?"),
    "lung": ("Pneumonia was treated with ceftriaxone.", "Which lobe had the pneumonia?"),
}


def item(
    name: str, note: str, question: str, kind: str = ItemKind.TEST, task: str = "Question Answering"
) -> Item:
    note_id = name.partition("#")[0]
    return Item(name, note_id, kind, task, note, question, "It does.", note)


def four_items() -> list[Item]:
    return [item(name, note, question) for name, (note, question) in TOPICS.items()]


def real_items(shared_data: Path) -> list[Item]:
    path = shared_data / "mtsamples" / "camel_eval_500.jsonl"
    if not path.is_file():
        pytest.skip(f"the real notes ({path.name}) are not beside the project")
    items, notes = [], {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        note_id = notes.setdefault(row["input"], f"note{len(notes)}")
        items.append(
            Item(
                f"row{number}",
                note_id,
                "test",
                row["type"],
                row["input"],
                row["instruction"],
                "",
                row["input"],
            )
        )
    return items


def test_a_pair_has_the_note_of_one_item_and_the_question_and_task_of_another() -> None:
    items = [replace(one, task=f"Task of {one.item_id}") for one in four_items()]
    pairs = pair_unanswerable(items, 12, seed=1)
    assert len(pairs) == 12  # each of four notes with the questions of the three others
    for pair in pairs:
        [asked] = [one for one in items if one.question == pair.question]
        [own] = [one for one in items if one.note_id == pair.note_id]
        assert own is not asked
        assert (pair.note, pair.asked_note) == (own.note, own.asked_note)
        assert pair.task == asked.task
        assert pair.kind == "unanswerable"
        assert type(pair.kind) is str
        assert pair.reference == ""
        assert pair.item_id.startswith(f"{own.note_id}|unanswerable|")
    assert len({pair.item_id for pair in pairs}) == 12
    assert len({(pair.note_id, pair.question) for pair in pairs}) == 12


def test_fewer_pairs_come_where_no_more_exist() -> None:
    assert len(pair_unanswerable(four_items(), 100, seed=1)) == 12
    assert pair_unanswerable(four_items()[:1], 5, seed=1) == []
    assert pair_unanswerable([], 5, seed=1) == []
    assert pair_unanswerable(four_items(), 0, seed=1) == []


def test_no_content_word_of_a_question_stands_in_its_new_note() -> None:
    knees = item("other", "Her knees hurt.", "Where do the knees hurt?")
    pairs = pair_unanswerable([*four_items(), knees], 100, seed=1)
    questions = {pair.question for pair in pairs if pair.note_id == "other"}
    assert "When was the knee arthroplasty?" not in questions  # "knees" is the plural of "knee"
    assert "How thick was the melanoma?" in questions


@pytest.mark.parametrize(
    ("note", "question"),
    [
        ("The WARFARIN was stopped.", "What dose of warfarin was given?"),
        ("He has diabetic feet.", "Since when does he have diabetes?"),
        ("An x-ray of the below-knee stump.", "When was the knee replaced?"),
        ("He is on beta-blockers.", "Which beta-blocker is he on?"),
        ("He has biopsies.", "Who took the biopsy?"),
    ],
)
def test_case_plurals_hyphens_and_endings_do_not_hide_a_shared_word(note: str, question: str) -> None:
    asking = item("asking", f"{question} {question}", question)
    bare = item("bare", note, "How tall is the giraffe?")
    unrelated = item("unrelated", "A giraffe.", "How old is the elephant?")
    pairs = pair_unanswerable([asking, bare, unrelated], 100, seed=1)
    assert (bare.note_id, question) not in {(pair.note_id, pair.question) for pair in pairs}
    assert (unrelated.note_id, question) in {(pair.note_id, pair.question) for pair in pairs}


@pytest.mark.parametrize(
    "question",
    [
        "Summarize the note.",
        "What medications was the patient discharged on?",
        "Can you provide a brief summary of the patient's hospital course?",
        "Who is Dr. X?",
        "What does the abbreviation ERCP stand for?",
        'Rephrase "the ERCP was uneventful" for a layperson.',
        "What is an ERCP?",
        "Did the patient undergo ERCP?",
        "Explain whether the patient had an ERCP.",
        "What is the link between ERCP and pancreatitis?",
        "Which tests were done (e.g. ERCP)?",
    ],
)
def test_a_question_that_does_not_need_its_note_is_never_used(question: str) -> None:
    note = "An ERCP was done for pancreatitis; the ERCP was uneventful. Summarize."
    pairs = pair_unanswerable([item("ercp", note, question), *four_items()], 100, seed=1)
    assert len(pairs) == 16
    assert question not in {pair.question for pair in pairs}


def test_a_question_about_what_its_own_note_does_not_name_is_never_used() -> None:
    stray = item("stray", "He has gout.", "When was the giraffe seen?")
    assert stray.question not in {pair.question for pair in pair_unanswerable([*four_items(), stray], 100, 1)}


def test_the_order_of_the_items_does_not_matter_and_the_seed_does() -> None:
    # One question is asked of two notes, once as another task.
    twin = replace(item("heart#2", *TOPICS["heart"]), note_id="twin", task="Summarization")
    items = [*four_items(), twin]
    pairs = pair_unanswerable(items, 10, seed=1)
    for number in range(5):
        shuffled = random.Random(number).sample(items, len(items))
        assert pair_unanswerable(shuffled, 10, seed=1) == pairs
    assert any(pair_unanswerable(items, 10, seed=seed) != pairs for seed in range(2, 6))
    assert pair_unanswerable(items, 12, seed=1)[:10] == pairs


def test_notes_and_questions_are_used_evenly() -> None:
    # Each note names two animals: its own, and that of the note before it.
    animals = ["badger", "camel", "dolphin", "eagle", "falcon", "gecko", "heron", "ibex", "jackal"]
    items = [
        item(f"n{number}", f"{animal} and {animals[number - 1]}", f"Where is the {animal}?")
        for number, animal in enumerate(animals)
    ]
    for count in (4, 9, 20, 45, 63):
        pairs = pair_unanswerable(items, count, seed=4)
        assert len(pairs) == count
        notes = [Counter(pair.note_id for pair in pairs)[one.note_id] for one in items]
        questions = [Counter(pair.question for pair in pairs)[one.question] for one in items]
        assert max(notes) - min(notes) <= 1
        # The note whose turn it is may be one that the least used question does not fit.
        assert max(questions) - min(questions) <= 2
        assert max(questions) <= count // 9 + 1


def test_unanswerable_items_are_not_paired_again_and_a_note_leaves_room_for_a_longer_question() -> None:
    long, short = item("heart#1", *TOPICS["heart"]), item("heart#2", *TOPICS["heart"])
    short = replace(short, asked_note="He takes warfarin.")
    old = item("old", "Gout.", "Where is the gout?", kind=ItemKind.UNANSWERABLE)
    pairs = pair_unanswerable([long, short, old, *four_items()[1:]], 100, seed=1)
    assert {pair.asked_note for pair in pairs if pair.note_id == "heart"} == {"He takes warfarin."}
    assert "old" not in {pair.note_id for pair in pairs}
    assert old.question not in {pair.question for pair in pairs}


def test_real_notes_and_questions_make_hundreds_of_pairs_without_a_shared_word(shared_data: Path) -> None:
    items = real_items(shared_data)
    pairs = pair_unanswerable(items, 500, seed=7)
    assert len(pairs) == 500
    for pair in pairs:
        asked = content_words(pair.question)
        assert asked
        assert not asked & content_words(pair.note)
    assert set(Counter(pair.note_id for pair in pairs).values()) == {10}
    assert max(Counter(pair.question for pair in pairs).values()) <= 9


def test_five_thousand_items_are_paired_within_seconds() -> None:
    draw = random.Random(2)
    words = [f"word{number}" for number in range(20_000)]
    items = []
    for number in range(5000):
        note = draw.choices(words, k=250)
        items.append(item(f"n{number}", " ".join(note), f"Where are {note[0]} and {note[1]}?"))
    began = time.perf_counter()
    assert len(pair_unanswerable(items, 5000, seed=1)) == 5000
    assert time.perf_counter() - began < 15
