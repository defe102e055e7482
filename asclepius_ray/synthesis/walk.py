"""One case report → its note, question and answer, or the step and the reason where the row ended.

The three steps of a row follow each other at once; there is no barrier between the steps of all rows.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import pyarrow as pa

from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.chat.gate import Patience
from asclepius_ray.records import CaseReport, Example, Message, Rejection
from asclepius_ray.synthesis.question_pool import QuestionPool
from asclepius_ray.synthesis.steps import (
    STEPS,
    Demands,
    build_messages,
    clean_step_reply,
    draw_task,
    find_step_fault,
)

QUARANTINED = "quarantined"
PENDING = "pending"


@dataclass(frozen=True)
class StepUsage:
    """What one step of one row, or of all rows, has used; `calls` counts repeated attempts too."""

    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def __add__(self, other: "StepUsage") -> "StepUsage":
        return StepUsage(
            self.calls + other.calls,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
        )


@dataclass(frozen=True)
class RowResult:
    """The one state in which a row ends: "ok", "rejected" or "failed".

    stage and reason are "" for an ok row. A text is "" from the step on where the row ended; a note that
    was accepted is kept although its question or answer was not.
    """

    row_index: int
    row_id: str
    patient_id: int
    patient_uid: str
    article: str
    state: str
    stage: str
    reason: str
    note: str
    question: str
    answer: str
    task: str
    usage: Mapping[str, StepUsage]
    is_usage_estimated: bool = False
    """The teacher did not report the tokens of every reply."""
    models: tuple[str, ...] = ()
    """What the replies call the models that wrote them."""

    @property
    def example(self) -> Example:
        return Example(**{name: getattr(self, name) for name in Example.__dataclass_fields__})

    @property
    def rejection(self) -> Rejection:
        return Rejection(**{name: getattr(self, name) for name in Rejection.__dataclass_fields__})

    def to_row(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "RowResult":
        usage = {step: StepUsage(**used) for step, used in row["usage"].items() if used is not None}
        return cls(**{**row, "usage": usage, "models": tuple(row["models"])})


_USAGE = pa.struct([(name, pa.int64()) for name in StepUsage.__dataclass_fields__])
RESULT_SCHEMA = pa.schema(
    [("row_index", pa.int64()), ("row_id", pa.string()), ("patient_id", pa.int64())]
    + [(name, pa.string()) for name in ("patient_uid", "article", "state", "stage", "reason")]
    + [(name, pa.string()) for name in ("note", "question", "answer", "task")]
    + [("usage", pa.struct([(step, _USAGE) for step in STEPS])), ("is_usage_estimated", pa.bool_())]
    + [("models", pa.list_(pa.string()))]
)


class Asker(Protocol):
    """Answers requests: bought from the teacher, or out of the journal."""

    async def complete(self, request: Request, patience: Patience) -> Completion | Failure:
        """The answer, or why there is none."""


PoolSource = Callable[[], Awaitable[QuestionPool]]


@dataclass(frozen=True)
class Walk:
    """How rows are walked; the same for every row of a run, and the same in every worker."""

    teacher: Endpoint
    seed: int
    demands: Demands
    text_is_note: bool
    """The input holds notes already: the first step is left out, and the text stays as it is."""
    pilot_rows: int = 0
    """Rows of the input before this one are asked with seed questions alone."""

    async def walk_row(self, report: CaseReport, asker: Asker, pool: PoolSource) -> RowResult:
        """Asks the teacher step by step and stops at the first reply that is missing or unfit."""
        patience = Patience(self.teacher.max_retry_seconds)
        texts = {"note": report.text} if self.text_is_note else {}
        replies: dict[str, Completion | Failure] = {}
        for step in STEPS[len(texts) :]:
            examples = await self._examples(step, report, pool)
            messages = build_messages(step, report, texts, self.seed, examples)
            request = self._request(step, messages, is_urgent=report.row_index < self.pilot_rows)
            reply = await asker.complete(request, patience)
            replies[step] = reply
            if isinstance(reply, Failure):
                return self._result(report, texts, replies, ("failed", step, reply.reason.value))
            text = clean_step_reply(step, reply.text)
            fault = find_step_fault(step, text, report.text, texts, self.demands)
            if fault is not None:
                return self._result(report, texts, replies, ("rejected", step, fault.value))
            texts[step] = text
        return self._result(report, texts, replies, ("ok", "", ""))

    def give_up_row(self, report: CaseReport) -> RowResult:
        """The result of a row that has killed its worker again and again."""
        return self._result(report, {}, {}, ("failed", STEPS[0], QUARANTINED))

    def leave_row(self, report: CaseReport) -> RowResult:
        """The result of a row that cannot go on before something else is bought."""
        return self._result(report, {}, {}, (PENDING, "", ""))

    async def _examples(self, step: str, report: CaseReport, pool: PoolSource) -> QuestionPool:
        if step != "question" or report.row_index < self.pilot_rows:
            return QuestionPool()
        return await pool()

    def _request(self, step: str, messages: list[Message], is_urgent: bool) -> Request:
        sampling = self.teacher.sampling_of(step)
        return Request(
            step=step,
            messages=tuple(messages),
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            is_urgent=is_urgent,
        )

    def _result(
        self,
        report: CaseReport,
        texts: Mapping[str, str],
        replies: Mapping[str, Completion | Failure],
        ending: tuple[str, str, str],
    ) -> RowResult:
        state, stage, reason = ending
        return RowResult(
            row_index=report.row_index,
            row_id=report.row_id,
            patient_id=report.patient_id,
            patient_uid=report.patient_uid,
            article=report.article,
            state=state,
            stage=stage,
            reason=reason,
            note=texts.get("note", ""),
            question=texts.get("question", ""),
            answer=texts.get("answer", ""),
            task=draw_task(self.seed, report.row_id).value,
            usage={
                step: StepUsage(reply.attempts, reply.prompt_tokens, reply.completion_tokens)
                for step, reply in replies.items()
            },
            is_usage_estimated=any(reply.is_usage_estimated for reply in replies.values()),
            models=tuple(
                sorted({reply.model for reply in replies.values() if isinstance(reply, Completion)})
            ),
        )
