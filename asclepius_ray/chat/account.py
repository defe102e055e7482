"""What desks of one process share: an account's rates and places in flight, and a purse beside their own."""

import time
from dataclasses import dataclass

from asclepius_ray.chat.durable_purse import DurablePurse
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.chat.limiter import Limiter, Limits
from asclepius_ray.chat.quotas import Quotas


@dataclass(frozen=True)
class Account:
    """What each desk sends counts for all. A worker's name is its own among all desks of the account.

    purse: paid from beside the desk's own; other accounts may pay from it too.
    """

    limiter: Limiter
    quotas: Quotas
    purse: DurablePurse | None = None

    @classmethod
    def of(cls, endpoint: Endpoint, purse: DurablePurse | None = None) -> "Account":
        """One with the limits of the endpoint's section, and nothing sent yet."""
        limits = Limits(endpoint.requests_per_minute, endpoint.tokens_per_minute)
        return cls(Limiter(limits, time.monotonic()), Quotas(endpoint.max_in_flight), purse)
