"""The end of a process that holds its root no more."""

import os
import sys
from typing import NoReturn

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import LeaseError
from asclepius_ray.lease.holder import read_holder


def end_taken_over(folder: Folder) -> NoReturn:
    """Ends this process on the spot: to clean up now would be to remove what the new holder writes."""
    try:
        new_holder = str(read_holder(folder))
    except (OSError, LeaseError):
        new_holder = "another run"
    end_now(f"{folder.shown} was taken over by {new_holder}: this run ends")


def end_now(reason: str) -> NoReturn:
    sys.stderr.write(f"error: {reason}\n")
    sys.stderr.flush()
    os._exit(LeaseError.exit_code)
