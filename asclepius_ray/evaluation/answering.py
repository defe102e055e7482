"""Items and a model → its answers: asked over HTTP, or as the table has them."""

from collections.abc import Sequence

from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.exchange import Completion, Failure, Request
from asclepius_ray.evaluation.asking import Asker
from asclepius_ray.evaluation.records import Answer, Item
from asclepius_ray.prompts.rendering import render_instruction
from asclepius_ray.records import Message

NOT_GIVEN = "not_in_the_table"
"""The failure of an answer whose cell holds nothing."""


async def ask_model(item: Item, model: str, asker: Asker, max_new_tokens: int) -> Answer:
    """The model's answer, the likeliest one unless its section says otherwise; one that ends at the token
    limit, or at once, is an answer too."""
    request = Request(
        step="answer",
        messages=(Message("user", render_instruction(item.asked_note, item.question)),),
        temperature=temperature_of(asker.seat.endpoint),
        max_tokens=max_new_tokens,
        accept_truncated=True,
        accept_empty=True,
    )
    return answer_of(item, model, await asker.ask(request))


def temperature_of(endpoint: Endpoint) -> float:
    """0, the likeliest answer, unless the model's section names another."""
    sampling = endpoint.sampling.get("answer")
    return sampling.temperature if sampling and "temperature" in sampling.model_fields_set else 0.0


def answer_of(item: Item, model: str, reply: Completion | Failure) -> Answer:
    return Answer(
        item_id=item.item_id,
        model=model,
        text="" if isinstance(reply, Failure) else reply.text,
        finish_reason="" if isinstance(reply, Failure) else reply.finish_reason,
        failure=reply.reason.value if isinstance(reply, Failure) else "",
        prompt_tokens=reply.prompt_tokens,
        completion_tokens=reply.completion_tokens,
    )


def given_answers(items: Sequence[Item], model: str, texts: Sequence[str | None]) -> list[Answer]:
    """The answers that the table has for its items, in their order."""
    return [
        Answer(item.item_id, model, text or "", "", NOT_GIVEN if text is None else "")
        for item, text in zip(items, texts, strict=True)
    ]
