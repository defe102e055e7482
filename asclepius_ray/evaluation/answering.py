"""Asks the models for answers and the judge for grades, over HTTP → one GradedAnswer per item and model."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from asclepius_ray.chat.client import ChatClient
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import LocalGate
from asclepius_ray.chat.limiter import Limits
from asclepius_ray.evaluation.judging import draw_orders, label_of, parse_grades
from asclepius_ray.evaluation.scores import GradedAnswer, Verdict
from asclepius_ray.evaluation.test_set import Item
from asclepius_ray.prompts.rendering import render_instruction, render_judge_prompt
from asclepius_ray.records import Message

JUDGE_ATTEMPTS = 2
"""An unreadable reply is asked for once more."""


@dataclass
class JudgeUsage:
    """What the judge read and wrote, unreadable replies included."""

    requests: int = 0
    unreadable_replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class GradingSettings:
    seed: int
    max_new_tokens: int
    max_in_flight: int


@dataclass(frozen=True)
class Panel:
    """The open clients of one evaluation."""

    models: Mapping[str, ChatClient]
    judge: ChatClient
    judge_endpoint: Endpoint
    max_new_tokens: int
    usage: JudgeUsage


def grade_items(
    items: Sequence[Item],
    models: Mapping[str, Endpoint],
    judge: Endpoint,
    settings: GradingSettings,
    report_done: Callable[[int], None],
) -> tuple[list[GradedAnswer], JudgeUsage]:
    """Answers and grades of all items, in the order of the items and of the models' names."""
    return asyncio.run(_grade_items(items, models, judge, settings, report_done))


async def _grade_items(
    items: Sequence[Item],
    models: Mapping[str, Endpoint],
    judge: Endpoint,
    settings: GradingSettings,
    report_done: Callable[[int], None],
) -> tuple[list[GradedAnswer], JudgeUsage]:
    usage = JudgeUsage()
    panel = Panel(
        models={name: _open_client(models[name], settings) for name in sorted(models)},
        judge=_open_client(judge, settings),
        judge_endpoint=judge,
        max_new_tokens=settings.max_new_tokens,
        usage=usage,
    )
    orders = draw_orders([item.item_id for item in items], list(models), settings.seed)
    places = asyncio.Semaphore(settings.max_in_flight)
    num_done = 0

    async def grade(item: Item, order: tuple[str, ...]) -> list[GradedAnswer]:
        nonlocal num_done
        async with places:
            graded = await _grade_item(item, order, panel)
        num_done += 1
        report_done(num_done)
        return graded

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(grade(item, order)) for item, order in zip(items, orders, strict=True)]
    except ExceptionGroup as errors:
        # A refused key ends every request at once; the first of these equal errors says it all.
        raise errors.exceptions[0] from None
    finally:
        for client in (*panel.models.values(), panel.judge):
            await client.close()
    return [answer for task in tasks for answer in task.result()], usage


def _open_client(endpoint: Endpoint, settings: GradingSettings) -> ChatClient:
    limit = endpoint.max_in_flight or settings.max_in_flight
    limits = Limits(endpoint.requests_per_minute, endpoint.tokens_per_minute)
    return ChatClient(endpoint, LocalGate(limits, min(limit, settings.max_in_flight)))


async def _grade_item(item: Item, order: tuple[str, ...], panel: Panel) -> list[GradedAnswer]:
    names = list(panel.models)
    answers = dict(
        zip(names, await asyncio.gather(*(_ask_model(item, name, panel) for name in names)), strict=True)
    )
    if any(answer.failure for answer in answers.values()):
        return list(answers.values())
    verdict, grades = await _ask_judge(item, [(name, answers[name].answer) for name in order], panel)
    return [
        replace(
            answers[name],
            verdict=verdict,
            grade=grades[order.index(name)] if grades else None,
            place=order.index(name),
        )
        for name in names
    ]


async def _ask_model(item: Item, name: str, panel: Panel) -> GradedAnswer:
    """The model's answer; one that ends at the token limit, or at once, is an answer too."""
    request = Request(
        step="answer",
        messages=(Message("user", render_instruction(item.asked_note, item.question)),),
        temperature=0.0,
        max_tokens=panel.max_new_tokens,
        accept_truncated=True,
        accept_empty=True,
    )
    reply = await panel.models[name].complete(request)
    unanswered = GradedAnswer(
        item_id=item.item_id,
        task=item.task,
        model=name,
        answer="",
        finish_reason="",
        failure=reply.reason.value if isinstance(reply, Failure) else "",
        verdict=Verdict.ANSWER_FAILED,
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )
    if isinstance(reply, Failure):
        return unanswered
    return replace(unanswered, answer=reply.text, finish_reason=reply.finish_reason)


async def _ask_judge(
    item: Item, answers: Sequence[tuple[str, str]], panel: Panel
) -> tuple[Verdict, tuple[int, ...] | None]:
    labelled = [(label_of(place), text) for place, (_, text) in enumerate(answers)]
    sampling = panel.judge_endpoint.sampling_of("judge")
    request = Request(
        step="judge",
        messages=tuple(render_judge_prompt(item.note, item.question, labelled)),
        temperature=sampling.temperature,
        max_tokens=sampling.max_tokens,
    )
    for _ in range(JUDGE_ATTEMPTS):
        reply = await panel.judge.complete(request)
        _count_reply(reply, panel.usage)
        if isinstance(reply, Failure):
            return Verdict.JUDGE_FAILED, None
        if grades := parse_grades(reply.text, len(answers)):
            return Verdict.JUDGED, grades
        panel.usage.unreadable_replies += 1
    return Verdict.JUDGE_UNREADABLE, None


def _count_reply(reply: Completion | Failure, usage: JudgeUsage) -> None:
    usage.requests += 1
    usage.prompt_tokens += reply.prompt_tokens
    usage.completion_tokens += reply.completion_tokens
    if isinstance(reply, Failure):
        usage.failures[reply.reason.value] = usage.failures.get(reply.reason.value, 0) + 1
