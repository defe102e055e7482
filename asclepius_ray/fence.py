"""What this process asks before it makes an artefact whole or removes one: whether the root is still its own.

One process works on one root. Without a lease, as in a worker or where a library is used, nothing is asked.
"""

from collections.abc import Callable

_confirm: Callable[[], None] | None = None


def set_fence(confirm: Callable[[], None] | None) -> None:
    """From now on `confirm` is called before each commit; None takes it away."""
    global _confirm
    _confirm = confirm


def confirm_root() -> None:
    """Returns if the root is this run's, and ends the process if it is another's.

    While a bucket is away it waits; where the file system of a folder fails it raises that OSError.
    """
    if _confirm is not None:
        _confirm()
