"""The figures of answers that need no judge."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from asclepius_ray.evaluation.records import Answer, Grade, Item, ItemKind, Verdict
from asclepius_ray.evaluation.text_figures import (
    TextFigures,
    group_by_note,
    measure_group,
    summarize_reference,
    summarize_texts,
    summarize_unanswerable,
)
from asclepius_ray.quality.fidelity import compare
from asclepius_ray.quality.fidelity.kinds import Unfaithful

NOTE = "He was given metoprolol 25 mg twice daily for hypertension and stayed for 5 days."
OTHER_NOTE = "She had pneumonia and took amoxicillin."


def item(item_id: str, note: str = NOTE, reference: str = "", kind: str = ItemKind.TEST) -> Item:
    return Item(
        item_id, f"note {len(note)}", kind, "Question Answering", note, "Which drug?", reference, note
    )


def answer(item_id: str, text: str, model: str = "ours", failure: str = "") -> Answer:
    return Answer(item_id, model, text, "stop", failure)


def measure(items: Sequence[Item], answers: Sequence[Answer]) -> list[TextFigures]:
    return [one for group in group_by_note(items, answers) for one in measure_group(group)]


def measure_one(text: str, reference: str = "") -> TextFigures:
    [figures] = measure([item("1", reference=reference)], [answer("1", text)])
    return figures


def mean_of(values: Sequence[float], clusters: Sequence[str]) -> dict[str, Any]:
    return {"value": sum(values) / len(values), "clusters": list(clusters)}


def test_an_answer_is_measured_by_its_words_and_what_they_say() -> None:
    assert measure_one("Metoprolol, 25 mg twice daily.") == TextFigures(
        "1", f"note {len(NOTE)}", "test", "ours", 5, False, False, False, frozenset(), None
    )
    assert measure_one("The summary does not mention a dose.").declines
    assert measure_one("As an AI language model, I cannot give medical advice.").is_refusal
    empty = measure_one(" \n")
    assert (empty.words, empty.is_empty, empty.declines, empty.is_refusal) == (0, True, False, False)


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("Metoprolol 25 mg.", set()),
        ("Metoprolol 50 mg.", {Unfaithful.DOSE, Unfaithful.NUMBER}),
        ("Metoprolol and lisinopril.", {Unfaithful.DRUG}),
        ("He stayed for 9 days.", {Unfaithful.NUMBER}),
        # A term that is explained, and a question that is declined: no faults of a short answer.
        ("Hypertension raises the risk of stroke.", set()),
        ("There is no relationship between hypertension and his stay in the note.", set()),
    ],
)
def test_numbers_doses_and_drugs_that_the_note_does_not_have_are_found(
    text: str, kinds: set[Unfaithful]
) -> None:
    assert measure_one(text).unfaithful == kinds


def test_each_answer_is_held_against_its_own_note() -> None:
    items = [item("1"), item("2", OTHER_NOTE)]
    figures = measure(
        items, [answer("1", "Metoprolol."), answer("2", "Metoprolol."), answer("2", "Amoxicillin.")]
    )
    assert [one.unfaithful for one in figures] == [set(), {Unfaithful.DRUG}, set()]


def test_the_answers_of_one_note_form_one_group_and_those_that_did_not_come_none() -> None:
    items = [item("1"), item("2", OTHER_NOTE), item("3"), item("4", "A note without an answer.")]
    answers = [
        answer("1", "a"), answer("2", "b"), answer("3", "c"), answer("1", "d", "theirs"),
        answer("4", "", failure="timeout"),
    ]  # fmt: skip
    groups = group_by_note(items, answers)
    assert [[one.text for _item, one in group] for group in groups] == [["a", "c", "d"], ["b"]]
    assert [[own.item_id for own, _answer in group] for group in groups] == [["1", "3", "1"], ["2"]]


def test_a_note_is_read_once_for_all_of_its_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = compare.normalize
    monkeypatch.setattr(compare, "normalize", lambda text: (read.append(text), real(text))[1])
    measure([item("1"), item("2")], [answer(name, f"Metoprolol {name}.") for name in "1212"])
    assert read.count(NOTE) == 1
    assert len(read) == 5


def test_a_reference_is_compared_where_there_is_one() -> None:
    overlap = measure_one("metoprolol and aspirin", reference="The metoprolol.").overlap
    assert overlap is not None
    assert overlap.token_f1 == pytest.approx(0.5)
    assert overlap.rouge_l == pytest.approx(2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2))
    assert overlap.exact == 0.0
    assert measure_one("metoprolol", reference="The metoprolol.").overlap.exact == 1.0  # type: ignore[union-attr]


def test_texts_are_summarized_over_the_test_set() -> None:
    texts = ["One two three.", "The dose is not stated.", "", "Metoprolol 50 mg, and then lisinopril."]
    items = [item(str(number)) for number in range(4)] + [item("trap", kind=ItemKind.UNANSWERABLE)]
    figures = measure(items, [*(answer(str(number), text) for number, text in enumerate(texts))])
    summary = summarize_texts([*figures, *measure(items, [answer("trap", "It is not mentioned.")])])
    assert summary == {
        "answers": 4,
        "words": {"mean": 3.5, "median": 4.0, "p95": 6.0},
        "declined_share": 0.25,
        "refusal_share": 0.0,
        "empty_share": 0.25,
        "unfaithful": {"number": 0.25, "dose": 0.25, "drug": 0.25},
        "unfaithful_any": 0.25,
    }


def test_the_95th_percentile_of_words_is_exceeded_by_one_answer_in_twenty() -> None:
    figures = [replace(measure_one("x"), words=number) for number in range(1, 101)]
    assert summarize_texts(figures)["words"]["p95"] == 95
    assert summarize_texts(figures[:1])["words"]["p95"] == 1


def test_without_an_answer_there_are_no_shares() -> None:
    summary = summarize_texts([])
    assert summary["answers"] == 0
    assert summary["words"] == {"mean": None, "median": None, "p95": None}
    assert summary["declined_share"] is None
    assert summary["unfaithful"] == {"number": None, "dose": None, "drug": None}


def test_a_reference_is_summarized_with_the_notes_as_clusters() -> None:
    items = [item("1", reference="metoprolol"), item("2", OTHER_NOTE, "amoxicillin"), item("3")]
    figures = measure(items, [answer("1", "metoprolol"), answer("2", "ibuprofen"), answer("3", "x")])
    notes = [f"note {len(NOTE)}", f"note {len(OTHER_NOTE)}"]
    assert summarize_reference(figures, mean_of) == {
        "rows": 2,
        "rouge_l": {"value": 0.5, "clusters": notes},
        "token_f1": {"value": 0.5, "clusters": notes},
        "exact": {"value": 0.5, "clusters": notes},
    }
    assert summarize_reference(figures[1:2], mean_of) is None
    assert summarize_reference([], mean_of) is None


def grade(item_id: str, value: int | None, judge: str = "j", order: int = 0, model: str = "ours") -> Grade:
    verdict = Verdict.JUDGED if value is not None else Verdict.JUDGE_UNREADABLE
    return Grade(item_id, model, judge, order, 0, value, verdict)


def test_declined_unanswerable_questions_are_counted_by_phrases_and_by_each_judge() -> None:
    items = [item(str(number), kind=ItemKind.UNANSWERABLE) for number in range(4)] + [item("test")]
    texts = ["The note does not mention it.", "Not stated in the note.", "Aspirin.", "On 5 May."]
    figures = measure(
        items, [*(answer(str(number), text) for number, text in enumerate(texts)), answer("test", "x")]
    )
    grades = [
        grade("0", 4, order=0), grade("0", 4, order=1),
        grade("1", 4, order=0), grade("1", 3, order=1),
        grade("2", 1, order=0), grade("2", None, order=1),
        grade("3", None), grade("test", 4), grade("2", 4, model="theirs"),
        grade("0", None, judge="mute"),
    ]  # fmt: skip
    assert summarize_unanswerable(figures, grades) == {
        "items": 4,
        "declined_by_phrases": 0.5,
        "declined_by_judge": {"j": pytest.approx((1 + 0.5 + 0) / 3), "mute": None},
    }


def test_without_unanswerable_items_there_is_nothing_to_say() -> None:
    assert summarize_unanswerable(measure([item("1")], [answer("1", "x")]), [grade("1", 4)]) is None
