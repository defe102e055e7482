"""A few rows of the input, asked for real → calls, tokens, money and hours of the whole synthesis.

The answers stay in the run's journal, so that the run itself does not pay them again.
"""

import asyncio
import math
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import ray

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.client import check_endpoint
from asclepius_ray.chat.config import PriceConfig
from asclepius_ray.chat.desk_snapshot import DeskSnapshot
from asclepius_ray.chat.prices import cost_usd
from asclepius_ray.chat.run_trouble import trouble_as_error
from asclepius_ray.errors import ConfigError
from asclepius_ray.progress import Progress
from asclepius_ray.synthesis.desk_actor import open_desk
from asclepius_ray.synthesis.reports import load_reports
from asclepius_ray.synthesis.stage import JOURNAL_NAME, Order
from asclepius_ray.synthesis.steps import STEPS, Demands
from asclepius_ray.synthesis.walk import RowResult, StepUsage, Walk
from asclepius_ray.synthesis.workers import Crew, read_rows, walk_reports


@dataclass(frozen=True)
class PresentLimits:
    """None = unlimited, as far as anybody knows."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


@dataclass(frozen=True)
class Spread:
    """How the tokens of a step are spread over the sampled rows that came to it."""

    step: str
    num_rows: int
    prompt_p50: int
    prompt_p90: int
    completion_p50: int
    completion_p90: int


@dataclass(frozen=True)
class Estimate:
    """What the whole input will need, by the means of the sample."""

    num_rows: int
    num_sampled: int
    num_ok: int
    num_failed: int
    calls: int
    tokens: int
    cost_usd: float | None
    """None = unknown: the run file gives no price."""
    hours: float | None
    """At the present limits, the run file's or those that the endpoint has told; None where there is none."""
    spreads: tuple[Spread, ...]
    note_characters: float
    """The mean over the sampled rows that came through; 0 where none did."""
    question_characters: float
    answer_characters: float


def estimate(
    root: Folder, order: Order, num_sampled: int, progress: Progress, price: PriceConfig | None
) -> Estimate:
    """Asks the first rows of the input, those of the pilot round at most, and reckons for all of it.

    `price` is that of the whole synthesis; the sample is asked call by call, at the price of its teacher.
    """
    asyncio.run(check_endpoint(order.teacher))
    progress.begin("reading the input")
    # A row behind the pilot round needs the questions of all that round.
    num_sampled = min(num_sampled, order.config.pilot_rows)
    if not num_sampled:
        raise ConfigError(
            "an estimate asks rows of the pilot round, and there is none: set synthesis.pilot_rows"
        )
    num_rows = load_reports(order.input, order.config.workers, order.config.pilot_rows).num_rows
    limit = min(num_sampled, order.input.limit or num_sampled)
    sample = load_reports(order.input.model_copy(update={"limit": limit}), 1, order.config.pilot_rows)
    demands = Demands.from_config(order.config)
    walk = Walk(
        order.teacher, order.seed, demands, order.input.kind == "notes", pilot_rows=order.config.pilot_rows
    )
    progress.begin("asking a sample", sample.num_rows)
    with trouble_as_error(), open_desk(root.child(JOURNAL_NAME), order.teacher) as desk:
        with closing(walk_reports(sample, Crew(walk, desk, root, order.config.cpus_per_worker), 1)) as blocks:
            results = list(read_rows(blocks))
        seen: DeskSnapshot = ray.get(desk.snapshot.remote())
    limits = PresentLimits(seen.requests_per_minute, seen.tokens_per_minute)
    return reckon(results, num_rows, price, limits)


def reckon(
    results: Sequence[RowResult], num_rows: int, price: PriceConfig | None, limits: PresentLimits
) -> Estimate:
    """The sample's means, times all rows. Pure."""
    if not results:
        raise ConfigError("no row of the input can be read, so there is nothing to estimate from")
    used = sum((usage for result in results for usage in result.usage.values()), StepUsage())
    scale = num_rows / len(results)
    cost = cost_usd(price, used.prompt_tokens, used.completion_tokens)
    calls, tokens = used.calls * scale, (used.prompt_tokens + used.completion_tokens) * scale
    minutes = [
        needed / limit
        for needed, limit in ((calls, limits.requests_per_minute), (tokens, limits.tokens_per_minute))
        if limit is not None
    ]
    return Estimate(
        num_rows=num_rows,
        num_sampled=len(results),
        num_ok=sum(result.state == "ok" for result in results),
        num_failed=sum(result.state == "failed" for result in results),
        calls=math.ceil(calls),
        tokens=math.ceil(tokens),
        cost_usd=None if cost is None else cost * scale,
        hours=max(minutes) / 60 if minutes else None,
        spreads=tuple(spread for step in STEPS if (spread := _spread_of(step, results)) is not None),
        note_characters=_mean_length([result.note for result in results if result.state == "ok"]),
        question_characters=_mean_length([result.question for result in results if result.state == "ok"]),
        answer_characters=_mean_length([result.answer for result in results if result.state == "ok"]),
    )


def _mean_length(texts: Sequence[str]) -> float:
    return sum(map(len, texts)) / len(texts) if texts else 0.0


def _spread_of(step: str, results: Sequence[RowResult]) -> Spread | None:
    used = [result.usage[step] for result in results if step in result.usage]
    if not used:
        return None
    prompts = sorted(usage.prompt_tokens for usage in used)
    completions = sorted(usage.completion_tokens for usage in used)
    at = [_nearest_rank(values, share) for values in (prompts, completions) for share in (0.5, 0.9)]
    return Spread(step, len(used), *at)


def _nearest_rank(ordered: Sequence[int], share: float) -> int:
    return ordered[math.ceil(share * len(ordered)) - 1]
