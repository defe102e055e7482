"""Answers beside their notes and references → the figures of evaluation that need no judge. Pure.

Of the kinds of unfaithfulness only numbers, doses and drugs count here. On the 500 answers of gpt-3.5 in
camel_eval_500.jsonl these three speak of 10, of which 7 are false alarms (1.4 % of the answers: parts of a
brand's name, a stay that was counted out, two doses in one breath). The other kinds are made for whole
notes: they speak of 32 answers, and all but a few are false alarms, since an answer that explains a term or
declines a question ("no relation between A and B is mentioned") is read as finding or denying it.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from asclepius_ray.evaluation.overlap import is_exact, rouge_l, token_f1
from asclepius_ray.evaluation.records import Answer, Grade, Item, ItemKind, Verdict
from asclepius_ray.quality.checks import is_refusal
from asclepius_ray.quality.declining import declines
from asclepius_ray.quality.fidelity.compare import ReadText, find_kinds
from asclepius_ray.quality.fidelity.kinds import Unfaithful

COUNTED_KINDS = frozenset({Unfaithful.NUMBER, Unfaithful.DOSE, Unfaithful.DRUG})
RIGHTLY_DECLINED = 4
"""The judge's scale gives it to an answer that says, rightly, that the summary does not allow one."""

IntervalOf = Callable[[Sequence[float], Sequence[str]], dict[str, Any]]
"""(values, the cluster of each) → the JSON of their mean with an interval."""


@dataclass(frozen=True)
class Overlap:
    """What an answer and its reference have in common, each from 0 to 1."""

    rouge_l: float
    token_f1: float
    exact: float


@dataclass(frozen=True)
class TextFigures:
    """What can be said of one answer without a judge; `overlap` is None where the item has no reference."""

    item_id: str
    note_id: str
    item_kind: str
    model: str
    words: int
    declines: bool
    is_empty: bool
    is_refusal: bool
    unfaithful: frozenset[Unfaithful]
    overlap: Overlap | None


def group_by_note(items: Iterable[Item], answers: Iterable[Answer]) -> list[list[tuple[Item, Answer]]]:
    """The answers that came, with their items, those of one note together: one group for `measure_group`."""
    by_id = {item.item_id: item for item in items}
    groups: dict[str, list[tuple[Item, Answer]]] = defaultdict(list)
    for answer in answers:
        if not answer.failure:
            item = by_id[answer.item_id]
            groups[item.note].append((item, answer))
    return list(groups.values())


def measure_group(pairs: Sequence[tuple[Item, Answer]]) -> list[TextFigures]:
    """The figures of each answer, in the order given.

    Every note is read once for all of its answers, which takes ten times as long as to read one of them. The
    first call in a process loads the lexicons, a few seconds, unless `load_lexicons` has.
    """
    notes = {item.note: ReadText(item.note) for item, _answer in pairs}
    return [_measure(item, answer, notes[item.note]) for item, answer in pairs]


def summarize_texts(figures: Sequence[TextFigures]) -> dict[str, Any]:
    """The "texts" of one model in scores.json, over its answers to items of the test set.

    Unanswerable items are left out, as their share of declining answers would hide that of the others. All
    but the count is None where there is no answer.
    """
    own = [one for one in figures if one.item_kind == ItemKind.TEST]
    words = [one.words for one in own]
    return {
        "answers": len(own),
        "words": {"mean": fmean(words), "median": median(words), "p95": _p95(words)}
        if words
        else {"mean": None, "median": None, "p95": None},
        "declined_share": _share(one.declines for one in own),
        "refusal_share": _share(one.is_refusal for one in own),
        "empty_share": _share(one.is_empty for one in own),
        "unfaithful": {
            kind.name.lower(): _share(kind in one.unfaithful for one in own)
            for kind in Unfaithful
            if kind in COUNTED_KINDS
        },
        "unfaithful_any": _share(bool(one.unfaithful) for one in own),
    }


def summarize_reference(figures: Sequence[TextFigures], interval_of: IntervalOf) -> dict[str, Any] | None:
    """The "reference" of one model in scores.json; None where no answer has a reference.

    `interval_of` is given the value and the note of each answer.
    """
    compared = [(one.note_id, one.overlap) for one in figures if one.overlap is not None]
    if not compared:
        return None
    notes = [note_id for note_id, _overlap in compared]
    return {
        "rows": len(compared),
        "rouge_l": interval_of([overlap.rouge_l for _note, overlap in compared], notes),
        "token_f1": interval_of([overlap.token_f1 for _note, overlap in compared], notes),
        "exact": interval_of([overlap.exact for _note, overlap in compared], notes),
    }


def summarize_unanswerable(figures: Sequence[TextFigures], grades: Iterable[Grade]) -> dict[str, Any] | None:
    """The "unanswerable" of one model in scores.json; None where it has answered no such item.

    For each judge the share of judged items with the best grade: an item that has it in one of two orders
    counts half. None where the judge has judged none of them.
    """
    own = {one.item_id: one for one in figures if one.item_kind == ItemKind.UNANSWERABLE}
    if not own:
        return None
    by_judge: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for grade in grades:
        if grade.item_id in own and grade.model == own[grade.item_id].model:
            judged = by_judge[grade.judge]
            if grade.verdict == Verdict.JUDGED and grade.grade is not None:
                judged[grade.item_id].append(grade.grade)
    return {
        "items": len(own),
        "declined_by_phrases": _share(one.declines for one in own.values()),
        "declined_by_judge": {judge: _best_share(by_judge[judge]) for judge in sorted(by_judge)},
    }


def _measure(item: Item, answer: Answer, note: ReadText) -> TextFigures:
    text = answer.text
    return TextFigures(
        item_id=item.item_id,
        note_id=item.note_id,
        item_kind=item.kind,
        model=answer.model,
        words=len(text.split()),
        declines=declines(text),
        is_empty=not text.strip(),
        is_refusal=is_refusal(text),
        unfaithful=frozenset(find_kinds(ReadText(text), note, COUNTED_KINDS)),
        overlap=_overlap(text, item.reference) if item.reference.strip() else None,
    )


def _overlap(text: str, reference: str) -> Overlap:
    return Overlap(rouge_l(text, reference), token_f1(text, reference), float(is_exact(text, reference)))


def _best_share(grades: Mapping[str, Sequence[int]]) -> float | None:
    shares = [Counter(orders)[RIGHTLY_DECLINED] / len(orders) for orders in grades.values()]
    return fmean(shares) if shares else None


def _share(flags: Iterable[bool]) -> float | None:
    counted = [float(flag) for flag in flags]
    return fmean(counted) if counted else None


def _p95(values: Sequence[int]) -> float:
    """The smallest value that at least 95 % of the values do not exceed."""
    ordered = sorted(values)
    return float(ordered[-(-len(ordered) * 95 // 100) - 1])
