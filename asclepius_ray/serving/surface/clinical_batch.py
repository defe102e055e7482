"""POST /v1/clinical/answers/batch: many notes in one request, each answered or failed on its own.

Items wait for room among the other requests; they are never refused because the replica is full.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Send

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.admission.ticket import OWN_ENDS
from asclepius_ray.serving.engines.engine import EngineError
from asclepius_ray.serving.surface.api_errors import ApiError, deadline_exceeded, engine_unavailable
from asclepius_ray.serving.surface.body_checks import check_body
from asclepius_ray.serving.surface.clinical import ClinicalShape, plan_clinical
from asclepius_ray.serving.surface.clinical_schemas import BatchBody, BatchItem
from asclepius_ray.serving.surface.request_body import read_object
from asclepius_ray.serving.surface.responding import check_engine, size_of, whole_pieces
from asclepius_ray.serving.surface.served_model import ServedModel, choose_model
from asclepius_ray.serving.surface.watch import ClientGoneError, work_for_client

ITEMS_AT_A_TIME = 16
"""Of one batch: enough to fill the engine's steps, and room is left for those who wait at a screen."""


async def answer_batch(models: Mapping[str, ServedModel], request: Request, send: Send) -> None:
    body = check_body(BatchBody, await read_object(request))
    model = choose_model(models, body.model)
    batch = _Batch(model, body, request.state.account)
    try:
        answer = await work_for_client(batch.answer(), request.receive, None)
    except ClientGoneError:
        batch.account.outcome = "cancelled"
        return
    await JSONResponse(answer)(request.scope, request.receive, send)


class _Batch:
    def __init__(self, model: ServedModel, body: BatchBody, account: Account) -> None:
        self.account = account
        self._model = model
        self._body = body
        self._places = asyncio.Semaphore(ITEMS_AT_A_TIME)
        self._outcomes = [""] * len(body.items)

    async def answer(self) -> dict[str, Any]:
        """The body of the response; its answers stand in the order of the items."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._settled(index, item)) for index, item in enumerate(self._body.items)
            ]
        self.account.outcome = self._outcome
        return {
            "id": f"clinical-batch-{self.account.request_id}",
            "model": self._model.name,
            "items": [task.result() for task in tasks],
            "usage": {
                "prompt_tokens": self.account.prompt_tokens,
                "completion_tokens": self.account.completion_tokens,
                "total_tokens": self.account.prompt_tokens + self.account.completion_tokens,
            },
        }

    @property
    def _outcome(self) -> str:
        """As of several answers to one request: that of the first which has no end of its own."""
        cut_short = (outcome for outcome in self._outcomes if outcome not in OWN_ENDS)
        return next(cut_short, "length" if "length" in self._outcomes else "stop")

    async def _settled(self, index: int, values: object) -> dict[str, Any]:
        item_id = _sent_id(values)
        settled = {"index": index, "id": item_id, "answer": None, "error": None}
        own = _account_of_item(self.account, index)
        try:
            item = check_body(BatchItem, values)
            async with self._places:
                return settled | {"answer": await self._answered(own, item)}
        except ApiError as error:
            own.outcome = own.outcome or ("refused" if error.status < 500 else "error")
            return settled | {"error": error.fields}
        except EngineError:
            own.outcome = "error"
            return settled | {"error": engine_unavailable().fields}
        finally:
            self._outcomes[index] = own.outcome

    async def _answered(self, own: Account, item: BatchItem) -> dict[str, Any]:
        answering, note = await plan_clinical(self._model, item, self._body)
        check_engine(answering.model)
        asked_at = time.monotonic()
        ticket = await answering.model.admission.admit_when_there_is_room(own, size_of(answering))
        # The figure of the first token is for those who wait at a screen; a batch's line is no part of it.
        own.started = ticket.admitted_at
        own.queue_seconds = own.started - asked_at
        outcome = "error"
        shape = ClinicalShape(f"clinical-{own.request_id}", answering, note, own)
        try:
            async with asyncio.timeout(ticket.seconds_left):
                body = await shape.whole(await whole_pieces(answering, ticket))
            outcome = answering.outcome
            return body
        except TimeoutError:
            outcome = "deadline"
            raise deadline_exceeded() from None
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            ticket.close(outcome)
            self._add_up(own)

    def _add_up(self, own: Account) -> None:
        self.account.model = own.model
        self.account.prompt_tokens += own.prompt_tokens
        self.account.completion_tokens += own.completion_tokens
        if self.account.first_token_seconds is None and own.first_token_seconds is not None:
            self.account.first_token_seconds = own.started + own.first_token_seconds - self.account.started


def _account_of_item(account: Account, index: int) -> Account:
    return replace(
        account,
        request_id=f"{account.request_id}-{index}",
        started=time.monotonic(),
        prompt_tokens=0,
        completion_tokens=0,
        queue_seconds=None,
        first_token_seconds=None,
    )


def _sent_id(values: object) -> str | None:
    """The item's own id where it has a readable one, so that its error can be told from the others."""
    sent = values.get("id") if isinstance(values, dict) else None
    return sent if isinstance(sent, str) and 0 < len(sent) <= 200 else None
