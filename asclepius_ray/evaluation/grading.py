"""Answers to one item and a judge → a grade for each, once in every order."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.evaluation.asking import Asker
from asclepius_ray.evaluation.judging import JudgeReply, label_of, parse_reply
from asclepius_ray.evaluation.records import Answer, Grade, Item, Verdict
from asclepius_ray.prompts.rendering import render_judge_prompt

ATTEMPTS = 2
"""An unreadable reply is asked for once more."""


@dataclass
class JudgeUsage:
    """What one judge was asked and said in this evaluation, replies found in the journal included."""

    requests: int = 0
    unreadable_replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def count(self, reply: Completion | Failure) -> None:
        self.requests += 1
        self.prompt_tokens += reply.prompt_tokens
        self.completion_tokens += reply.completion_tokens
        if isinstance(reply, Failure):
            self.failures[reply.reason.value] += 1


@dataclass(frozen=True)
class Judge:
    """One judge at work."""

    name: str
    asker: Asker
    reasons: bool
    usage: JudgeUsage


async def grade_together(
    item: Item, answers: Mapping[str, Answer], orders: Sequence[tuple[str, ...]], judge: Judge
) -> list[Grade]:
    """All models' answers in one prompt, as in the paper, in each order.

    Where one of them did not come, none is graded: all models are compared on the same items.
    """
    if any(answer.failure for answer in answers.values()):
        return [
            _ungraded(item, model, judge, number, place, Verdict.ANSWER_FAILED)
            for number, order in enumerate(orders)
            for place, model in enumerate(order)
        ]
    graded = await asyncio.gather(
        *(
            _grade(item, [answers[model] for model in order], number, judge)
            for number, order in enumerate(orders)
        )
    )
    return list(chain.from_iterable(graded))


async def grade_single(item: Item, answers: Mapping[str, Answer], judge: Judge) -> list[Grade]:
    """Each answer in a prompt of its own."""
    failed = [answer for answer in answers.values() if answer.failure]
    graded = await asyncio.gather(
        *(_grade(item, [answer], 0, judge) for answer in answers.values() if not answer.failure)
    )
    return [
        *(_ungraded(item, answer.model, judge, 0, 0, Verdict.ANSWER_FAILED) for answer in failed),
        *chain.from_iterable(graded),
    ]


async def _grade(item: Item, answers: Sequence[Answer], number: int, judge: Judge) -> list[Grade]:
    found = await _ask(item, [answer.text for answer in answers], judge)
    models = [answer.model for answer in answers]
    if isinstance(found, Verdict):
        return [_ungraded(item, model, judge, number, place, found) for place, model in enumerate(models)]
    replies = zip(models, found.grades, found.reasons, strict=True)
    return [
        Grade(item.item_id, model, judge.name, number, place, grade, Verdict.JUDGED.value, reason)
        for place, (model, grade, reason) in enumerate(replies)
    ]


async def _ask(item: Item, texts: Sequence[str], judge: Judge) -> JudgeReply | Verdict:
    labelled = [(label_of(place), text) for place, text in enumerate(texts)]
    sampling = judge.asker.seat.endpoint.sampling_of("judge")
    messages = tuple(render_judge_prompt(item.note, item.question, labelled, judge.reasons))
    for attempt in range(ATTEMPTS):
        request = Request("judge", messages, sampling.temperature, sampling.max_tokens, repeat=attempt)
        reply = await judge.asker.ask(request)
        judge.usage.count(reply)
        if isinstance(reply, Failure):
            return Verdict.JUDGE_FAILED
        if (found := parse_reply(reply.text, len(texts), judge.reasons)) is not None:
            return found
        judge.usage.unreadable_replies += 1
    return Verdict.JUDGE_UNREADABLE


def _ungraded(item: Item, model: str, judge: Judge, number: int, place: int, verdict: Verdict) -> Grade:
    return Grade(item.item_id, model, judge.name, number, place, None, verdict.value)
