"""Publications → `TO/<dataset or model>/<version>/` in a folder or a bucket.

A version is whole if and only if its `manifest.json` is there, as everywhere in this project: the manifests
go last, after the files of all that is published. Killed before, the same command goes on from there.
"""

import hashlib
import shutil
from typing import IO

from asclepius_ray.artifacts import MANIFEST_NAME, Folder, is_finished, read_manifest
from asclepius_ray.errors import PublishError
from asclepius_ray.progress import Progress
from asclepius_ray.publish.publication import Publication, changed

BLOCK_BYTES = 1 << 22


def publish_to_folder(publications: list[Publication], target: Folder, progress: Progress) -> list[str]:
    """Copies what is not there yet and returns where each publication is."""
    places = [(publication, place_of(publication, target)) for publication in publications]
    unfinished = [(publication, place) for publication, place in places if not _is_there(publication, place)]
    for publication, place in unfinished:
        _copy_files(publication, place, progress)
    for publication, place in unfinished:
        place.write_bytes(MANIFEST_NAME, publication.folder.read_bytes(MANIFEST_NAME))
    return [place.shown for _, place in places]


def place_of(publication: Publication, target: Folder) -> Folder:
    return target.child(publication.kind).child(publication.version)


def _is_there(publication: Publication, place: Folder) -> bool:
    return is_finished(place) and read_manifest(place).files == publication.manifest.files


def _copy_files(publication: Publication, place: Folder, progress: Progress) -> None:
    names = list(publication.manifest.files)
    progress.begin(f"copying the {publication.kind}", len(names))
    place.make()
    there = place.sizes()
    for number, name in enumerate(names, start=1):
        # The same size alone may be chance or damage; what is there already is read back once.
        expected = publication.manifest.files[name]
        if there.get(name) != publication.sizes[name] or place.sha256(name) != expected:
            _copy(publication, place, name)
        progress.update(number)


def _copy(publication: Publication, place: Folder, name: str) -> None:
    digest = hashlib.sha256()
    with publication.folder.open_input(name) as source, place.open_output(name) as target:
        shutil.copyfileobj(_Hashed(source, digest), target, BLOCK_BYTES)
    if digest.hexdigest() != publication.manifest.files[name]:
        place.delete(name)
        raise changed(publication, name)
    if place.sizes().get(name) != publication.sizes[name]:
        raise PublishError(f"{place.shown}/{name} did not arrive whole; say the same command again")


class _Hashed:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: IO[bytes], digest: "hashlib._Hash") -> None:
        self._stream = stream
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self._digest.update(block)
        return block
