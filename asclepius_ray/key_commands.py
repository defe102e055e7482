"""`asclepius keys`: makes, shows and revokes the keys of an endpoint, while it serves."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from asclepius_ray.serving.access.keys import KeyRecord

Place = Annotated[
    str,
    typer.Argument(
        metavar="ROOT_OR_FILE", help="The run's folder or URI (its keys.json is meant), or a file of keys."
    ),
]
HEADINGS = (
    "id",
    "name",
    "scopes",
    "requests/min",
    "tokens/min",
    "in flight",
    "created",
    "expires",
    "state",
)
output = Console(markup=False, highlight=False)


def create(  # noqa: PLR0913  # each is an option of the command
    place: Place,
    name: Annotated[str, typer.Option(help="Whose key it is; shown by the list, and by no log.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do: generate (the default) or metrics; may be repeated."),
    ] = None,
    requests_per_minute: Annotated[int, typer.Option(min=0, help="Over all replicas; 0 = no limit.")] = 0,
    tokens_per_minute: Annotated[
        int, typer.Option(min=0, help="Of prompts and answers, over all replicas; 0 = no limit.")
    ] = 0,
    in_flight: Annotated[
        int, typer.Option(min=0, help="Requests at the same time, over all replicas; 0 = no limit.")
    ] = 0,
    days: Annotated[
        float, typer.Option(help="After so many days, at most 36,500, it expires; 0 = never.")
    ] = 0,
) -> None:
    """Makes a key and prints it, this once: only its hash is kept. It holds within two seconds."""
    from asclepius_ray.serving.access.key_file import KeyFile
    from asclepius_ray.serving.access.keys import KeyLimits, make_key

    limits = KeyLimits(
        requests_per_minute=requests_per_minute, tokens_per_minute=tokens_per_minute, max_in_flight=in_flight
    )
    secret, record = make_key(name, scope or ["generate"], limits, days, datetime.now(UTC))
    KeyFile(place).change(lambda book: book.with_key(record))
    # The key alone on standard output, so that a script can put it where it belongs.
    Console(stderr=True, markup=False, highlight=False).print(
        f"{record.id} is made; its key is shown only here, and stands in no file:", soft_wrap=True
    )
    output.print(secret, soft_wrap=True)


def list_keys(place: Place) -> None:
    """Shows the keys: ids, names, scopes, limits and states; the keys themselves are kept nowhere."""
    from asclepius_ray.serving.access.key_file import KeyFile

    records = KeyFile(place).load().keys
    now = datetime.now(UTC)
    rows = [HEADINGS, *(_row(record, now) for record in records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows if records else ():
        # No table of rich's: it would cut the ids, which `revoke` wants whole.
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        output.print("  ".join(cells).rstrip(), soft_wrap=True)
    if not records:
        output.print("there are no keys yet", soft_wrap=True)


def _row(record: "KeyRecord", now: datetime) -> tuple[str, ...]:
    limits = record.limits
    counts = (limits.requests_per_minute, limits.tokens_per_minute, limits.max_in_flight)
    return (
        record.id,
        record.name,
        " ".join(sorted(record.scopes)),
        *(str(count) if count else "-" for count in counts),
        f"{record.created:%Y-%m-%d}",
        f"{record.expires:%Y-%m-%d}" if record.expires else "never",
        record.state(now),
    )


def revoke(
    place: Place, key_id: Annotated[str, typer.Argument(metavar="KEY_ID", help="The id that the list shows.")]
) -> None:
    """Revokes a key for ever; every replica refuses it within two seconds."""
    from asclepius_ray.serving.access.key_file import KeyFile

    KeyFile(place).change(lambda book: book.with_revoked(key_id, datetime.now(UTC)))
    output.print(f"{key_id} is revoked", soft_wrap=True)


HELP = "Makes, shows and revokes the keys of an endpoint, while it serves."
COMMANDS: dict[str, Callable[..., None]] = {"create": create, "list": list_keys, "revoke": revoke}
