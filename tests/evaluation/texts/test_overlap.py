"""ROUGE-L, token F1 and exact match, on worked examples and against slow definitions."""

import random
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asclepius_ray.evaluation.overlap import is_exact, rouge_l, token_f1

WORDS = ["pain", "fever", "the", "dose", "of", "aspirin", "Aspirin", "a", "500", "mg."]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


@pytest.mark.parametrize(
    ("answer", "reference", "f_measure"),
    [
        # Lin 2004, section 3.1: the common subsequence "police the gunman" is 3 of 4 words of both.
        ("police kill the gunman", "police killed the gunman", 1.0),  # the stems are the same
        ("police end the gunman", "police killed the gunman", 0.75),
        ("the gunman kill police", "police killed the gunman", 0.5),
        ("fever", "high fever and cough", 2 * 1.0 * 0.25 / 1.25),
        ("", "fever", 0.0),
        ("fever", "...", 0.0),
    ],
)
def test_rouge_l_of_worked_examples(answer: str, reference: str, f_measure: float) -> None:
    assert rouge_l(answer, reference) == pytest.approx(f_measure)


def test_rouge_l_is_the_f_measure_of_the_longest_common_subsequence() -> None:
    draw = random.Random(3)
    for _ in range(50):
        # Of three letters at most, as the library stems no shorter word.
        answer, reference = (
            draw.choices(["a", "bc", "def", "g", "hi"], k=draw.randint(1, 9)) for _ in range(2)
        )
        common = longest_common_subsequence(tuple(answer), tuple(reference))
        expected = 2 * common / (len(answer) + len(reference))
        assert rouge_l(" ".join(answer), " ".join(reference)) == pytest.approx(expected)


@cache
def longest_common_subsequence(first: tuple[str, ...], second: tuple[str, ...]) -> int:
    if not first or not second:
        return 0
    if first[-1] == second[-1]:
        return 1 + longest_common_subsequence(first[:-1], second[:-1])
    return max(longest_common_subsequence(first[:-1], second), longest_common_subsequence(first, second[:-1]))


@pytest.mark.parametrize(
    ("answer", "reference", "f_measure", "exact"),
    [
        ("The aspirin.", "aspirin", 1.0, True),
        ("an 81-mg dose of Aspirin", "81mg dose of aspirin", 1.0, True),
        ("aspirin and heparin", "heparin and aspirin", 1.0, False),
        # Said: aspirin, aspirin, daily; wanted: aspirin, twice, daily. Two in common: 2/3 and 2/3.
        ("aspirin aspirin daily", "aspirin twice daily", 2 / 3, False),
        # Two of five words, all of two: 2 · 0.4 · 1 / 1.4.
        ("she was given aspirin daily", "aspirin daily", 4 / 7, False),
        ("heparin", "aspirin", 0.0, False),
        ("", "aspirin", 0.0, False),
        ("the", "a", 1.0, True),
        ("theatre", "atre", 0.0, False),
        # Ten times the dose, another pressure, another sign: never the same word.
        ("2.5 mg", "25 mg", 0.5, False),
        ("12080", "120/80", 0.0, False),
        ("-3", "3", 0.0, False),
        ("2.5 mg.", "2.5 mg", 1.0, True),
    ],
)
def test_token_f1_and_exact_match_of_worked_examples(
    answer: str, reference: str, f_measure: float, exact: bool
) -> None:
    assert token_f1(answer, reference) == pytest.approx(f_measure)
    assert is_exact(answer, reference) is exact


@given(TEXTS, TEXTS)
def test_token_f1_is_that_of_words_struck_off_one_by_one(answer: str, reference: str) -> None:
    said, wanted = plain_words(answer), plain_words(reference)
    left, common = list(wanted), 0
    for word in said:
        if word in left:
            left.remove(word)
            common += 1
    if said and wanted and common:
        precision, recall = common / len(said), common / len(wanted)
        expected = 2 * precision * recall / (precision + recall)
    else:
        expected = float(said == wanted)
    assert token_f1(answer, reference) == pytest.approx(expected)
    assert token_f1(reference, answer) == pytest.approx(expected)
    assert is_exact(answer, reference) == (said == wanted)


def plain_words(text: str) -> list[str]:
    words = [word.lower().strip(".") for word in text.split()]
    return [word for word in words if word not in {"a", "an", "the"}]
