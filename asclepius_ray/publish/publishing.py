"""A run's root → its dataset, its model or both, given away: all checks, then all files, then the sign."""

from collections.abc import Callable
from dataclasses import dataclass

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ConfigError
from asclepius_ray.progress import Progress
from asclepius_ray.publish.bucket import place_of, publish_to_folder
from asclepius_ray.publish.destination import Repository, parse_destination
from asclepius_ray.publish.hub import address_of, publish_to_hub
from asclepius_ray.publish.publication import (
    JOB_OF,
    Publication,
    check_hashes,
    open_run,
    read_publication,
)

Say = Callable[[str], None]
TOKEN_VARIABLE = "HF_TOKEN"


@dataclass(frozen=True)
class Order:
    """What the user asked for."""

    to: str
    kinds: tuple[str, ...] = tuple(JOB_OF)
    """"dataset", "model" or both."""
    is_public: bool = False
    """A repository of the hub is opened to everybody."""
    allow_real_notes: bool = False
    allow_unknown_origin: bool = False
    """Of the rows that the model has learnt, where they are of a data set from elsewhere."""
    dry_run: bool = False


def publish(root: Folder, order: Order, token: str, progress: Progress, say: Say) -> None:
    """Publishes, or only shows what would go out; an error of this project says why nothing did."""
    destination = parse_destination(order.to)
    if isinstance(destination, Folder) and order.is_public:
        raise ConfigError(
            f"--public opens a repository of the hub; who may read {order.to} is set where that place is kept"
        )
    if isinstance(destination, Repository) and not (token or order.dry_run):
        raise ConfigError(f"the environment variable {TOKEN_VARIABLE} is not set; put the hub's key there")
    open_run(root, order.kinds, order.allow_real_notes)
    publications = [read_publication(root, kind, order.allow_unknown_origin) for kind in order.kinds]
    _check_files(publications, progress)
    if order.dry_run:
        _say_what_would_go(publications, destination, order.is_public, say)
        return
    if isinstance(destination, Repository):
        places = publish_to_hub(publications, destination.name, order.is_public, token, progress)
    else:
        places = publish_to_folder(publications, destination.absolute(), progress)
    for publication, place in zip(publications, places, strict=True):
        say(f"{publication.kind}, version {publication.version}: {place}")


def _check_files(publications: list[Publication], progress: Progress) -> None:
    done = 0
    progress.begin(
        "comparing the files with their manifests", sum(len(p.manifest.files) for p in publications)
    )

    def count(name: str) -> None:
        nonlocal done
        progress.update(done, detail=name)
        done += 1

    for publication in publications:
        check_hashes(publication, count)


def _say_what_would_go(
    publications: list[Publication], destination: Repository | Folder, is_public: bool, say: Say
) -> None:
    for publication in publications:
        if isinstance(destination, Repository):
            visibility = "public" if is_public else "private"
            place = f"the {visibility} repository {address_of(publication.kind, destination.name)}"
        else:
            place = place_of(publication, destination).shown
        say(f"{publication.kind}, {publication.num_bytes / 1e6:,.1f} MB, would go to {place}:")
        for name, size in publication.sizes.items():
            say(f"  {name} ({size:,} bytes)")
    say("nothing was sent (--dry-run)")
