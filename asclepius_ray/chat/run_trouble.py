"""Trouble that ends a whole run → the error that its user is told."""

from collections.abc import Iterator
from contextlib import contextmanager

from asclepius_ray.chat.desk_link import RunTrouble
from asclepius_ray.chat.desk_messages import Trouble
from asclepius_ray.errors import BudgetError, EndpointError


@contextmanager
def trouble_as_error() -> Iterator[None]:
    """Raises an EndpointError, a BudgetError or an OSError for a RunTrouble."""
    try:
        yield
    except RunTrouble as stop:
        raise error_of(stop.trouble) from None


def error_of(trouble: Trouble) -> Exception:
    if trouble.kind == "storage":
        # Without a number, as one of a bucket: the command tells it as trouble with storage of any kind.
        return OSError(trouble.message)
    return BudgetError(trouble.message) if trouble.kind == "budget" else EndpointError(trouble.message)
