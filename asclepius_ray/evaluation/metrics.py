"""The figures of an evaluation as Prometheus metrics, and as the file that `asclepius status` reads."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.durable_purse import PurseFigures
from asclepius_ray.evaluation.records import Answer, Grade, Verdict
from asclepius_ray.gauges import Figure, Gauges

_OF_SEATS = (
    Figure("calls", "Calls that were answered, over all evaluations on this journal.", "seat"),
    Figure("tokens", "Tokens in and out, over all evaluations on this journal.", "seat"),
    Figure("cost_usd", "Cost of all answers ever bought; absent where there is no price.", "seat"),
    Figure("budget_usd", "The most that may be spent; absent where there is no budget.", "seat"),
    Figure("refusals", "Refusals for the rate (HTTP 429), in this evaluation.", "seat"),
    Figure("in_flight", "Requests at the endpoint.", "seat"),
)
_OF_THE_PURSE = (
    Figure("purse_settled_usd", "Cost of all answers of all models and judges, over all evaluations here."),
    Figure("purse_unsettled_usd", "What calls that broke off may have cost on top."),
    Figure("purse_budget_usd", "evaluation.budget_usd; all three are absent where there is none."),
)
_FIGURES = (
    *_OF_SEATS,
    *_OF_THE_PURSE,
    Figure("active", "1 while models and judges are asked, 0 afterwards."),
    Figure("items", "Items by state: all of them, and those that are done.", "state"),
    Figure("answers", "Answers by state: ok or failed.", "state"),
    Figure("grades", "Grades by verdict; all but the judged ones are missing in the scores.", "verdict"),
    Figure("last_item_timestamp_seconds", "When an item was done last; at first, when the first began."),
)


class Tally:
    """What an evaluation has so far; counted by the loop that asks."""

    def __init__(self, num_items: int, now_unix: float) -> None:
        self.items = {"all": num_items, "done": 0}
        self.answers = {"ok": 0, "failed": 0}
        self.grades: Counter[str] = Counter({verdict.value: 0 for verdict in Verdict})
        self.last_item_unix = now_unix

    def add(self, answers: list[Answer], grades: list[Grade], now_unix: float) -> None:
        """An item is done."""
        self.items["done"] += 1
        for answer in answers:
            self.answers["failed" if answer.failure else "ok"] += 1
        self.grades.update(grade.verdict for grade in grades)
        self.last_item_unix = now_unix


def status_of(
    tally: Tally, seats: Mapping[str, DeskSnapshot], purse: PurseFigures | None, now_unix: float
) -> dict[str, Any]:
    """Numbers alone, and names of the run file's sections; `purse`: of the whole, where it has a budget."""
    return {
        "updated_unix": now_unix,
        "items": dict(tally.items),
        "answers": dict(tally.answers),
        "grades": dict(tally.grades),
        "last_item_unix": tally.last_item_unix,
        "seats": {name: _seat(snapshot) for name, snapshot in seats.items()},
        "purse": None if purse is None else asdict(purse),
    }


def _seat(snapshot: DeskSnapshot) -> dict[str, Any]:
    return {
        "calls": sum(step.attempts for step in snapshot.steps.values()),
        "tokens": snapshot.num_tokens,
        "cost_usd": snapshot.cost_usd,
        "budget_usd": snapshot.budget_usd or None,
        "refusals": snapshot.num_refusals,
        "in_flight": snapshot.num_in_flight,
    }


class Metrics:
    """Gauges named `ray_asclepius_evaluation_…`, set by the driver every other second."""

    def __init__(self, run: str) -> None:
        self._gauges = Gauges("evaluation", run, _FIGURES)

    def set(self, status: Mapping[str, Any]) -> None:
        """Tells what one look at the tally and the desks has found."""
        self._gauges.set("active", 1.0)
        for name in ("items", "answers", "grades"):
            self._gauges.set_members(name, status[name])
        self._gauges.set("last_item_timestamp_seconds", status["last_item_unix"])
        for figure in _OF_SEATS:
            members = {seat: values[figure.name] for seat, values in status["seats"].items()}
            self._gauges.set_members(figure.name, members)
        for name, value in (status["purse"] or {}).items():
            self._gauges.set(f"purse_{name}", value)

    def end(self, seats: Mapping[str, Any]) -> None:
        """The stage is over, while its process may go on."""
        self._gauges.set("active", 0.0)
        self._gauges.set_members("in_flight", dict.fromkeys(seats, 0.0))
