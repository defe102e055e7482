"""The command `asclepius` within the tests' own process, on the Ray that it is connected to.

A command of its own starts Python, the libraries and a cluster anew, some twenty seconds of two cores; where
a test is about something else than that, it says the command here.
"""

import contextlib
from pathlib import Path
from unittest import mock

import ray
from typer.testing import CliRunner

from asclepius_ray.cli import app

PROJECT = Path(__file__).resolve().parents[1]
CONNECTING = ("asclepius_ray.doctor.examine.ray_session", "asclepius_ray.pipeline.ray_session")


def run_here(*arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `asclepius ARGUMENTS`."""
    assert ray.is_initialized()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(PROJECT))
        for name in CONNECTING:
            stack.enter_context(mock.patch(name, return_value=contextlib.nullcontext()))
        ended = CliRunner().invoke(app, arguments)
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.stdout, ended.stderr
