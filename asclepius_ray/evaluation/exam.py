"""All items, models and judges of an evaluation → every answer and every grade."""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.account import Account
from asclepius_ray.chat.durable_purse import DurablePurse
from asclepius_ray.chat.run_trouble import trouble_as_error
from asclepius_ray.evaluation.answering import ask_model, given_answers
from asclepius_ray.evaluation.asking import Asker, Seat, let_in_flight_end, open_asker, open_purse
from asclepius_ray.evaluation.config import EvaluationConfig, most_orders
from asclepius_ray.evaluation.grading import Judge, JudgeUsage, grade_single, grade_together
from asclepius_ray.evaluation.judging import draw_orders
from asclepius_ray.evaluation.metrics import Tally
from asclepius_ray.evaluation.records import Answer, Grade, Item, ItemKind
from asclepius_ray.evaluation.watching import watching
from asclepius_ray.progress import Progress

LONGEST_END_SECONDS = 10.0
SIGTERM_SECONDS = 1.5
"""So long answers on their way are waited for after SIGTERM: `ray job stop` leaves three seconds in all."""


@dataclass(frozen=True)
class Exam:
    """What is asked, and of whom.

    seats: the models that are asked, by name. given: the answers of the others, as their table has them.
    """

    items: Sequence[Item]
    seats: Mapping[str, Seat]
    given: Mapping[str, Sequence[str | None]]
    judges: Mapping[str, Seat]
    config: EvaluationConfig
    seed: int


@dataclass
class Outcome:
    """Every answer and grade, in the order of the items, models, judges, orders and places."""

    answers: list[Answer] = field(default_factory=list)
    grades: list[Grade] = field(default_factory=list)
    usage: dict[str, JudgeUsage] = field(default_factory=dict)


def hold(exam: Exam, root: Folder, progress: Progress) -> Outcome:
    """Asks and judges everything that the journals do not have; what is bought stays, whatever happens.

    Raises an EndpointError, a BudgetError or an OSError where it cannot go on.
    """
    with trouble_as_error():
        return _run_apart(_Session(exam, progress), root)


def _run_apart(session: "_Session", root: Folder) -> Outcome:
    """Runs it on a loop in a thread of its own.

    Ctrl-C and SIGTERM raise in the main thread alone: the work is then cancelled in order, and has time to
    make durable what is bought, where in the main thread they would tear the loop apart.
    """
    ended = threading.Event()
    tasks: list[asyncio.Task[Outcome] | None] = []

    async def tracked() -> Outcome:
        tasks.append(asyncio.current_task())
        try:
            return await session.run(root)
        finally:
            ended.set()

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True, name="evaluation")
    thread.start()
    running = asyncio.run_coroutine_threadsafe(tracked(), loop)

    def cancel() -> None:
        for task in tasks:
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)

    try:
        return running.result()
    except KeyboardInterrupt as stop:
        _end_in_order(cancel, ended, None if not stop.args else SIGTERM_SECONDS)
        raise
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(LONGEST_END_SECONDS)


def _end_in_order(cancel: Callable[[], None], ended: threading.Event, patience_seconds: float | None) -> None:
    """Cancels the work, and once more, which ends its waiting, after the patience or at another Ctrl-C."""
    cancel()
    try:
        if ended.wait(patience_seconds):
            return
    except KeyboardInterrupt:
        # What is bought is still to be made durable.
        pass
    cancel()
    ended.wait(LONGEST_END_SECONDS)


class _Session:
    def __init__(self, exam: Exam, progress: Progress) -> None:
        self._exam = exam
        self._progress = progress
        self._usage = {name: JudgeUsage() for name in exam.judges}
        test_items = [item for item in exam.items if item.kind == ItemKind.TEST.value]
        self._given = {
            model: {answer.item_id: answer for answer in given_answers(test_items, model, texts)}
            for model, texts in exam.given.items()
        }
        self._tally = Tally(len(exam.items), time.time())

    async def run(self, root: Folder) -> Outcome:
        exam = self._exam
        asked_of = [*exam.seats.values(), *exam.judges.values()]
        purse = await asyncio.to_thread(open_purse, root, exam.config.budget_usd)
        accounts = _open_accounts(asked_of, purse)
        async with AsyncExitStack() as stack:

            async def opened(seat: Seat) -> Asker:
                return await stack.enter_async_context(open_asker(root, seat, accounts[_account_of(seat)]))

            askers = {model: await opened(seat) for model, seat in exam.seats.items()}
            judges = [
                Judge(name, await opened(seat), exam.config.reasons, self._usage[name])
                for name, seat in exam.judges.items()
            ]
            asked = [*askers.values(), *(judge.asker for judge in judges)]
            seats = {asker.seat.name: asker for asker in asked}
            await stack.enter_async_context(watching(root, self._tally, seats, purse))
            try:
                done = await self._ask_items(askers, judges)
            except BaseException:
                await let_in_flight_end(asked, self._progress.say)
                raise
        outcome = Outcome(usage=self._usage)
        for answers, grades in done:
            outcome.answers += answers
            outcome.grades += grades
        return outcome

    async def _ask_items(
        self, askers: Mapping[str, Asker], judges: Sequence[Judge]
    ) -> list[tuple[list[Answer], list[Grade]]]:
        exam = self._exam
        orders = self._draw_orders()
        places = asyncio.Semaphore(exam.config.max_in_flight)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._ask_item(item, orders[item.item_id], askers, judges, places))
                    for item in exam.items
                ]
        except ExceptionGroup as errors:
            # What ends a run ends every request at once; the first of these equal errors says it all.
            raise errors.exceptions[0] from None
        return [task.result() for task in tasks]

    def _draw_orders(self) -> dict[str, list[tuple[str, ...]]]:
        """Balanced over the items that the scores are made of, and over those that were made here apart: a
        table has no answers to these."""
        config = self._exam.config
        found: dict[str, list[tuple[str, ...]]] = {}
        for kind in ItemKind:
            ids = [item.item_id for item in self._exam.items if item.kind == kind.value]
            models = [m for m in config.models if kind is ItemKind.TEST or m not in self._given]
            num_orders = min(config.num_orders, most_orders(len(models)))
            found |= dict(zip(ids, draw_orders(ids, models, self._exam.seed, num_orders), strict=True))
        return found

    async def _ask_item(
        self,
        item: Item,
        orders: Sequence[tuple[str, ...]],
        askers: Mapping[str, Asker],
        judges: Sequence[Judge],
        places: asyncio.Semaphore,
    ) -> tuple[list[Answer], list[Grade]]:
        async with places:
            answers = await self._answers(item, askers)
            graded = await asyncio.gather(*(self._grade(item, answers, orders, judge) for judge in judges))
        done = list(answers.values()), [grade for grades in graded for grade in grades]
        self._tally.add(*done, time.time())
        self._progress.update(self._tally.items["done"])
        return done

    async def _answers(self, item: Item, askers: Mapping[str, Asker]) -> dict[str, Answer]:
        longest = self._exam.config.max_new_tokens
        asked = await asyncio.gather(
            *(ask_model(item, model, asker, longest) for model, asker in askers.items())
        )
        found = {answer.model: answer for answer in asked}
        # A table has no answers to the items that were made here.
        given = {model: answers.get(item.item_id) for model, answers in self._given.items()}
        found |= {model: answer for model, answer in given.items() if answer is not None}
        return {model: found[model] for model in self._exam.config.models if model in found}

    async def _grade(
        self, item: Item, answers: Mapping[str, Answer], orders: Sequence[tuple[str, ...]], judge: Judge
    ) -> list[Grade]:
        if self._exam.config.protocol == "single":
            return await grade_single(item, answers, judge)
        return await grade_together(item, answers, orders, judge)


def _open_accounts(seats: Sequence[Seat], purse: DurablePurse | None) -> dict[str, Account]:
    """One for each that the seats name; all of them pay from one purse, if there is a budget."""
    return {_account_of(seat): Account.of(seat.endpoint, purse) for seat in seats}


def _account_of(seat: Seat) -> str:
    return seat.account or seat.name
