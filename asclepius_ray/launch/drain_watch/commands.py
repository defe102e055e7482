"""`asclepius drain-watch` as the command line knows it; only what `--help` needs is imported."""

from functools import partial
from typing import Annotated

import typer
from rich.console import Console

output = Console(markup=False, highlight=False)


def drain_watch(  # noqa: PLR0913  # each is an option of the command
    provider: Annotated[
        str, typer.Option(metavar="aws|gcp|auto", help="Whose notices; auto takes the cloud that answers.")
    ] = "auto",
    address: Annotated[
        str, typer.Option(metavar="URL", help="The metadata service's address; another one is for tests.")
    ] = "http://169.254.169.254",
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="How often is looked for a notice.")] = 5.0,
    now: Annotated[
        bool, typer.Option("--now", help="Drains at once, without a notice: for a pod's preStop hook.")
    ] = False,
    grace_seconds: Annotated[
        float,
        typer.Option(
            min=0, help="What is left where a notice names no time, and with --now; 0 = the cloud's promise."
        ),
    ] = 0.0,
    rebalance: Annotated[
        bool, typer.Option("--rebalance", help="Drains on AWS's rebalance recommendation too.")
    ] = False,
    node: Annotated[
        str, typer.Option(metavar="ID", help="This Ray node alone; by default all nodes of this machine.")
    ] = "",
) -> None:
    """Drains this machine's Ray nodes when its cloud is about to take it away."""
    from asclepius_ray.launch.drain_watch.command import WatchOptions, watch_and_drain

    options = WatchOptions(provider, address, poll_seconds, now, grace_seconds, rebalance, node)
    watch_and_drain(options, partial(output.print, soft_wrap=True))
