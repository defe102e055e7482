"""A key's limits in front of a request: refused at once, or waited for."""

import asyncio

from asclepius_ray.serving.access.account import Account
from asclepius_ray.serving.access.allowance import LimitRefusal
from asclepius_ray.serving.access.limit_link import LimitLink, LimitTicket
from asclepius_ray.serving.admission.ticket import Size
from asclepius_ray.serving.meters import Meters
from asclepius_ray.serving.surface.api_errors import ApiError, whole_seconds

NAMES = {
    "key_requests": "requests per minute",
    "key_tokens": "tokens per minute",
    "key_in_flight": "requests at the same time",
}


async def take_limit(link: LimitLink, account: Account, size: Size, meters: Meters) -> LimitTicket:
    """Takes the request from what the key may have; an ApiError (429) says which limit is reached."""
    found = await link.take(account.caller, size.paid_tokens)
    if isinstance(found, LimitTicket):
        return found
    account.outcome, account.model = found.reason, size.model
    meters.refused(found.reason, size.model)
    raise ApiError(
        429,
        "rate_limit_exceeded",
        f"This key's limit is reached ({NAMES[found.reason]}); try again later.",
        retry_after_seconds=whole_seconds(found.wait_seconds),
    )


async def wait_for_limit(link: LimitLink, account: Account, size: Size) -> LimitTicket | None:
    """The same as soon as the key may have it, in the order of asking; None for a key without limits."""
    if not account.caller.limits:
        return None
    async with link.turn_of(account.caller.key_id):
        while isinstance(found := await link.take(account.caller, size.paid_tokens), LimitRefusal):
            await asyncio.sleep(found.wait_seconds)
    return found
