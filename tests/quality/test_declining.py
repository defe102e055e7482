"""Which answers decline: on labelled answers of our own words, and on labelled answers of real models.

The phrases were made on declining_own_words.txt and on the real answers of even rows; the rest measures them.
declining_real_labels.csv holds no text: the row of camel_eval_500.jsonl, the model, and 1 for a decline.
"""

import csv
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from asclepius_ray.quality.declining import declines

HERE = Path(__file__).parent
Labelled = tuple[str, bool]


def own_answers(name: str) -> list[Labelled]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [(line[2:], line[0] == "+") for line in lines if not line.startswith("#")]


def real_answers(shared_data: Path, parity: int) -> list[Labelled]:
    path = shared_data / "mtsamples" / "camel_eval_500.jsonl"
    if not path.is_file():
        pytest.skip(f"the real answers ({path.name}) are not beside the project")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with (HERE / "declining_real_labels.csv").open(encoding="utf-8", newline="") as stream:
        labels = [(int(one["row"]), one["model"], one["declines"] == "1") for one in csv.DictReader(stream)]
    return [(rows[row][model], label) for row, model, label in labels if row % 2 == parity]


def measure(
    what: str, labelled: Iterable[Labelled], capsys: pytest.CaptureFixture[str]
) -> tuple[float, float]:
    """(precision, recall), which are told as well."""
    outcomes = [(declines(answer), label) for answer, label in labelled]
    right = outcomes.count((True, True))
    said = right + outcomes.count((True, False))
    wanted = right + outcomes.count((False, True))
    with capsys.disabled():
        sys.stdout.write(
            f"\n{what}: {wanted} of {len(outcomes)} decline, precision {right}/{said} = {right / said:.3f}, "
            f"recall {right}/{wanted} = {right / wanted:.3f}\n"
        )
    return right / said, right / wanted


def test_the_labels_are_as_many_as_the_figures_say() -> None:
    own = own_answers("declining_own_words.txt")
    assert len({answer for answer, _label in own}) == len(own) == 248
    assert sum(label for _answer, label in own) == 129
    assert len(own_answers("declining_held_out.txt")) == 60


def test_declines_in_our_own_words_are_told_from_answers(capsys: pytest.CaptureFixture[str]) -> None:
    precision, recall = measure("made up", own_answers("declining_own_words.txt"), capsys)
    assert precision >= 0.98
    assert recall >= 0.98


def test_declines_in_words_the_phrases_have_not_seen_are_told_from_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    precision, recall = measure("made up, held out", own_answers("declining_held_out.txt"), capsys)
    assert precision >= 0.95
    assert recall >= 0.9


def test_declines_of_real_models_are_told_from_their_answers(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precision, recall = measure("real, even rows", real_answers(shared_data, 0), capsys)
    assert precision >= 0.83
    assert recall >= 0.98


def test_declines_of_real_models_in_held_out_rows_are_told_from_their_answers(
    shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    precision, recall = measure("real, odd rows", real_answers(shared_data, 1), capsys)
    assert precision >= 0.93
    assert recall >= 0.97


@pytest.mark.parametrize(
    "answer",
    [
        "THE SUMMARY DOES NOT MENTION A DOSE.",
        "The summary doesn\u2019t mention a dose.",
        "The summary does not\tmention  a dose.",
        "He was given penicillin.\nThe dose is not stated.",
        "- Drug: penicillin\n- Dose: not stated in the note",
    ],
)
def test_case_apostrophes_and_layout_make_no_difference(answer: str) -> None:
    assert declines(answer)


@pytest.mark.parametrize(
    "answer", ["", " \n", "?", "Drugs: penicillin (dose not stated), ibuprofen [route not mentioned]"]
)
def test_nothing_and_gaps_in_brackets_are_no_decline(answer: str) -> None:
    assert not declines(answer)


@pytest.mark.parametrize(
    "word", ["no", "not", "the summary of", "neither", "cannot be", "no information", "("]
)
def test_an_answer_without_end_is_read_in_time(word: str) -> None:
    began = time.perf_counter()
    declines(f"{word} " * 20_000)
    assert time.perf_counter() - began < 10
